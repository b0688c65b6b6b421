"""Listing cases: filters, pages, bounded totals, and that indexes serve them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.ledger.test_cases import ANN, LEA, PLAN, new_case
from uploadguard.ledger import case_views, schema
from uploadguard.ledger.case_views import CaseFilter
from uploadguard.ledger.cases import Cases, CaseStatus
from uploadguard.ledger.database import Database
from uploadguard.models import Context

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def cases(database: Database) -> Cases:
    return Cases(database, PLAN, two_person="confirm")


def add_rows(database: Database, count: int, **values: object) -> None:
    row = {"status": "open", "opened_at": NOON, "updated_at": NOON, "verdict": "queue", "reason": "r", "uploads": 1}
    with database.changing() as connection:
        connection.execute(sa.insert(schema.cases), [row | values] * count)


def test_each_filter(database: Database, cases: Cases) -> None:
    first = new_case(
        database, list_name="list-a", decided_at=NOON, context=Context(uploader="ann", tenant="x", object_id="o-1")
    )
    second = new_case(database, list_name="list-ab", decided_at=NOON, context=Context(uploader="bo"))
    third = new_case(database, entry=None, decided_at=NOON, context=Context())
    cases.claim(second, ANN)
    cases.escalate(third, ANN, "")
    reference = cases.show(second).uploads[0].recorded.decision.reference

    def ids(**wanted: object) -> list[int]:
        page = cases.list(**wanted)  # type: ignore[arg-type]
        assert page.total == len(page.cases)
        return [case.id for case in page.cases]

    assert ids() == [first, second, third]
    assert ids(tenant="x") == ids(uploader="ann") == ids(list_name="list-a") == [first]
    assert ids(list_name="list-ab") == ids(claimed_by="ann") == [second]
    assert ids(list_name="list") == ids(list_name="LIST-A") == ids(list_name="%") == []
    assert ids(claimed_by="") == [first, third]
    assert ids(reason="timeout") == ids(escalated=True) == [third]
    assert ids(escalated=False, tenant=None) == [first, second]
    assert ids(text="ann") == ids(text="o-1") == ids(text=f"#{first}") == ids(text=str(first)) == [first]
    assert ids(text=reference) == [second]
    assert ids(text="an") == ids(text="9" * 30) == ids(text="²") == []
    cases.decide([first], "dismiss", ANN)
    cases.decide([second], "confirm", ANN)
    assert ids() == [second, third]
    assert ids(statuses=[CaseStatus.DISMISSED]) == [first]
    assert ids(statuses=[*CaseStatus]) == [first, second, third]
    assert ids(statuses=[]) == []


def test_pages_follow_one_another_whatever_happens_between(database: Database, cases: Cases) -> None:
    for minute in (5, 3, 3, 3, 1, 9, 7):
        add_rows(database, 1, opened_at=NOON + timedelta(minutes=minute, microseconds=1))
    add_rows(database, 1, opened_at=NOON + timedelta(minutes=4), status="proposed", proposed="confirm")
    seen: list[int] = []
    after: str | None = None
    while True:
        page = cases.list(after=after, limit=3)
        seen += [case.id for case in page.cases]
        cases.decide([page.cases[0].id], "dismiss", LEA)  # what is gone moves no page
        after = page.next_after
        if after is None:
            break
    assert seen == [5, 2, 3, 4, 8, 1, 7, 6]
    assert len(cases.list(limit=0).cases) == 1
    assert len(cases.list(limit=10**9).cases) == 5


@pytest.mark.parametrize(
    "after", ["", "x", "5", "2026-01-01/1", "2026-01-01T00:00:00+00:00/0", "/1", f"{NOON}/{2**63}"]
)
def test_a_place_that_no_page_gave(cases: Cases, after: str) -> None:
    with pytest.raises(ValueError, match="next_after"):
        cases.list(after=after)


def test_totals_are_bounded(database: Database, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_views, "MAX_TOTAL", 5)
    add_rows(database, 7)
    assert cases.list(limit=2).total == 5


def test_an_index_serves_the_queue(database: Database) -> None:
    """Neither a walk over all cases nor a sort of them, however many are decided."""
    add_rows(database, 3000, status="confirmed")
    add_rows(database, 3000)
    with database.changing() as connection:
        connection.exec_driver_sql("ANALYZE")
    statements: list[str] = []

    def explain(connection: sa.Connection, cursor: object, statement: str, values: object, *_: object) -> None:
        if "FROM cases" in statement and "EXPLAIN" not in statement:
            prefix = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            found = connection.exec_driver_sql(prefix + statement, values)  # type: ignore[arg-type]
            statements.append("\n".join(" ".join(map(str, row)) for row in found))

    with database.reading() as connection:
        page = case_views.list_cases(connection, CaseFilter([CaseStatus.OPEN, CaseStatus.PROPOSED]), None, 50)
        sa.event.listen(database.engine, "after_cursor_execute", explain)
        case_views.list_cases(connection, CaseFilter([CaseStatus.OPEN, CaseStatus.PROPOSED]), page.next_after, 50)
    assert len(statements) == 2
    assert statements[0].count("ix_cases_status_opened_at") == 2
    assert "SCAN cases" not in statements[0]
    assert "Seq Scan" not in statements[0]


def test_an_index_finds_the_cases_of_a_list(database: Database) -> None:
    with database.changing() as connection:
        connection.execute(
            sa.insert(schema.cases),
            [
                {
                    "status": "open",
                    "opened_at": NOON,
                    "updated_at": NOON,
                    "verdict": "queue",
                    "reason": "r",
                    "uploads": 1,
                }
            ]
            * 2000,
        )
        keys = [{"case_id": number, "key": f"entry:list-{number % 500}/e"} for number in range(1, 2001)]
        connection.execute(sa.insert(schema.case_keys), keys)
        connection.exec_driver_sql("ANALYZE")
        condition = CaseFilter([CaseStatus.OPEN], list_name="list-7").conditions()
        query = sa.select(schema.cases.c.id).where(*condition)
        assert len(connection.execute(query).all()) == 4
        text = str(query.compile(database.engine, compile_kwargs={"literal_binds": True}))
        prefix = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        plan = "\n".join(" ".join(map(str, row)) for row in connection.exec_driver_sql(prefix + text))
    assert "case_keys" in plan
    assert "Seq Scan on case_keys" not in plan
    assert "SCAN case_keys" not in plan
