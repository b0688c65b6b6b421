"""Match services that answer after the upload was answered: nothing is lost, and what is found is acted on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.matchers import Remote, RemotePlugin, clean, fails, hit, never
from tests.test_guard import KINDS
from uploadguard import Context, Decision, FailureCode, Guard, Verdict, hookimpl
from uploadguard.config import Settings
from uploadguard.errors import ConfigError, NotRecordedError
from uploadguard.hashset import HashSet
from uploadguard.late import answers_waiting
from uploadguard.ledger.database import open_database
from uploadguard.ledger.ledger import Ledger
from uploadguard.matchers import Query
from uploadguard.plugins import Plugins
from uploadguard.telemetry.metrics import Metrics
from uploadguard.testing import testlist


class Told:
    """Collects what it is told of."""

    def __init__(self) -> None:
        self.made: list[Decision] = []
        self.revised: list[tuple[Decision, Context]] = []

    @hookimpl
    def uploadguard_decision_made(self, decision: Decision) -> None:
        self.made.append(decision)

    @hookimpl
    def uploadguard_decision_revised(self, decision: Decision, context: Context) -> None:
        self.revised.append((decision, context))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A configuration with a hash set and a ledger; returns its file."""
    HashSet.create(tmp_path / "hashset").add_list("hotline", testlist.entries(), KINDS)
    config = tmp_path / "uploadguard.toml"
    config.write_text('[hashset]\npath = "hashset"\n[ledger]\npath = "ledger"\n')
    open_database(Settings.load(config), create=True).close()
    return config


def opened(place: Path, remote: Remote, told: object = None, **overrides: Any) -> Guard:
    plugins: dict[str, object] = {"remote": RemotePlugin(remote)}
    if told is not None:
        plugins["told"] = told
    return Guard.open(place, plugins=plugins, **overrides)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(place: Path) -> int:
    with sqlite3.connect(place.parent / "ledger" / "late.db") as connection:
        return int(connection.execute("select count(*) from late").fetchone()[0])


def test_what_waits_is_counted_beside_a_writer(place: Path) -> None:
    stop = threading.Event()
    with opened(place, Remote(never(stop), prefetch=True, deadline_s=30)) as guard:
        guard.check(clean())
        with sqlite3.connect(place.parent / "ledger" / "late.db", isolation_level=None) as writer:
            writer.execute("begin immediate")
            assert answers_waiting(place.parent / "ledger" / "late.db") == {"remote": 1}
            writer.execute("rollback")
        writer.close()
        stop.set()
    with pytest.raises(NotRecordedError, match="cannot be read"):
        answers_waiting(place.parent / "gone.db")
    assert not (place.parent / "gone.db").exists()


