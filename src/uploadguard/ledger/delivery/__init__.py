"""How a worker carries tasks of the outbox out: leases, the journal, outcomes, threads, pauses, alarms.

Put together in :mod:`uploadguard.ledger.outbox_worker`.
"""
