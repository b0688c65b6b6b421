"""Actions that do not want a task for each decision: no task is made, and a fault of theirs loses none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Journal, Occasion, Receipt, Task
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.recording import Plan, add_tasks, record
from uploadguard.models import Context, Decision, Verdict


class Plain:
    """An action that takes whatever comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.occasions = frozenset({Occasion.REPORT, Occasion.DELETE})

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        return Receipt()


class Choosy(Plain):
    """One that wants decisions of one list."""

    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:
        return decision.matches[0].list_name == "wanted" or (context.uploader, occasion) == ("known", Occasion.DELETE)


class Broken(Plain):
    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:
        raise RuntimeError


ACTIONS = (Plain("plain"), Choosy("choosy"), Broken("broken"))


def tasks(database: Database) -> list[tuple[int, str, str]]:
    columns = schema.tasks.c
    with database.reading() as connection:
        rows = connection.execute(sa.select(columns.decision_id, columns.action, columns.occasion)).all()
    return sorted((row.decision_id, row.action, row.occasion) for row in rows)


def test_actions_are_asked_for_blocked_uploads(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    plan = Plan.of(ACTIONS)
    assert set(plan.selective) == {"choosy", "broken"}
    records = [made_up_record(verdict=Verdict.BLOCK, list_name=name) for name in ("wanted", "other")]
    with database.writing() as connection:
        first, second = (one.decision_id for one in record(connection, records, plan))
    assert tasks(database) == [
        (first, "broken", "report"),
        (first, "choosy", "report"),
        (first, "plain", "report"),
        (second, "broken", "report"),
        (second, "plain", "report"),
    ]
    assert "broken: wants raised RuntimeError" in caplog.text


def test_actions_are_asked_for_each_decision_of_a_case(database: Database) -> None:
    plan = Plan.of((Choosy("choosy"),))
    records = [
        made_up_record(list_name=name, context=Context(uploader=uploader))
        for name, uploader in (("wanted", "a"), ("other", "b"), ("other", "known"))
    ]
    with database.writing() as connection:
        ids = [one.decision_id for one in record(connection, records, plan)]
        now = datetime.now(UTC)
        added = [add_tasks(connection, plan, one, ids, None, now=now) for one in (Occasion.REPORT, Occasion.DELETE)]
    assert added == [1, 2]
    assert tasks(database) == [(ids[0], "choosy", "delete"), (ids[0], "choosy", "report"), (ids[2], "choosy", "delete")]