def test_what_waits_is_a_metric_that_is_not_counted_anew_with_each_decision(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uploadguard.late._COUNTED_EVERY_S", 0.05)
    stop, registry, counted = threading.Event(), CollectorRegistry(), []

    def count(path: Path) -> dict[str, int]:
        counted.append(path)
        return answers_waiting(path)

    monkeypatch.setattr("uploadguard.late.answers_waiting", count)
    with opened(place, Remote(never(stop), prefetch=True, deadline_s=30), Metrics(registry)) as guard:
        until(lambda: guard.check(clean()) and registry.get_sample_value("uploadguard_late_questions"))
        monkeypatch.setattr("uploadguard.late._COUNTED_EVERY_S", 3600.0)
        so_far = len(counted)
        for _ in range(5):
            guard.check(clean())
        assert len(counted) == so_far
        stop.set()


def test_the_upload_is_answered_at_once_and_the_answer_revises_it(place: Path) -> None:
    go, told = threading.Event(), Told()

    def later(query: Query) -> list[Any]:
        assert go.wait(30)
        return [hit()]

    remote = Remote(later, prefetch=True, deadline_s=30)
    with opened(place, remote, told) as guard:
        decision = guard.check(clean(), context=Context(uploader="u1", object_id="o1"))
        assert decision.allowed
        assert decision.pending == ("remote",)
        assert waiting(place) == 1
        go.set()
        until(lambda: told.revised and waiting(place) == 0)
    (revised, context) = told.revised[0]
    assert len(told.revised) == 1
    assert (revised.verdict, revised.report_due) == (Verdict.BLOCK, True)
    assert revised.revises == decision.reference != revised.reference
    assert context.object_id == "o1"
    assert {item.signal_type for item in remote.queries[0].hashes} == {"md5", "sha1"}
    ledger = Ledger.open(guard.settings, Plugins(guard.settings))
    with ledger.database.reading() as connection:
        rows = connection.exec_driver_sql("select reference, verdict from decisions").all()
    ledger.close()
    assert rows == [(revised.reference, "block")]


def test_an_answer_of_no_match_changes_nothing(place: Path) -> None:
    told, remote = Told(), Remote(prefetch=True)
    with opened(place, remote, told) as guard:
        assert guard.check(clean()).pending == ("remote",)
        until(lambda: remote.queries and waiting(place) == 0)
    assert not told.revised


def test_what_is_at_hand_is_answered_at_once(place: Path) -> None:
    remote = Remote(prefetch=True)
    remote.cached = lambda query: [hit()]
    with opened(place, remote) as guard:
        decision = guard.check(clean())
    assert (decision.verdict, decision.pending) == (Verdict.BLOCK, ())


def test_one_that_goes_on_failing_has_its_failure_verdict_in_the_end(place: Path) -> None:
    told = Told()
    with opened(place, Remote(fails, prefetch=True, retry_s=0.0), told) as guard:
        assert guard.check(clean()).allowed
        until(lambda: told.revised and waiting(place) == 0)
    (revised, _) = told.revised[0]
    assert revised.verdict is Verdict.QUEUE
    assert [(item.code, item.matcher) for item in revised.failures] == [(FailureCode.MATCHER_FAILED, "remote")]


def test_one_that_fails_for_a_while_is_asked_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploadguard.late._FIRST_WAIT_S", 0.01)
    told, asked = Told(), []

    def at_last(query: Query) -> list[Any]:
        asked.append(query)
        return fails(query) if len(asked) < 4 else [hit()]

    with opened(place, Remote(at_last, prefetch=True), told) as guard:
        guard.check(clean())
        until(lambda: told.revised)
    assert (len(asked), told.revised[0][0].verdict) == (4, Verdict.BLOCK)


def test_what_is_left_when_a_guard_closes_the_next_one_asks(place: Path) -> None:
    with opened(place, Remote(fails, prefetch=True)) as guard:
        guard.check(clean())
    assert waiting(place) == 1
    with sqlite3.connect(place.parent / "ledger" / "late.db") as connection:  # its wait is over
        connection.execute("update late set next_at = 0")
    told = Told()
    with opened(place, Remote(lambda query: [hit()], prefetch=True), told) as guard:
        assert guard.ready
        guard.check(b"")  # whoever checks, asks
        until(lambda: any(item.revises for item, _ in told.revised))


def test_nothing_is_lost_when_the_process_is_killed(place: Path) -> None:
    script = """
    import os, signal, sys
    import threading
    from tests.matchers import Remote, RemotePlugin, clean, never
    from uploadguard import Guard
    remote = Remote(never(threading.Event()), prefetch=True, deadline_s=0.5)
    guard = Guard.open(sys.argv[1], plugins={"remote": RemotePlugin(remote)})
    print(guard.check(clean()).reference, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), place],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with sqlite3.connect(place.parent / "ledger" / "late.db") as connection:
        connection.execute("update late set next_at = 0, leased_until = 0")  # as if the killed one's lease were over
    told = Told()
    with opened(place, Remote(lambda query: [hit()], prefetch=True), told) as guard:
        guard.check(b"")
        until(lambda: any(item.revises == done.stdout.strip() for item, _ in told.revised))


def test_questions_to_a_service_that_is_configured_no_more_are_not_forgotten_silently(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(place, Remote(fails, prefetch=True)) as guard:
        guard.check(clean())
    with Guard.open(place):
        assert "1 answer(s) are still to come" in caplog.text
    assert waiting(place) == 1


def test_where_it_cannot_be_kept_the_upload_is_refused(place: Path) -> None:
    with opened(place, Remote(prefetch=True)) as guard:
        guard._late.close()  # type: ignore[union-attr]
        (place.parent / "ledger" / "late.db").unlink()
        (place.parent / "ledger" / "late.db").mkdir()
        with pytest.raises(NotRecordedError):
            guard.check(clean())


def test_it_needs_a_ledger_and_hashes_to_go_by(place: Path, tmp_path: Path) -> None:
    plugins = {"remote": RemotePlugin(Remote(prefetch=True))}
    with pytest.raises(ConfigError, match=r"needs a ledger: set ledger\.path"):
        Guard.open(hashset=place.parent / "hashset", plugins=plugins)
    with pytest.raises(ConfigError, match="takes the upload itself"):
        opened(place, Remote(signal_types=frozenset(), takes_content=True, prefetch=True))


def test_what_two_services_find_later_adds_up(place: Path) -> None:
    told = Told()
    first = Remote(lambda query: [hit("first", exact=False)], name="first", prefetch=True)
    second = Remote(lambda query: [hit("second", exact=False)], name="second", prefetch=True)
    with Guard.open(place, plugins={"both": RemotePlugin(first, second), "told": told}) as guard:
        decision = guard.check(clean())
        until(lambda: len(told.revised) == 2 and waiting(place) == 0)
    one, both = (revised for revised, _ in told.revised)
    assert one.revises == both.revises == decision.reference
    assert one.reference != both.reference
    assert [match.list_name for match in one.matches] == ["first"]
    assert [match.list_name for match in both.matches] == ["first", "second"]


def test_two_that_ask_at_once_ask_each_question_once(place: Path) -> None:
    told = Told()

    def service(name: str) -> Remote:
        return Remote(lambda query: [hit(name, exact=False)], name=name, prefetch=True)

    def another() -> Guard:
        plugins = {"both": RemotePlugin(service("first"), service("second")), "told": told}
        return Guard.open(place, plugins=plugins, safety={"breaker_percent": 0})

    with another() as one, another() as two:
        references = {guard.check(b"%d" % number).reference for number in range(6) for guard in (one, two)}
        until(lambda: waiting(place) == 0)
    assert {revised.revises for revised, _ in told.revised} == references
    assert sorted(len(revised.matches) for revised, _ in told.revised) == [1] * 12 + [2] * 12


def test_after_a_block_nothing_milder_is_told_and_no_second_report_is_due(place: Path) -> None:
    told = Told()
    first = Remote(lambda query: [hit("first")], name="first", prefetch=True)
    second = Remote(lambda query: [hit("second", exact=False)], name="second", prefetch=True)
    with Guard.open(place, plugins={"both": RemotePlugin(first, second), "told": told}) as guard:
        guard.check(clean())
        until(lambda: told.revised and waiting(place) == 0)
    assert [revised.verdict for revised, _ in told.revised] == [Verdict.BLOCK]
    assert not second.queries


def test_a_row_that_cannot_be_read_and_a_service_that_hangs_hold_up_no_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("uploadguard.late._GRACE_S", 0.1)
    stop, told = threading.Event(), Told()
    hanging = Remote(never(stop), name="hanging", prefetch=True, deadline_s=0.1)
    with Guard.open(place, plugins={"both": RemotePlugin(hanging, Remote(prefetch=True)), "told": told}) as guard:
        with sqlite3.connect(place.parent / "ledger" / "late.db") as connection:
            connection.execute(
                "insert into late (reference, matcher, record, created, next_at) values ('x', 'remote', '{}', 0, 0)"
            )
        guard._plugins.matchers["remote"].answer = lambda query: [hit()]  # type: ignore[attr-defined]
        guard.check(clean())
        until(lambda: told.revised, 10)
        stop.set()
    assert waiting(place) == 1
    assert "match services are behind" in caplog.text  # that row is old


def test_a_clock_that_was_set_back_keeps_nothing_waiting(place: Path) -> None:
    with opened(place, Remote(fails, prefetch=True)) as guard:
        guard.check(clean())
    tomorrow = time.time() + 86_400
    with sqlite3.connect(place.parent / "ledger" / "late.db") as connection:
        connection.execute("update late set created = ?, next_at = ?, leased_until = ?", (tomorrow,) * 3)
    told = Told()
    with opened(place, Remote(fails, prefetch=True), told) as guard:
        guard.check(b"")
        until(lambda: any(revised.revises for revised, _ in told.revised), 10)
