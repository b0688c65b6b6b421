"""What the console reads from the tables by itself, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.errors import UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.cases import Cases
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Context, Verdict
from uploadguard.web.console import queries

LEAD = Person("lee", frozenset(Role))


@pytest.fixture
def references(database: Database) -> list[str]:
    """Three queued uploads of two tenants, and a blocked one."""
    found = [
        made_up_record(
            entry=f"e{n}",
            verdict=Verdict.BLOCK if n == 3 else Verdict.QUEUE,
            decided_at=datetime.now(UTC) - timedelta(hours=2),
            context=Context(uploader=f"u{n}", object_id=f"o{n}", tenant=("a", "b")[n % 2]),
        )
        for n in range(4)
    ]
    with database.writing() as connection:
        record(connection, found, Plan({}))
    return [str(one["reference"]) for one in found]


def test_decisions_are_paged_and_found(database: Database, references: list[str]) -> None:
    first, before = queries.decisions(database, verdict=None, text=None, before=None, limit=3)
    assert [one.reference for one in first] == references[:0:-1]
    assert before is not None
    last, none = queries.decisions(database, verdict=None, text=None, before=before, limit=3)
    assert ([one.reference for one in last], none) == (references[:1], None)
    for text, place in ((references[1], 1), ("o2", 2), ("u0", 0)):
        (one,), _ = queries.decisions(database, verdict=None, text=text, before=None, limit=3)
        assert one.reference == references[place]
    (blocked,), _ = queries.decisions(database, verdict="block", text=None, before=None, limit=3)
    assert blocked.case_id is None
    assert blocked.decided_at.tzinfo is not None


def test_one_decision_with_its_case(database: Database, references: list[str]) -> None:
    decision_id, recorded, case_id, held = queries.decision(database, references[0])
    assert recorded.context.uploader == "u0"
    assert not held
    assert queries.case_of_decision(database, decision_id) == case_id is not None
    with pytest.raises(UnknownRecordError):
        queries.decision(database, "nope")
    with pytest.raises(UnknownRecordError):
        queries.case_of_decision(database, 10**15)


def test_tenants_are_those_of_cases(database: Database, references: list[str]) -> None:
    assert queries.tenants(database) == ["a", "b"]


def test_outcomes_and_checks_by_the_hour(database: Database, references: list[str]) -> None:
    cases = Cases(database, Plan({}))
    cases.decide([1], "confirm", LEAD)
    cases.decide([2], "dismiss", LEAD)
    now = datetime.now(UTC)
    starts = queries.buckets(now, count=24, step=timedelta(hours=1))
    with database.changing() as connection:
        for hour, value in ((starts[-1], 5), (starts[3], 7), (starts[0] - timedelta(hours=1), 100)):
            connection.execute(sa.insert(schema.counts).values(hour=hour, name="allow", value=value))
    found = queries.outcomes_by_hour(database, starts[0])
    totals = {name: queries.collected(hours, starts, timedelta(hours=1)) for name, hours in found.items()}
    assert sum(totals["opened"][-4:-1]) == 3
    assert totals["opened"][-1] == 0
    assert (sum(totals["confirmed"]), sum(totals["dismissed"])) == (1, 1)
    checks = queries.collected(queries.checks_by_hour(database, starts[0])["allow"], starts, timedelta(hours=1))
    assert (checks[-1], checks[3], sum(checks)) == (5, 7, 12)
    days = queries.buckets(now, count=30, step=timedelta(days=1))
    assert days[-1] == now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert sum(queries.collected(found["opened"], days, timedelta(days=1))) == 3


def test_the_audit_log_backwards(database: Database, references: list[str]) -> None:
    entries, before = queries.audit_entries(database, before=None, limit=3)
    assert [seq for seq, _ in entries] == [4, 3, 2]
    assert before == 2
    with database.changing() as connection:
        connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == 1).values(entry="[]"))
    assert queries.audit_entries(database, before=before, limit=3) == ([(1, None)], None)
