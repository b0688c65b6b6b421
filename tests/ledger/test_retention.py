"""What a purge removes and what keeps it from that; legal holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Occasion
from uploadguard.config import Settings
from uploadguard.errors import EvidenceError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import audit, retention, schema
from uploadguard.ledger.audit_verify import verify
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, RecordedIds, add_tasks, record
from uploadguard.ledger.retention import PurgeReport, hold, is_held, purge, release_hold
from uploadguard.models import Verdict

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LEAD = Person("lena", frozenset({Role.LEAD}))
PLAN = Plan({"made-up": frozenset({Occasion.REPORT, Occasion.RELEASE})})


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


class Made:
    """Writes records of any age into a ledger."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def upload(self, days: float, verdict: Verdict = Verdict.QUEUE, **values: Any) -> RecordedIds:
        values.setdefault("entry", None if verdict is Verdict.NOT_SCANNED else "entry-1")
        with self.database.writing() as connection:
            made_up = made_up_record(verdict=verdict, decided_at=ago(days), **values)
            return record(connection, [made_up], PLAN, now=ago(days))[0]

    def case(self, days: float, status: str = "dismissed", *, uploads: int = 1) -> int:
        """A decided case with its tasks done, all so many days ago. Every case is of other entries than the others."""
        first = self.upload(days, entry=f"entry-{self.count(schema.cases)}")
        assert first.case_id is not None
        with self.database.writing() as connection:
            for _ in range(uploads - 1):
                found = made_up_record(decided_at=ago(days), entry=f"entry-{first.case_id}")
                extra = record(connection, [found], Plan({}), now=ago(days))[0]
                move = sa.update(schema.decisions).where(schema.decisions.c.id == extra.decision_id)
                connection.execute(move.values(case_id=first.case_id))
                if extra.case_id != first.case_id:
                    connection.execute(sa.delete(schema.cases).where(schema.cases.c.id == extra.case_id))
            connection.execute(
                sa.update(schema.cases)
                .where(schema.cases.c.id == first.case_id)
                .values(status=status, decided_at=ago(days) if status != "open" else None)
            )
            occasion = Occasion.REPORT if status == "confirmed" else Occasion.RELEASE
            add_tasks(connection, PLAN, occasion, first.decision_id, first.case_id, now=ago(days))
        self.tasks(first.decision_id, state="filed", done_at=ago(days))
        return first.case_id

    def tasks(self, decision_id: int, **values: Any) -> None:
        with self.database.changing() as connection:
            changed = sa.update(schema.tasks).where(schema.tasks.c.decision_id == decision_id)
            assert connection.execute(changed.values(**values)).rowcount

    def evidence(self, decision_id: int, **values: Any) -> None:
        row = {
            "decision_id": decision_id, "file": f"{decision_id:032x}", "sha256": b"\0" * 32, "size_bytes": 1,
            "stored_at": ago(100), "keep_until": ago(1), **values,
        }  # fmt: skip
        with self.database.changing() as connection:
            connection.execute(sa.insert(schema.evidence).values(**row))

    def decisions_of(self, case_id: int) -> Sequence[int]:
        columns = schema.decisions.c
        with self.database.reading() as connection:
            return connection.execute(sa.select(columns.id).where(columns.case_id == case_id)).scalars().all()

    def count(self, table: sa.Table) -> int:
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    def ids(self, table: sa.Table) -> list[int]:
        with self.database.reading() as connection:
            return list(connection.execute(sa.select(table.c.id).order_by(table.c.id)).scalars())


@pytest.fixture
def made(database: Database) -> Made:
    return Made(database)


def purged(made: Made, settings: Settings, **options: Any) -> PurgeReport:
    options.setdefault("now", NOW)
    return purge(made.database, settings, **options)


def test_what_is_too_old_goes_by_its_kind(made: Made, settings: Settings) -> None:
    made.upload(31, Verdict.NOT_SCANNED)
    made.upload(31, Verdict.ALLOW)
    kept = [made.upload(29, Verdict.NOT_SCANNED).decision_id]
    old = made.upload(400, Verdict.BLOCK)
    made.tasks(old.decision_id, state="filed", done_at=ago(399))
    made.upload(400, Verdict.BLOCK, report_due=False)
    kept.append(made.upload(300, Verdict.BLOCK, report_due=False).decision_id)
    made.case(91, uploads=3)
    cases = [made.case(89), made.case(300, "confirmed"), made.case(5000, "open")]
    made.case(366, "confirmed")
    kept += [one for case in cases for one in made.decisions_of(case)]
    expected = purged(made, settings, dry_run=True)
    before = made.count(schema.audit)
    assert {name: (one.cases, one.decisions, one.tasks) for name, one in expected.kinds.items()} == {
        "not_scanned": (0, 2, 0),
        "blocked": (0, 2, 1),
        "dismissed": (1, 3, 1),
        "confirmed": (1, 1, 1),
    }
    report = purged(made, settings, person=LEAD)
    assert report.kinds == expected.kinds
    assert made.ids(schema.cases) == sorted(cases)
    assert made.ids(schema.decisions) == sorted(kept)
    with made.database.reading() as connection:
        assert set(connection.execute(sa.select(schema.case_keys.c.case_id)).scalars()) == set(cases)
    entries = audit.list_entries(made.database, action="ledger.purge")
    assert len(entries) == made.count(schema.audit) - before == 4
    assert {entry.actor for entry in entries} == {"lena"}
    assert entries[-1].detail == {"kind": "not_scanned", "cases": 0, "decisions": 2, "tasks": 0}
    assert verify(made.database).ok


