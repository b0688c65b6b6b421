"""Whether this process can check uploads, for load balancers and people. Names of checks, nothing of lists."""

from __future__ import annotations

from uploadguard.guard import Guard

__all__ = ["readiness"]


def readiness(guard: Guard) -> tuple[bool, dict[str, str]]:
    """Whether uploads can be checked as they should be, and each check's state. Blocks for a moment."""
    status = guard.status()
    recording = "off" if status.ledger is None else status.ledger.into
    entries = status.entries > 0 or guard.settings.hashset.allow_empty
    checks = {
        "hash_set": "ok" if entries else "empty",
        "freshness": "stale" if status.stale else "ok",
        "recording": recording,
        "refresh": "failing" if status.refresh_error is not None else "ok",
    }
    # A generation that cannot be loaded is for the operator to see: the old one still serves, until it is stale.
    return status.ready and not status.stale, checks
