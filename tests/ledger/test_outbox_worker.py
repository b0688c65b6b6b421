"""The worker: claims, outcomes, crashes, leases, outages, hangs."""

from __future__ import annotations

from tests.ledger.twophase import Destination, TwoPhaseAction, add_reports, task_rows
from uploadguard.actions import State
from uploadguard.config_ledger import OutboxSettings
from uploadguard.ledger.database import Database
from uploadguard.ledger.outbox_worker import OutboxWorker


def test_reports_are_filed(database: Database) -> None:
    add_reports(database, 20)
    there = Destination()
    worker = OutboxWorker(database, {"authority": TwoPhaseAction(there)}, OutboxSettings())
    assert worker.run_once() == 20
    assert {row.state for row in task_rows(database)} == {State.FILED.value}
    assert set(there.finished_by_key.values()) == {1}