def test_a_second_purge_finds_nothing(made: Made, settings: Settings) -> None:
    made.case(200)
    purged(made, settings)
    before = made.count(schema.audit)
    report = purged(made, settings)
    assert all(one == retention.Purged() for one in report.kinds.values())
    assert made.count(schema.audit) == before


def test_a_dry_run_changes_nothing(made: Made, settings: Settings) -> None:
    made.case(200)
    before = [made.count(table) for table in schema.metadata.sorted_tables]
    assert purged(made, settings, dry_run=True).kinds["dismissed"].cases == 1
    assert [made.count(table) for table in schema.metadata.sorted_tables] == before


def test_zero_days_are_for_ever(made: Made, settings: Settings) -> None:
    none = settings.ledger.retention.model_copy(
        update={"not_scanned_days": 0, "dismissed_days": 0, "confirmed_days": 0}
    )
    settings = settings.model_copy(update={"ledger": settings.ledger.model_copy(update={"retention": none})})
    made.upload(9999, Verdict.NOT_SCANNED)
    made.upload(9999, Verdict.BLOCK, report_due=False)
    made.case(9999)
    made.case(9999, "confirmed")
    assert purged(made, settings).kinds == {}
    assert made.count(schema.decisions) == 4


@pytest.mark.parametrize("state", ["pending", "opened", "finishing", "refused"])
@pytest.mark.parametrize("status", ["dismissed", "confirmed"])
def test_what_is_not_done_yet_is_kept(made: Made, settings: Settings, state: str, status: str) -> None:
    case_id = made.case(999, status)
    made.tasks(made.decisions_of(case_id)[0], state=state, done_at=None)
    blocked = made.upload(999, Verdict.BLOCK)
    made.tasks(blocked.decision_id, state=state)
    report = purged(made, settings)
    assert report.kinds[status].unfinished == report.kinds["blocked"].unfinished == 1
    assert made.ids(schema.cases) == [case_id]
    assert blocked.decision_id in made.ids(schema.decisions)


def test_a_report_is_kept_from_when_it_was_filed(made: Made, settings: Settings) -> None:
    made.tasks(made.upload(999, Verdict.BLOCK).decision_id, state="filed", done_at=ago(364))
    case_id = made.case(999, "dismissed")
    made.tasks(made.decisions_of(case_id)[0], occasion="report", state="filed", done_at=ago(300))
    assert purged(made, settings).kinds["dismissed"].unfinished == 1
    assert made.count(schema.decisions) == 2
    purged(made, settings, now=NOW + timedelta(days=100))
    assert made.count(schema.decisions) == made.count(schema.tasks) == made.count(schema.cases) == 0


