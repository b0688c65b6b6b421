"""Recording: what is acknowledged is durable, an outage goes to the spool, and what nobody can keep is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Occasion
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.config import Settings
from uploadguard.errors import LedgerDownError, LedgerError, NotRecordedError
from uploadguard.ledger import recording, schema
from uploadguard.ledger.codec import from_record, to_record
from uploadguard.ledger.database import Database
from uploadguard.ledger.recorder import Recorder, take_records
from uploadguard.ledger.recording import Plan
from uploadguard.ledger.spool import Spool
from uploadguard.models import Context, Verdict

PLAN = Plan({"police": frozenset({Occasion.REPORT}), "storage": frozenset({Occasion.DELETE})})


class Setup:
    """A recorder with its parts, and the alarms it raised."""

    def __init__(self, settings: Settings, database: Database, *, timeout_s: float = 10.0) -> None:
        assert settings.ledger.path is not None
        self.database = database
        self.directory = settings.ledger.path / "spool"
        self.spool = Spool(self.directory)
        self.alarms: list[Alarm] = []
        self.recorder = Recorder(database, self.spool, PLAN, timeout_s=timeout_s, alarm=self.alarms.append)

    def count(self, table: sa.Table) -> int:
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The database raises as one does that is down."""

        @contextmanager
        def down() -> Iterator[sa.Connection]:
            raise LedgerDownError("gone")
            yield

        real = self.database.writing
        self.database.writing = down  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.database.writing = real  # type: ignore[method-assign]
            self.recorder._work._retry_at = 0.0


@pytest.fixture
def setup(settings: Settings, database: Database) -> Iterator[Setup]:
    made = Setup(settings, database)
    yield made
    made.recorder.close()


def test_a_queued_upload_is_there_with_its_case(setup: Setup) -> None:
    setup.recorder.record(made_up_record())
    with setup.database.reading() as connection:
        decision = connection.execute(sa.select(schema.decisions)).one()
        case = connection.execute(sa.select(schema.cases)).one()
        keys = connection.execute(sa.select(schema.case_keys.c.key)).scalars().all()
        entry = connection.execute(sa.select(schema.audit.c.entry)).scalar_one()
    assert decision.case_id == case.id
    assert (case.status, case.uploader, case.uploads, case.reason) == ("open", "somebody", 1, "digest_match")
    assert keys == ["entry:made-up/entry-1"]
    assert "made-up" not in entry
    assert "somebody" not in entry
    assert setup.count(schema.tasks) == 0  # nobody has confirmed it
    restored = from_record(decision.record)
    assert restored.decision.reference == decision.reference
    assert restored.context.port == 4711


def test_a_block_with_a_report_due_has_its_task_at_once(setup: Setup) -> None:
    setup.recorder.record(made_up_record(verdict=Verdict.BLOCK))
    setup.recorder.record(made_up_record(verdict=Verdict.BLOCK, report_due=False))
    with setup.database.reading() as connection:
        task = connection.execute(sa.select(schema.tasks)).one()
    assert (task.action, task.occasion, task.state) == ("police", "report", "pending")
    assert task.due_at == task.created_at + timedelta(hours=24)
    assert setup.count(schema.cases) == 0


def test_recording_twice_is_recording_once(setup: Setup) -> None:
    found = made_up_record(verdict=Verdict.BLOCK)
    for _ in range(3):
        setup.recorder.record(found)
    assert (setup.count(schema.decisions), setup.count(schema.tasks), setup.count(schema.audit)) == (1, 1, 1)


def record_of(setup: Setup, **values: object) -> recording.RecordedIds:
    with setup.database.writing() as connection:
        (ids,) = recording.record(connection, [made_up_record(**values)], PLAN)  # type: ignore[arg-type]
    return ids


def test_uploads_that_are_one_matter_join_one_case(setup: Setup) -> None:
    now = datetime.now(UTC)
    first = record_of(setup, entry="a").case_id
    assert record_of(setup, entry="a").case_id == first
    assert record_of(setup, entry="b").case_id != first
    assert record_of(setup, entry="a", context=Context(uploader="another")).case_id != first
    assert record_of(setup, entry="a", context=Context(uploader="somebody", tenant="t")).case_id != first
    assert record_of(setup, entry="a", decided_at=now + timedelta(hours=25)).case_id != first
    same = os.urandom(32)
    without = record_of(setup, entry=None, sha256=same).case_id
    assert record_of(setup, entry=None, sha256=same).case_id == without
    assert record_of(setup, entry=None).case_id != without


def test_uploads_of_nobody_in_particular_are_not_one_matter(setup: Setup) -> None:
    one = record_of(setup, context=Context()).case_id
    assert record_of(setup, context=Context()).case_id != one


