"""A report that is due and in no outbox is found, and no other is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Occasion
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.missing_reports import MissingReports
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Verdict

NONE = Plan({})
POLICE = Plan({"police": frozenset({Occasion.REPORT, Occasion.DELETE})})
BOTH = Plan({"police": frozenset({Occasion.REPORT}), "hotline": frozenset({Occasion.REPORT})})
NOW = datetime.now(UTC)


def recorded(database: Database, plan: Plan, verdict: Verdict = Verdict.BLOCK, **values: object) -> int:
    with database.writing() as connection:
        (ids,) = record(connection, [made_up_record(verdict=verdict, **values)], plan)  # type: ignore[arg-type]
    return ids.decision_id


def tasks(database: Database) -> list[tuple[int, str]]:
    columns = schema.tasks.c
    with database.reading() as connection:
        rows = connection.execute(sa.select(columns.decision_id, columns.action).order_by(columns.id)).all()
    return [(row.decision_id, row.action) for row in rows]


def test_what_a_host_without_a_destination_recorded(database: Database) -> None:
    blocked = recorded(database, NONE)
    recorded(database, NONE, report_due=False)
    recorded(database, NONE, Verdict.QUEUE)
    finder = MissingReports(database, POLICE)
    assert finder.run() == 1
    assert tasks(database) == [(blocked, "police")]
    assert finder.run() == 0
    with database.reading() as connection:
        assert '"action":"task.add"' in connection.execute(sa.select(schema.audit.c.entry)).scalars().all()[-1]


def test_what_a_host_with_an_old_configuration_recorded(database: Database) -> None:
    """It knew one destination of two; the other one had tasks before."""
    before = recorded(database, POLICE, decided_at=NOW - timedelta(hours=1))
    recorded(database, BOTH)
    since = recorded(database, POLICE, decided_at=NOW + timedelta(hours=5))
    assert MissingReports(database, BOTH).run(now=NOW + timedelta(hours=6)) == 1
    assert (since, "hotline") in tasks(database)
    assert (before, "hotline") not in tasks(database)


def test_a_new_destination_is_not_sent_what_others_were_told(database: Database) -> None:
    recorded(database, POLICE)
    assert MissingReports(database, BOTH).run() == 0


@pytest.mark.parametrize(("status", "added"), [("confirmed", 1), ("dismissed", 0), ("open", 0)])
def test_cases(database: Database, status: str, added: int) -> None:
    recorded(database, NONE, Verdict.QUEUE)
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status=status))
    assert MissingReports(database, POLICE).run() == added


def test_what_was_taken_back_stays_so(database: Database) -> None:
    recorded(database, POLICE)
    with database.changing() as connection:
        connection.execute(sa.update(schema.tasks).values(state="cancelled"))
    assert MissingReports(database, POLICE).run() == 0


def test_what_is_long_ago_is_left(database: Database) -> None:
    recorded(database, NONE, decided_at=NOW - timedelta(days=31))
    assert MissingReports(database, POLICE).run() == 0


def test_many(database: Database) -> None:
    with database.writing() as connection:
        record(connection, [made_up_record(verdict=Verdict.BLOCK) for _ in range(450)], NONE)
    assert MissingReports(database, POLICE).run() == 450
    assert len(set(tasks(database))) == 450