def test_what_has_a_preserved_file_is_kept(made: Made, settings: Settings) -> None:
    """Until the evidence part has destroyed it; its time being over is not enough."""
    case_id = made.case(999)
    decision_id = made.decisions_of(case_id)[0]
    made.evidence(decision_id)
    removed: list[str] = []
    assert purged(made, settings, remove_file=removed.append).kinds["dismissed"].evidence == 1
    assert made.ids(schema.cases) == [case_id]
    assert removed == []
    with made.database.changing() as connection:
        connection.execute(sa.update(schema.evidence).values(destroyed_at=ago(1)))
    seen: list[int] = []

    def remove(file: str) -> None:
        seen.append(made.count(schema.evidence))  # another connection: so it is committed
        removed.append(file)
        raise EvidenceError("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(retention.log, "warning", lambda text, *_: said.append(text))
        purged(made, settings, remove_file=remove)
    assert removed == [f"{decision_id:032x}"]
    assert seen == [0]
    assert len(said) == 1
    assert made.count(schema.cases) == made.count(schema.evidence) == 0


@pytest.mark.parametrize("kind", ["case", "decision"])
def test_a_hold_keeps_a_case_with_all_its_uploads(made: Made, settings: Settings, kind: Any) -> None:
    case_id = made.case(999, uploads=3)
    uploads = made.decisions_of(case_id)
    record_id = case_id if kind == "case" else uploads[1]
    assert hold(made.database, kind, record_id, LEAD, "order 4711")
    assert not hold(made.database, kind, record_id, LEAD, "again")
    with made.database.reading() as connection:
        held = [is_held(connection, one) for one in uploads]
    assert held == ([True] * 3 if kind == "case" else [False, True, False])
    assert purged(made, settings).kinds["dismissed"].held == 1
    assert len(made.decisions_of(case_id)) == 3
    entry = audit.list_entries(made.database)[0]
    assert (entry.actor, entry.action, entry.subject) == ("lena", f"{kind}.hold", f"{kind}:{record_id}")
    assert entry.detail == {"note": "order 4711"}
    with made.database.reading() as connection:
        event = connection.execute(sa.select(schema.case_events).order_by(schema.case_events.c.id.desc())).first()
    assert event is not None
    assert (event.case_id, event.kind, event.actor) == (case_id, "hold", "lena")
    assert release_hold(made.database, kind, record_id, LEAD, "withdrawn")
    assert purged(made, settings).kinds["dismissed"].cases == 1


def test_a_hold_keeps_an_upload_without_a_case(made: Made, settings: Settings) -> None:
    held = made.upload(999, Verdict.NOT_SCANNED).decision_id
    made.upload(999, Verdict.NOT_SCANNED)
    hold(made.database, "decision", held, LEAD, "order")
    assert purged(made, settings).kinds["not_scanned"].held == 1
    assert made.ids(schema.decisions) == [held]


def test_holds_need_the_role_a_note_and_a_record(made: Made) -> None:
    case_id = made.case(1)
    with pytest.raises(NotPermittedError):
        hold(made.database, "case", case_id, Person("x", frozenset(Role) - {Role.LEAD}), "order")
    with pytest.raises(ValueError, match="note"):
        hold(made.database, "case", case_id, LEAD, " \0 ".replace("\0", ""))
    with pytest.raises(UnknownRecordError):
        release_hold(made.database, "decision", 999, LEAD, "order")
    assert hold(made.database, "case", case_id, LEAD, "a\0\ud800")
    assert audit.list_entries(made.database)[0].detail == {"note": "a\ufffd?"}


def test_a_purge_needs_the_role(made: Made, settings: Settings) -> None:
    with pytest.raises(NotPermittedError):
        purged(made, settings, person=Person("x", frozenset({Role.REVIEW})))


def test_a_hold_that_comes_during_a_purge_counts(
    made: Made, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 1)
    cases = [made.case(999) for _ in range(3)]
    purged(made, settings, progress=lambda done, _: done > 1 or hold(made.database, "case", cases[2], LEAD, "order"))
    assert made.ids(schema.cases) == [cases[2]]


def test_an_interrupted_purge_goes_on(made: Made, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions are bounded, a case of many uploads takes several; after any of them all may end."""
    monkeypatch.setattr(retention, "_BATCH", 2)
    monkeypatch.setattr(retention, "_MAX_DECISIONS", 3)
    for uploads in (1, 8, 2, 1):
        made.case(999, uploads=uploads)
    sizes: list[int] = []

    def stop(*_: int) -> None:
        sizes.append(made.count(schema.decisions))
        raise KeyboardInterrupt

    for _ in range(20):
        try:
            purged(made, settings, progress=stop)
        except KeyboardInterrupt:
            continue
        break
    assert sizes == sorted(sizes, reverse=True)
    assert all(before - after <= 3 for before, after in zip([12, *sizes], sizes, strict=False))
    assert made.count(schema.decisions) == made.count(schema.cases) == made.count(schema.tasks) == 0
    numbers = [entry.detail for entry in audit.list_entries(made.database, action="ledger.purge")]
    assert sum(one["decisions"] for one in numbers) == 12
    assert sum(one["cases"] for one in numbers) == 4


def test_old_counts_and_sent_opinions_go(made: Made, settings: Settings) -> None:
    kept, gone = made.case(1), made.case(999)
    with made.database.changing() as connection:
        for days in (399, 401):
            connection.execute(sa.insert(schema.counts).values(hour=ago(days), name="allow", value=3))
        for case_id, sent_at in ((kept, NOW), (gone, NOW), (gone, None)):
            connection.execute(
                sa.insert(schema.feedback).values(
                    list_name="made-up", entry_id=str(sent_at), opinion="wrong", case_id=case_id, actor="a", at=ago(5),
                    sent_at=sent_at,
                )
            )  # fmt: skip
    report = purged(made, settings)
    assert (report.hours, report.feedback) == (1, 1)
    assert (made.count(schema.counts), made.count(schema.feedback)) == (1, 2)


def test_sqlite_keeps_nothing_of_what_was_purged(sqlite_settings: Settings) -> None:
    from uploadguard.ledger.database import SQLITE_NAME, open_database

    database = open_database(sqlite_settings, create=True)
    made = Made(database)
    for _ in range(20):
        made.upload(999, Verdict.NOT_SCANNED)
    purged(made, sqlite_settings)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert sqlite_settings.ledger.path is not None
    content = (sqlite_settings.ledger.path / SQLITE_NAME).read_bytes()
    assert b"somebody" not in content
    assert b"decision.record" in content
