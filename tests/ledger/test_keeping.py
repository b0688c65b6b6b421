"""The Guard and its ledger: nothing but a plain allow is answered before it is kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from uploadguard import Context, Guard, NotReadyError, Verdict, hookimpl
from uploadguard.actions import Occasion, Receipt
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.config import Settings
from uploadguard.errors import ConfigError, LedgerError, NotRecordedError
from uploadguard.hashset import HashSet
from uploadguard.ledger import schema
from uploadguard.ledger.database import open_database
from uploadguard.ledger.ledger import Ledger
from uploadguard.ledger.people import Person, Role
from uploadguard.opening import create_hashset
from uploadguard.plugins import Plugins
from uploadguard.storage.keys import write_key_file
from uploadguard.telemetry.outbox import OutboxMetrics
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

SOMEBODY = Context(uploader="somebody", ip="192.0.2.1", object_id="up-1")
LEAD = Person("lead", frozenset(Role))

REPORTED = {"lists": {"uploadguard-test": {"report": True}}}

MakeSettings = Callable[..., Settings]


@pytest.fixture
def host(tmp_path: Path) -> MakeSettings:
    """Makes a hash set with the harmless test list, and a ledger; gives settings."""

    def make(*, ledger: dict[str, Any] | None = None, **overrides: Any) -> Settings:
        settings = Settings.load(
            ledger={"path": tmp_path / "ledger", **(ledger or {})},
            hashset={"path": tmp_path / "hashset", "test_list": True, "allow_empty": True, "refresh_s": 0.2},
            **{"policy": REPORTED, **overrides},
        )
        open_database(settings, create=True).close()
        create_hashset(settings)
        return settings

    return make


def rows(settings: Settings, table: sa.Table) -> list[Any]:
    database = open_database(settings)
    try:
        with database.reading() as connection:
            return list(connection.execute(sa.select(table)))
    finally:
        database.close()


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def test_a_plain_allow_is_only_counted(host: MakeSettings) -> None:
    settings = host()
    with Guard(settings) as guard:
        assert guard.check(unrelated_picture()).verdict is Verdict.ALLOW
    assert rows(settings, schema.decisions) == []
    assert rows(settings, schema.audit) == []
    (count,) = rows(settings, schema.counts)
    assert (count.name, count.value) == ("allow", 1)


def test_all_else_is_kept_before_the_answer(host: MakeSettings) -> None:
    settings = host()
    with Guard(settings) as guard:
        blocked = guard.check(picture_bytes(), context=SOMEBODY)
        queued = asyncio.run(guard.acheck(variant_bytes("mirrored"), context=SOMEBODY))
        with guard.inspect(SOMEBODY) as streaming:
            streaming.write(b"not a picture")
            unscanned = streaming.finish()
        found = {row.reference: row for row in rows(settings, schema.decisions)}
    assert [one.verdict for one in (blocked, queued, unscanned)] == [Verdict.BLOCK, Verdict.QUEUE, Verdict.NOT_SCANNED]
    assert found.keys() == {blocked.reference, queued.reference, unscanned.reference}
    assert found[queued.reference].case_id is not None
    assert found[blocked.reference].case_id is None
    assert found[blocked.reference].object_id == "up-1"
    assert blocked.timings_ms["record"] <= blocked.timings_ms["total"]


def test_not_scanned_need_not_be_kept(host: MakeSettings) -> None:
    settings = host(ledger={"record_not_scanned": False})
    with Guard(settings) as guard:
        assert guard.check(b"not a picture").verdict is Verdict.NOT_SCANNED
    assert rows(settings, schema.decisions) == []


def test_trying_things_out_keeps_nothing(host: MakeSettings) -> None:
    settings = host()
    with Guard(settings, record=False) as guard:
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
        assert guard.status().ledger is None
    assert rows(settings, schema.decisions) == []


def test_blocks_may_open_cases_too(host: MakeSettings) -> None:
    settings = host(ledger={"block_opens_case": True})
    with Guard(settings) as guard:
        guard.check(picture_bytes(), context=SOMEBODY)
    assert len(rows(settings, schema.cases)) == 1


def test_a_ledger_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    HashSet.create(tmp_path)
    with pytest.raises(LedgerError, match="uploadguard init"):
        Guard.open(hashset={"path": tmp_path, "allow_empty": True}, ledger={"path": tmp_path / "none"})
    with pytest.raises(ConfigError, match=r"ledger\.path: is needed"):
        Guard.open(hashset={"path": tmp_path, "allow_empty": True}, ledger={"url": "postgresql://localhost/x"})


class Alarms:
    """A plugin that hears alarms."""

    def __init__(self) -> None:
        self.heard: list[AlarmKind] = []

    @hookimpl
    def uploadguard_alarm(self, alarm: Alarm) -> None:
        self.heard.append(alarm.kind)


def test_a_database_that_is_down_at_the_start_is_no_reason_not_to_start(
    host: MakeSettings, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = host(ledger={"url": postgres_url})
    elsewhere = settings.model_copy(
        update={"ledger": settings.ledger.model_copy(update={"url": "postgresql://postgres@/x?host=/nowhere"})}
    )
    alarms = Alarms()
    with Guard(elsewhere, plugins={"alarms": alarms}) as guard:
        decision = guard.check(picture_bytes(), context=SOMEBODY)
        assert decision.verdict is Verdict.BLOCK
        status = guard.status().ledger
        assert status is not None
        assert status.into == "spool"
        assert status.spool.files == 1
        assert guard.ready
    assert alarms.heard == [AlarmKind.SPOOLING]
    assert sum(one.message.startswith("spooling: ") for one in caplog.records) == 1
    assert rows(settings, schema.decisions) == []
    # The next one finds the database there, and drains what the other left.
    with Guard(settings) as guard:
        guard.check(unrelated_picture())
        wait_for(lambda: rows(settings, schema.decisions))
    (kept,) = rows(settings, schema.decisions)
    assert kept.reference == decision.reference


def test_what_cannot_be_kept_is_refused_and_so_is_everything_else(host: MakeSettings, tmp_path: Path) -> None:
    settings = host()
    alarms = Alarms()
    with Guard(settings, plugins={"alarms": alarms}) as guard:
        assert guard.check(unrelated_picture()).verdict is Verdict.ALLOW
        gone = tmp_path / "gone"
        assert settings.ledger.path is not None
        # The disk is taken away: the open connections notice it, and new files cannot be made.
        assert guard._keeper is not None
        guard._keeper._ledger.database.engine.dispose()
        shutil.move(settings.ledger.path, gone)
        settings.ledger.path.write_text("nothing can be made below a file")
        with pytest.raises(NotRecordedError):
            guard.check(picture_bytes())
        with pytest.raises(NotRecordedError):
            guard.check(unrelated_picture())
        with pytest.raises(NotRecordedError):
            guard.inspect()
        assert not guard.ready
        assert alarms.heard == [AlarmKind.NOT_RECORDING]
        settings.ledger.path.unlink()
        shutil.move(gone, settings.ledger.path)
        wait_for(lambda: guard.ready)
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
    assert len(rows(settings, schema.decisions)) == 1


def test_forked_children_keep_by_themselves(host: MakeSettings) -> None:
    settings = host()
    with Guard(settings) as guard:
        guard.check(picture_bytes(), context=SOMEBODY)
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                try:
                    guard.check(picture_bytes(), context=SOMEBODY)
                    guard.close()
                    os._exit(0)
                except BaseException:  # noqa: BLE001
                    os._exit(1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        guard.check(picture_bytes(), context=SOMEBODY)
    assert len(rows(settings, schema.decisions)) == 5


def test_a_child_forked_while_its_parent_looked_whether_it_is_closed_can_be_closed(host: MakeSettings) -> None:
    settings = host()
    with Guard(settings) as guard:
        guard.check(picture_bytes(), context=SOMEBODY)
        assert guard._keeper is not None
        with guard._keeper._closed._cond:  # type: ignore[attr-defined]
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                guard.close()
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_database_that_hangs_does_not_keep_a_guard_from_closing(host: MakeSettings) -> None:
    guard = Guard(host())
    guard.check(picture_bytes(), context=SOMEBODY)
    assert guard._keeper is not None
    hanging = threading.Event()
    guard._keeper._recorder.tend = lambda: hanging.wait(60)  # type: ignore[method-assign, assignment, return-value]
    closing = threading.Thread(target=guard.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    hanging.set()


def test_closing_writes_the_counts_and_drains_the_spool(host: MakeSettings) -> None:
    settings = host()
    assert settings.ledger.path is not None
    with Guard(settings) as guard:
        guard.check(picture_bytes(), context=SOMEBODY)
        assert guard._keeper is not None
        guard._keeper._recorder._work.stop()
        guard.check(picture_bytes(), context=SOMEBODY)  # into the spool
    assert len(rows(settings, schema.decisions)) == 2
    assert [row.value for row in rows(settings, schema.counts)] == [2]
    assert not list((settings.ledger.path / "spool").glob("*.spool"))


def test_a_spool_that_cannot_be_drained_does_not_hold_the_local_lists_up(host: MakeSettings) -> None:
    settings = host()
    assert settings.ledger.path is not None
    (settings.ledger.path / "spool" / "0-unreadable.spool" / "x").mkdir(parents=True)
    with Guard(settings) as guard:
        applied = threading.Event()
        guard._keeper._ledger.apply_local_lists = applied.set  # type: ignore[union-attr, method-assign, assignment]
        guard.check(picture_bytes(), context=SOMEBODY)
        assert applied.wait(30)


def test_a_confirmed_picture_is_blocked_again_and_a_dismissed_one_allowed(host: MakeSettings) -> None:
    settings = host()
    mirrored, other = variant_bytes("mirrored"), variant_bytes("mirrored") + b"\0"
    with Guard(settings) as guard, Guard(settings) as another:
        queued = guard.check(mirrored, context=SOMEBODY)
        elsewhere = guard.check(other, context=Context(uploader="another"))
        assert (queued.verdict, elsewhere.verdict) == (Verdict.QUEUE, Verdict.QUEUE)
        ledger = Ledger.open(settings, Plugins(settings))
        first, second = (case.id for case in ledger.cases.list().cases)
        ledger.cases.decide([first], "confirm", LEAD)
        ledger.cases.decide([second], "dismiss", LEAD)
        ledger.close()
        for one in (guard, another):
            one.check(unrelated_picture())  # each process tends from its first check on
        wait_for(lambda: another.check(mirrored).verdict is Verdict.BLOCK)
        wait_for(lambda: another.check(other).verdict is Verdict.ALLOW)
        wait_for(lambda: guard.check(mirrored).verdict is Verdict.BLOCK)


class Callbacks:
    """A host's own action."""

    name = "host"
    occasions = frozenset({Occasion.RELEASE, Occasion.DELETE, Occasion.REPORT})

    def __init__(self) -> None:
        self.done: list[tuple[str, str | None]] = []

    def deliver(self, task: Any, journal: Any) -> Receipt:
        evidence = journal.evidence()
        self.done.append((task.occasion.value, task.context.object_id))
        return Receipt(facts={"bytes": len(evidence.data) if evidence is not None else 0})

    @hookimpl
    def uploadguard_actions(self, tables: Any) -> list[Callbacks]:
        return [self]


