"""The worker: what comes of what actions do, and what it survives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.twophase import Destination, LostAnswerError, TwoPhaseAction, add_reports, task_rows
from uploadguard.actions import Evidence, Journal, Occasion, Receipt, State, Task
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import CaseStateError, LeaseLostError, LedgerDownError, PostponedError, RefusedError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.delivery.outcomes import Ending
from uploadguard.ledger.outbox import Outbox
from uploadguard.ledger.outbox_worker import OutboxThread, OutboxWorker
from uploadguard.ledger.people import Person, Role

SETTINGS = OutboxSettings(threads=2)
LEAD = Person("lead", frozenset({Role.LEAD}))

Deliver = Callable[[Task, Journal], Any]


class Does:
    """An action that does what a function says."""

    occasions = frozenset({Occasion.REPORT})

    def __init__(self, deliver: Deliver, name: str = "authority") -> None:
        self.name = name
        self.deliver = deliver


def worker(database: Database, *deliver: Deliver, settings: OutboxSettings = SETTINGS, **options: Any) -> OutboxWorker:
    names = ["authority", "second"]
    return OutboxWorker(database, {n: Does(d, n) for n, d in zip(names, deliver, strict=False)}, settings, **options)


def make_due(database: Database, **values: Any) -> None:
    """Let all waits be over."""
    with database.changing() as connection:
        past = datetime.now(UTC) - timedelta(minutes=30)
        connection.execute(sa.update(schema.tasks).values(next_at=past, **values))


def audited(database: Database) -> list[str]:
    """What the audit log says of tasks."""
    with database.reading() as connection:
        entries = connection.execute(sa.select(schema.audit.c.entry).order_by(schema.audit.c.seq)).scalars()
        found = [audit.parse_entry(entry) for entry in entries]
    return [f"{one.actor} {one.action} {one.subject}" for one in found if one.action.startswith("task.")]


def refuse(task: Task, journal: Journal) -> Receipt:
    raise RefusedError("4100 validation failed")


def test_what_a_receipt_says_is_kept(database: Database) -> None:
    (task_id,) = add_reports(database, 1)

    def deliver(task: Task, journal: Journal) -> Receipt:
        assert (task.id, task.state, task.attempts, task.case_id) == (task_id, State.PENDING, 1, None)
        assert task.context.uploader == "somebody"
        journal.note(first=1)
        return Receipt("R-1", {"second": [2]})

    assert worker(database, deliver).run_once() == 1
    (row,) = task_rows(database)
    assert (row.state, row.remote_id, row.notes) == ("filed", "R-1", {"first": 1, "second": [2]})
    assert (row.lease, row.lease_until, row.error) == (None, None, None)
    assert abs(row.done_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert audited(database) == [f"outbox task.filed task:{task_id}"]


def test_facts_that_are_no_json_do_not_undo_that_it_was_filed(database: Database) -> None:
    add_reports(database, 1)
    worker(database, lambda task, journal: Receipt("a\0b", {"x": object()})).run_once()
    (row,) = task_rows(database)
    assert (row.state, row.remote_id, row.notes) == ("filed", "a\ufffdb", {})


def test_many_reports_are_filed_once_each(database: Database) -> None:
    add_reports(database, 120)
    there = Destination()
    one = OutboxWorker(database, {"authority": TwoPhaseAction(there)}, OutboxSettings(threads=8))
    assert one.run_once() == 120
    assert one.endings == {Ending.FILED: 120}
    assert {row.state for row in task_rows(database)} == {"filed"}
    assert set(there.finished_by_key.values()) == {1}
    assert there.calls["open"] == 120
    assert len(audited(database)) == 120


def test_the_first_deadline_comes_first(database: Database) -> None:
    late = add_reports(database, 3, within=timedelta(hours=24))
    soon = add_reports(database, 3, within=timedelta(hours=2))
    order: list[int] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        order.append(task.id)
        return Receipt()

    worker(database, deliver, settings=OutboxSettings(threads=1)).run_once()
    assert order == [*soon, *late]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PostponedError("busy"), "busy"),
        (LostAnswerError("secret"), "the action raised LostAnswerError"),
        (SystemExit("secret"), "the action raised SystemExit"),
        (KeyboardInterrupt("secret"), "the action raised KeyboardInterrupt"),
        (MemoryError(), "the action raised MemoryError"),
        (PostponedError("nul\0 and \ud800 and " + "ab" * 16), "nul\ufffd and ? and <redacted>"),
        (PostponedError(""), "PostponedError"),
    ],
)
def test_whatever_is_raised_is_postponed(database: Database, error: BaseException, text: str) -> None:
    add_reports(database, 2)

    def deliver(task: Task, journal: Journal) -> Receipt:
        raise error

    one = worker(database, deliver)
    assert one.run_once() == 2
    assert one.endings == {Ending.POSTPONED: 2}
    for row in task_rows(database):
        assert (row.state, row.error, row.attempts, row.lease) == ("pending", text, 1, None)
    assert audited(database) == []


def test_what_is_no_receipt_is_postponed(database: Database) -> None:
    add_reports(database, 1)
    worker(database, lambda task, journal: None).run_once()
    (row,) = task_rows(database)
    assert (row.state, row.error) == ("pending", "the action returned NoneType, not a Receipt")


@pytest.mark.parametrize(("after_s", "least_s"), [(500.0, 500), (1e9, 86_400), (float("nan"), 0), (-5.0, 0)])
def test_the_other_side_may_ask_for_a_wait(database: Database, after_s: float, least_s: float) -> None:
    add_reports(database, 1)

    def deliver(task: Task, journal: Journal) -> Receipt:
        raise PostponedError("busy", after_s=after_s)

    before = datetime.now(UTC)
    worker(database, deliver).run_once()
    (row,) = task_rows(database)
    wait_s = (row.next_at - before).total_seconds()
    assert least_s - 1 <= wait_s <= least_s + 100


def test_there_is_no_limit_to_attempts(database: Database) -> None:
    add_reports(database, 1)
    make_due(database, attempts=100_000)

    def deliver(task: Task, journal: Journal) -> Receipt:
        raise PostponedError("busy")

    worker(database, deliver).run_once()
    (row,) = task_rows(database)
    assert (row.state, row.attempts) == ("pending", 100_001)
    assert row.next_at <= datetime.now(UTC) + timedelta(seconds=SETTINGS.max_wait_s + 1)


def test_refused_alarms_and_can_be_tried_again_from_where_it_was(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    alarms: list[Alarm] = []
    mended = False

    def deliver(task: Task, journal: Journal) -> Receipt:
        if not mended:
            journal.opened("R-7")
            raise RefusedError("4100 validation failed")
        assert (task.state, task.remote_id) == (State.OPENED, "R-7")
        return Receipt(task.remote_id)

    one = worker(database, deliver, alarm=alarms.append)
    one.run_once()
    (row,) = task_rows(database)
    assert (row.state, row.refused_in, row.error) == ("refused", "opened", "4100 validation failed")
    assert [(alarm.kind, alarm.action, alarm.count) for alarm in alarms] == [(AlarmKind.REPORT_REFUSED, "authority", 1)]
    assert one.run_once() == 0
    assert len(alarms) == 1
    mended = True
    Outbox(database, SETTINGS).retry(task_id, LEAD)
    assert one.run_once() == 1
    assert task_rows(database)[0].state == "filed"
    assert audited(database) == [
        f"outbox task.refused task:{task_id}",
        f"lead task.retry task:{task_id}",
        f"outbox task.filed task:{task_id}",
    ]


def test_late_reports_alarm_once_an_hour(database: Database) -> None:
    late = add_reports(database, 3, within=timedelta(hours=1))
    add_reports(database, 2, within=timedelta(hours=24))
    alarms: list[Alarm] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        raise PostponedError("busy", after_s=3600)

    one = worker(database, deliver, alarm=alarms.append)
    one.run_once()
    one.run_once()
    assert [(alarm.kind, alarm.count) for alarm in alarms] == [(AlarmKind.REPORT_LATE, 3)]
    assert [info.id for info in Outbox(database, SETTINGS).list(late=True)] == late
    with database.changing() as connection:
        connection.execute(sa.update(schema.tasks).values(alarmed_at=datetime.now(UTC) - timedelta(hours=1, minutes=1)))
    one.run_once()
    assert [alarm.count for alarm in alarms] == [3, 3]


def test_an_action_that_nobody_has_is_left_alone_and_told(database: Database) -> None:
    add_reports(database, 2, "gone")
    alarms: list[Alarm] = []
    one = worker(database, refuse, alarm=alarms.append)
    assert one.run_once() == 0
    assert not alarms
    make_due(database)
    assert one.run_once() == 0
    assert [(alarm.kind, alarm.action, alarm.count) for alarm in alarms] == [(AlarmKind.NO_ACTION, "gone", 2)]
    assert {row.state for row in task_rows(database)} == {"pending"}


def test_what_was_opened_is_retracted_when_it_is_taken_back(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    there = Destination()
    outbox = Outbox(database, SETTINGS)

    def mishap(step: str) -> None:
        if step == "finish":
            raise AssertionError("taken back, and yet to be filed")
        if step == "opened":
            outbox.cancel(task_id, LEAD, "a mistake")

    there.mishap = mishap
    one = OutboxWorker(database, {"authority": TwoPhaseAction(there)}, SETTINGS)
    one.run_once()
    (row,) = task_rows(database)
    assert (row.state, row.remote_id, row.cancelled) == ("opened", "1", True)
    one.run_once()
    (row,) = task_rows(database)
    assert (row.state, there.retracted) == ("cancelled", {"1"})
    assert audited(database) == [f"lead task.cancel task:{task_id}", f"outbox task.cancelled task:{task_id}"]


def test_what_is_being_filed_cannot_be_taken_back(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    there = Destination()
    lost: list[str] = []

    def mishap(step: str) -> None:
        if step == "finished" and not lost:
            lost.append(step)
            raise LostAnswerError

    there.mishap = mishap
    one = OutboxWorker(database, {"authority": TwoPhaseAction(there)}, SETTINGS)
    one.run_once()
    assert task_rows(database)[0].state == "finishing"
    with pytest.raises(CaseStateError, match="being filed"):
        Outbox(database, SETTINGS).cancel(task_id, LEAD, "a mistake")
    make_due(database)
    one.run_once()
    (row,) = task_rows(database)
    assert (row.state, there.finished_by_key[row.key]) == ("filed", 1)


def test_a_live_lease_keeps_others_away_until_it_runs_out(database: Database) -> None:
    add_reports(database, 1)
    inside, go_on = threading.Event(), threading.Event()
    errors: list[str] = []

    def slow(task: Task, journal: Journal) -> Receipt:
        inside.set()
        go_on.wait(30)
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (journal.finishing, ()), (journal.opened, ("x",)), (journal.note, ()), (journal.reopen, ()),
            (journal.evidence, ()),
        ]  # fmt: skip
        for call, arguments in calls:
            try:
                call(*arguments)
            except LeaseLostError:
                errors.append(call.__name__)
        journal.finishing()
        return Receipt("slow")

    first = worker(database, slow)
    running = threading.Thread(target=first.run_once)
    running.start()
    assert inside.wait(30)
    second = worker(database, lambda task, journal: Receipt("quick"))
    assert second.run_once() == 0
    with database.changing() as connection:
        connection.execute(sa.update(schema.tasks).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))
    assert second.run_once() == 1
    go_on.set()
    running.join(30)
    assert errors == ["finishing", "opened", "note", "reopen", "evidence"]
    (row,) = task_rows(database)
    assert (row.state, row.remote_id, first.endings) == ("filed", "quick", {Ending.LOST: 1})
    assert len(audited(database)) == 1


def test_what_was_taken_over_before_it_was_begun_is_not_begun(database: Database) -> None:
    """As after a process stood still: here by a lease that is believed to be old."""
    add_reports(database, 2)
    inside, go_on = threading.Event(), threading.Event()
    begun: list[int] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        begun.append(task.id)
        inside.set()
        go_on.wait(30)
        return Receipt()

    first = worker(database, deliver, settings=OutboxSettings(threads=1))
    running = threading.Thread(target=first.run_once)
    running.start()
    assert inside.wait(30)
    for lease in first._crew.held():
        lease.held_at -= 1000
    with database.changing() as connection:
        later = datetime.now(UTC) + timedelta(hours=1)
        connection.execute(sa.update(schema.tasks).values(lease="another", lease_until=later))
    go_on.set()
    running.join(30)
    assert len(begun) == 1


def test_leases_are_renewed(database: Database) -> None:
    add_reports(database, 1)
    seen: list[datetime] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        for _ in range(600):
            seen.append(task_rows(database)[0].lease_until)
            if len(set(seen)) > 2:
                break
            time.sleep(0.05)
        return Receipt()

    worker(database, deliver, settings=OutboxSettings(lease_s=1)).run_once()
    assert len(set(seen)) > 2
    assert seen == sorted(seen)


def test_evidence_is_handed_over(database: Database) -> None:
    add_reports(database, 1)
    asked: list[tuple[int, str]] = []

    def evidence(decision_id: int, action: str) -> Evidence:
        asked.append((decision_id, action))
        return Evidence(b"bytes", "image/png")

    def deliver(task: Task, journal: Journal) -> Receipt:
        found = journal.evidence()
        assert found is not None
        return Receipt(facts={"size": len(found.data)})

    worker(database, deliver, evidence=evidence).run_once()
    (row,) = task_rows(database)
    assert (row.notes, asked) == ({"size": 5}, [(row.decision_id, "authority")])


def test_a_record_that_cannot_be_read_is_refused(database: Database) -> None:
    add_reports(database, 1)
    with database.changing() as connection:
        connection.execute(sa.update(schema.decisions).values(record={"verdict": "?"}))
    worker(database, lambda task, journal: Receipt()).run_once()
    (row,) = task_rows(database)
    assert row.state == "refused"
    assert "cannot be read" in row.error


class Outage:
    """A database that can be taken away."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = False
        self.refused = 0
        for name in ("reading", "changing", "writing"):
            monkeypatch.setattr(database, name, self._guarded(getattr(database, name)))

    def _guarded(self, real: Any) -> Any:
        @contextmanager
        def guarded() -> Iterator[Any]:
            if self.down:
                self.refused += 1
                raise LedgerDownError("no database")
            with real() as connection:
                yield connection

        return guarded


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outage_of_the_database_is_survived(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_reports(database, 12)
    outage = Outage(database, monkeypatch)
    there = Destination()
    broken: set[str] = set()

    def mishap(step: str) -> None:
        """The database goes away once each: after opening, before finishing, and when it is all done."""
        if step in ("opened", "finish", "finished") and step not in broken:
            broken.add(step)
            outage.down, outage.refused = True, 0

    there.mishap = mishap
    settings = OutboxSettings(threads=2, lease_s=1, first_wait_s=0.01, max_wait_s=0.1)
    one = OutboxWorker(database, {"authority": TwoPhaseAction(there)}, settings)
    thread = OutboxThread(one)
    thread.start()

    def all_filed() -> bool:
        if outage.down and outage.refused > 3:
            outage.down = False
        return one.endings[Ending.FILED] == 12

    with caplog.at_level(logging.WARNING):
        until(all_filed, 60)
        assert thread.stop()
    assert broken == {"opened", "finish", "finished"}
    assert {row.state for row in task_rows(database)} == {"filed"}
    assert set(there.finished_by_key.values()) == {1}
    told = [record.message for record in caplog.records if "keeps trying" in record.message]
    assert 1 <= len(told) <= 3


def test_a_pause_of_one_destination_spares_it_and_does_not_hold_up_others(database: Database) -> None:
    add_reports(database, 200, "authority", "second")
    asked: list[int] = []

    def down(task: Task, journal: Journal) -> Receipt:
        asked.append(task.id)
        raise PostponedError("503", outage=True)

    one = worker(database, down, lambda task, journal: Receipt(), settings=OutboxSettings(threads=4))
    one.run_once()
    by_action = {"authority": 0, "second": 0}
    for row in task_rows(database):
        by_action[row.action] += row.state == "filed"
        assert row.lease is None
    assert by_action == {"authority": 0, "second": 200}
    # Those under way when it broke down, and perhaps a probe; not 200.
    assert len(asked) <= 8
    assert sum(row.attempts for row in task_rows(database) if row.action == "authority") == len(asked)


def test_a_hanging_action_is_given_up_and_blocks_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    first, *others = add_reports(database, 20)
    go_on = threading.Event()
    hung: list[int] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        if task.id == first and not hung:
            hung.append(task.id)
            go_on.wait(60)
            journal.note(too_late=True)
        return Receipt(f"R-{task.attempts}")

    settings = OutboxSettings(threads=1, first_wait_s=0.01, max_wait_s=0.01)
    one = worker(database, deliver, settings=settings, hangs_s=0.3)
    thread = OutboxThread(one)
    with caplog.at_level(logging.WARNING):
        thread.start()
        until(lambda: {row.state for row in task_rows(database)} == {"filed"})
        go_on.set()
        until(lambda: one.endings[Ending.LOST] == 1)
        assert thread.stop()
    (row,) = task_rows(database, first)
    assert (row.state, row.attempts, row.notes) == ("filed", 2, {})
    assert any(f"has task {first} for more than" in record.message for record in caplog.records)
    assert one.endings[Ending.FILED] == len(others) + 1


def test_stopping_is_bounded(database: Database) -> None:
    add_reports(database, 10)
    go_on = threading.Event()
    begun: list[int] = []

    def deliver(task: Task, journal: Journal) -> Receipt:
        begun.append(task.id)
        go_on.wait(60)
        return Receipt()

    thread = OutboxThread(worker(database, deliver, stop_s=0.2))
    thread.start()
    until(lambda: len(begun) == 2)
    assert thread.stop(30)
    assert not thread.is_running
    # Those not begun are free at once.
    assert sum(row.lease is None for row in task_rows(database)) == 8
    go_on.set()


def test_a_slow_action_leaves_threads_to_others(database: Database) -> None:
    add_reports(database, 20, "authority", "second")
    go_on = threading.Event()

    def slow(task: Task, journal: Journal) -> Receipt:
        go_on.wait(60)
        return Receipt()

    one = worker(database, slow, lambda task, journal: Receipt())
    thread = OutboxThread(one)
    thread.start()
    until(lambda: one.endings[Ending.FILED] == 20)
    go_on.set()
    until(lambda: one.endings[Ending.FILED] == 40)
    assert thread.stop()


def test_chores_are_done_and_one_that_fails_does_not_stop_others(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    failing = True

    def broken() -> None:
        if failing:
            raise ValueError("secret")

    thread = OutboxThread(worker(database, refuse, chores=[(0.01, broken), (0.01, lambda: done.append(1))]))
    with caplog.at_level(logging.WARNING):
        thread.start()
        until(lambda: len(done) > 3)
        failing = False
        until(lambda: any("works again" in record.message for record in caplog.records))
        assert thread.stop()
    failed = [record.message for record in caplog.records if "failed, and will be tried again" in record.message]
    assert len(failed) == 1
    assert "ValueError" in failed[0]
    assert "secret" not in failed[0]


def test_run_once_does_each_chore_once(database: Database) -> None:
    done: list[int] = []
    worker(database, refuse, chores=[(3600, lambda: done.append(1))]).run_once()
    assert done == [1]