def test_a_decided_case_takes_nothing_in(setup: Setup) -> None:
    first = record_of(setup).case_id
    with setup.database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="dismissed"))
    assert record_of(setup).case_id != first


def test_an_outage_goes_to_the_spool_and_comes_back(setup: Setup) -> None:
    with setup.outage():
        for _ in range(3):
            setup.recorder.record(made_up_record())
        assert setup.recorder.status().into == "spool"
        assert setup.recorder.status().spool.files == 1
        assert [alarm.kind for alarm in setup.alarms] == [AlarmKind.SPOOLING]
        with pytest.raises(LedgerDownError):
            setup.recorder.tend()
    assert setup.count(schema.decisions) == 0
    setup.recorder.tend()
    assert setup.count(schema.decisions) == 3
    status = setup.recorder.status()
    assert (status.into, status.error, status.spool.files) == ("database", None, 0)
    assert not setup.recorder.refusing


def test_a_database_that_hangs_does_not_hold_an_upload_up(settings: Settings, database: Database) -> None:
    setup = Setup(settings, database, timeout_s=0.2)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with database.writing():
            held.set()
            let_go.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    try:
        setup.recorder.record(made_up_record())
        assert setup.recorder.status().spool.files == 1
    finally:
        let_go.set()
        holder.join()
    # The late transaction and the spool both bring it; it is there once.
    setup.recorder.close()
    setup.recorder.tend()
    assert setup.count(schema.decisions) == 1
    assert setup.recorder.status().spool.files == 0


def test_what_nobody_keeps_is_refused_and_so_is_all_after_it(setup: Setup) -> None:
    setup.directory.write_text("not a directory")
    with setup.outage():
        with pytest.raises(NotRecordedError, match="cannot be written"):
            setup.recorder.record(made_up_record())
        assert setup.recorder.refusing
        with pytest.raises(NotRecordedError, match="uploads are refused"):
            setup.recorder.require()
        with pytest.raises(LedgerError):
            setup.recorder.tend()
        assert setup.recorder.refusing
        assert setup.recorder.status().into == "refusing"
    assert [alarm.kind for alarm in setup.alarms] == [AlarmKind.NOT_RECORDING]
    setup.recorder.tend()  # the database is back, the spool is not
    setup.recorder.require()
    setup.recorder.record(made_up_record())
    assert setup.count(schema.decisions) == 1


def test_a_spool_that_works_again_is_enough(setup: Setup) -> None:
    setup.directory.write_text("not a directory")
    with setup.outage():
        with pytest.raises(NotRecordedError):
            setup.recorder.record(made_up_record())
        setup.directory.unlink()
        setup.recorder.tend()
        setup.recorder.require()
        setup.recorder.record(made_up_record())
    setup.recorder.tend()
    assert setup.count(schema.decisions) == 1