def test_the_host_can_carry_tasks_out_by_itself(host: MakeSettings) -> None:
    settings = host(outbox={"run": "thread"})
    callbacks = Callbacks()
    with Guard(settings, plugins={"callbacks": callbacks}) as guard:
        guard.check(variant_bytes("mirrored"), context=SOMEBODY)
        ledger = Ledger.open(settings, Plugins(settings, (("callbacks", Callbacks()),)))
        (case,) = ledger.cases.list().cases
        ledger.cases.decide([case.id], "confirm", LEAD)
        ledger.close()
        wait_for(lambda: len(callbacks.done) == 2)
    assert sorted(callbacks.done) == [("delete", "up-1"), ("report", "up-1")]


def test_the_hosts_own_worker_shows_how_the_outbox_stands(host: MakeSettings) -> None:
    settings = host(outbox={"run": "thread"}, telemetry={"metrics": True})

    def late() -> float | None:
        return REGISTRY.get_sample_value("uploadguard_outbox_late")

    with Guard(settings, plugins={"callbacks": Callbacks()}) as guard:
        OutboxMetrics()._metrics["late"].set(-1)
        guard.check(unrelated_picture())
        wait_for(lambda: late() == 0)


def test_files_of_matches_are_preserved_and_go_into_reports(host: MakeSettings, tmp_path: Path) -> None:
    write_key_file(tmp_path / "evidence.key")
    evidence = {"path": tmp_path / "evidence", "key_file": tmp_path / "evidence.key"}
    settings = host(evidence=evidence, outbox={"run": "thread"})
    callbacks = Callbacks()
    with Guard(settings, plugins={"callbacks": callbacks}) as guard:
        guard.check(picture_bytes(), context=SOMEBODY)  # blocked, and a report due by the rule for digests
        guard.check(unrelated_picture())
        wait_for(lambda: callbacks.done)
        wait_for(lambda: rows(settings, schema.tasks)[0].state == "filed")
    (kept,) = rows(settings, schema.evidence)
    assert kept.size_bytes == len(picture_bytes())
    (task,) = rows(settings, schema.tasks)
    assert task.notes["bytes"] == len(picture_bytes())


def test_an_upload_that_cannot_be_preserved_is_refused(host: MakeSettings, tmp_path: Path) -> None:
    write_key_file(tmp_path / "evidence.key")
    evidence = {"path": tmp_path / "evidence", "key_file": tmp_path / "evidence.key"}
    settings = host(evidence=evidence)
    with Guard(settings) as guard:
        guard.check(unrelated_picture())
        shutil.rmtree(tmp_path / "evidence", ignore_errors=True)
        (tmp_path / "evidence").write_text("no directory")
        with pytest.raises(NotRecordedError, match="could not be preserved"):
            guard.check(picture_bytes())
    assert rows(settings, schema.decisions) == []


def test_a_closed_guard_says_so(host: MakeSettings) -> None:
    guard = Guard(host())
    guard.close()
    with pytest.raises(NotReadyError):
        guard.check(picture_bytes())