def test_one_bad_record_does_not_take_the_others_along(setup: Setup) -> None:
    """A record that the database refuses goes to the spool, and from there to a file for a person."""
    bad = made_up_record()
    bad["verdict"] = "no such verdict"
    start = threading.Barrier(6)

    def record(found: dict[str, object]) -> None:
        start.wait()
        setup.recorder.record(found)

    threads = [threading.Thread(target=record, args=(found,)) for found in [made_up_record() for _ in range(5)] + [bad]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert setup.count(schema.decisions) == 5
    setup.recorder.tend()
    assert setup.recorder.status().spool.damaged == 1
    assert setup.recorder.status().spool.files == 0
    assert AlarmKind.SET_ASIDE in {alarm.kind for alarm in setup.alarms}
    # It is tried again when somebody says so.
    take = take_records(setup.database, PLAN)
    ((_, error),) = setup.spool.readmit(take)
    assert error is not None
    (aside,) = setup.directory.glob("*.refused")
    aside.write_text(aside.read_text().replace("no such verdict", "queue"))
    assert [error for _, error in setup.spool.readmit(take)] == [None]
    assert list(setup.directory.glob("*.refused")) == []
    assert setup.count(schema.decisions) == 6


def test_strange_contexts_are_kept_as_far_as_they_go(setup: Setup) -> None:
    strange = Context(
        uploader="nul\0 and \udcff",
        filename="\udc80.jpg",
        extra={"set": {1}, "bytes": b"x", "nan": float("nan"), "deep": {"at": datetime(2026, 1, 1, tzinfo=UTC)}, 5: 6},
    )
    found = made_up_record(context=strange)
    setup.recorder.record(found)
    with setup.database.reading() as connection:
        kept = from_record(connection.execute(sa.select(schema.decisions.c.record)).scalar_one())
    assert kept.context.extra["deep"] == {"at": "2026-01-01T00:00:00+00:00"}
    assert to_record(kept.decision, kept.context, kept.decided_at)["context"] == found["context"]


class Unprintable:
    """A host's object that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def bottomless() -> dict[str, object]:
    """Nested deeper than Python recurses."""
    inner: dict[str, object] = {}
    for _ in range(100_000):
        inner = {"a": inner}
    return inner


HOSTILE = {
    "number": lambda: Context(uploader=5, object_id=10**40),
    "huge number": lambda: Context(uploader=10**5000, extra={"a": 10**5000}),
    "mapping": lambda: Context(uploader={"a": 1}, tenant=["a", {"b": 2}]),
    "long": lambda: Context(
        uploader=os.urandom(2000).hex(), tenant=os.urandom(2000).hex(), object_id=os.urandom(2000).hex()
    ),
    "times": lambda: Context(uploader="x", uploaded_at=datetime(1, 1, 1)),  # noqa: DTZ001 - hosts do
    "no time": lambda: Context(uploader="x", uploaded_at="yesterday", port="x"),
    "no mapping": lambda: Context(uploader="x", extra=[1, 2]),
    "unprintable": lambda: Context(uploader=Unprintable(), extra={"a": Unprintable()}),
    "deep": lambda: Context(uploader="x", extra=bottomless()),
    "much": lambda: Context(uploader="x", extra={str(i): ["y" * 100] * 10 for i in range(20_000)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_context_keeps_a_decision_from_the_database(setup: Setup, kind: str) -> None:
    found = made_up_record(context=HOSTILE[kind]())
    setup.recorder.record(found)
    setup.recorder.record(made_up_record())
    status = setup.recorder.status()
    assert (status.into, status.spool.files) == ("database", 0)
    assert setup.count(schema.decisions) == 2
    with setup.database.reading() as connection:
        records = connection.execute(sa.select(schema.decisions.c.record).order_by(schema.decisions.c.id)).scalars()
        kept = from_record(next(iter(records.all())))
    assert isinstance(kept.context.extra, dict)
    assert to_record(kept.decision, kept.context, kept.decided_at)["context"] == found["context"]
    assert len(json.dumps(found)) < 1_000_000


def test_fields_of_an_entry_that_are_no_json_are_kept_as_far_as_they_go(setup: Setup) -> None:
    decision = from_record(made_up_record()).decision
    fields = {"score": float("nan"), "seen": {1}, "text": "\0\ud800"}
    hostile = replace(decision, matches=(replace(decision.matches[0], fields=fields),))
    setup.recorder.record(to_record(hostile, Context(), datetime.now(UTC)))
    assert setup.recorder.status().into == "database"
    assert setup.recorder.status().spool.files == 0
    assert setup.count(schema.cases) == 1


def test_long_names_stay_apart_and_join_their_own(setup: Setup) -> None:
    first, second = "é" * 4000 + "1", "é" * 4000 + "2"
    for uploader in (first, second, first):
        setup.recorder.record(made_up_record(entry=uploader, context=Context(uploader=uploader)))
    assert setup.count(schema.cases) == 3 - 1


def test_a_value_of_no_type_the_database_knows_is_that_records_fault(setup: Setup) -> None:
    """A database that is up must not pass for one that is down: all behind that record would wait in the spool."""
    bad = made_up_record()
    bad["media"] = {"size_bytes": 1, "media_type": {"not": "text"}}
    setup.recorder.record(bad)
    setup.recorder.record(made_up_record())
    assert setup.recorder.status().into == "database"
    setup.recorder.tend()
    assert setup.count(schema.decisions) == 1
    assert (setup.recorder.status().spool.files, setup.recorder.status().spool.damaged) == (0, 1)


def test_counts_add_up_and_survive_an_outage(setup: Setup) -> None:
    for _ in range(3):
        setup.recorder.count("allow")
    setup.recorder.tend()
    setup.recorder.count("allow")
    setup.recorder.count("block")
    real = setup.database.changing

    @contextmanager
    def down() -> Iterator[sa.Connection]:
        raise LedgerDownError("gone")
        yield

    setup.database.changing = down  # type: ignore[method-assign]
    with pytest.raises(LedgerDownError):
        setup.recorder.tend()
    setup.database.changing = real  # type: ignore[method-assign]
    setup.recorder.tend()
    with setup.database.reading() as connection:
        rows = connection.execute(sa.select(schema.counts.c.name, sa.func.sum(schema.counts.c.value)).group_by("name"))
        assert dict(tuple(row) for row in rows) == {"allow": 4, "block": 1}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_kills_and_full_disks(database: str, tmp_path: Path) -> None:
    """A small run of the soak; the whole takes minutes."""
    command = [sys.executable, "-m", "tests.ledger.soak_record", "--database", database, "--stride", "41"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
