"""The worker's parts by themselves: group commit, waits, pauses, threads; and the worker in a host's process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.effort import tries
from tests.ledger.twophase import Destination, TwoPhaseAction, add_reports, task_rows
from uploadguard.config import Settings
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import LedgerDownError, LedgerError
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.pauses import Pauses
from uploadguard.ledger.delivery.waits import asked_s, longest_s
from uploadguard.ledger.outbox import Outbox
from uploadguard.ledger.outbox_worker import OutboxThread, OutboxWorker
from uploadguard.telemetry.outbox import OutboxMetrics

SETTINGS = OutboxSettings(first_wait_s=2, max_wait_s=100)


class Transactions:
    """Stands in for a database: the first commit waits until others have come."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.committed: list[list[int]] = []
        self.down = False

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        written: list[int] = []
        if self.down:
            raise LedgerDownError("down")
        yield written
        self.inside.set()
        assert self.go_on.wait(30)
        self.committed.append(written)


def write_all(group: GroupCommit[int], there: Transactions, numbers: list[int], bad: int | None) -> dict[int, Any]:
    """Write number by number, each on a thread: the first alone, the others while it commits."""
    found: dict[int, Any] = {}

    def write(number: int) -> None:
        def change(connection: Any) -> int:
            if number == bad:
                raise LedgerError("a value that the database does not take")
            connection.append(number)
            return number * 10

        try:
            found[number] = group.write(number, change)
        except LedgerError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in numbers]
    threads[0].start()
    assert there.inside.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < len(numbers) - 1:
        os.sched_yield()
    there.go_on.set()
    for thread in threads:
        thread.join(30)
    return found


def test_what_comes_together_is_committed_together_in_order_of_rows() -> None:
    there = Transactions()
    found = write_all(GroupCommit(there), there, [1, 9, 3, 5], None)
    assert found == {1: 10, 9: 90, 3: 30, 5: 50}
    assert there.committed == [[1], [3, 5, 9]]


def test_one_bad_write_fails_alone() -> None:
    there = Transactions()
    found = write_all(GroupCommit(there), there, [1, 9, 3, 5], 3)
    assert found == {1: 10, 9: 90, 3: "a value that the database does not take", 5: 50}
    assert sorted(there.committed) == [[1], [5], [9]]


def test_an_outage_fails_all_and_is_not_tried_again() -> None:
    there = Transactions()
    there.down = True
    group: GroupCommit[int] = GroupCommit(there)
    with pytest.raises(LedgerDownError):
        group.write(1, lambda connection: 1)
    there.down = False
    there.go_on.set()
    assert group.write(1, lambda connection: 1) == 1


def test_what_closes_a_group_gets_its_results() -> None:
    there = Transactions()
    there.go_on.set()
    closed: list[Any] = []
    group: GroupCommit[str] = GroupCommit(there, lambda connection, results: closed.append([*results]))
    group.write(1, lambda connection: "a")
    assert closed == [["a"]]


def test_waits_double_up_to_a_bound() -> None:
    assert [longest_s(SETTINGS, n) for n in (0, 1, 2, 3, 6, 7, 10_000)] == [2, 2, 4, 8, 64, 100, 100]


def test_what_the_other_side_asks_for_is_bounded() -> None:
    wishes = [None, -1.0, 0.0, 7.5, 1e12, float("inf"), float("nan")]
    assert [asked_s(wish) for wish in wishes] == [0, 0, 0, 7.5, 86_400, 86_400, 0]


def test_a_pause_lets_one_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("uploadguard.ledger.delivery.pauses.time.monotonic", lambda: now)
    one = Pauses(SETTINGS)
    assert one.allowed("a", 50) > 1000
    assert one.outage("a", None)
    assert not one.outage("a", None)  # another one that was under way
    assert one.allowed("a", 0) == 0
    assert one.allowed("b", 0) > 1000
    now += 2.1
    assert (one.allowed("a", 0), one.allowed("a", 1)) == (1, 0)
    assert not one.outage("a", 50.0)
    now += 49
    assert one.allowed("a", 0) == 0
    now += 2
    assert one.allowed("a", 0) == 1
    assert one.answered("a")
    assert not one.answered("a")
    assert one.allowed("a", 50) > 1000


def test_gauges(sqlite_settings: Settings) -> None:
    database = open_database(sqlite_settings, create=True)
    add_reports(database, 3)
    registry = CollectorRegistry()
    metrics = OutboxMetrics(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"uploadguard_outbox_{name}", labels)

    metrics.show(Outbox(database, SETTINGS).status(done=False))
    assert value("tasks", action="authority", state="pending") == 3
    assert value("late") == 0
    assert value("oldest_timestamp_seconds") == task_rows(database)[0].created_at.timestamp()
    worker = OutboxWorker(
        database, {"authority": TwoPhaseAction(Destination())}, SETTINGS, watcher=OutboxMetrics(registry).show
    )
    worker.run_once()
    assert value("oldest_timestamp_seconds") == 0
    metrics.show(Outbox(database, SETTINGS).status(done=False))
    assert value("tasks", action="authority", state="pending") == 0
    database.close()


def test_in_an_event_loop(database: Database) -> None:
    add_reports(database, 5)
    there = Destination()
    thread = OutboxThread(OutboxWorker(database, {"authority": TwoPhaseAction(there)}, SETTINGS))

    async def host() -> None:
        thread.start()
        while len(there.finished) < 5:  # noqa: ASYNC110 - threads know no event loop
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(thread.stop)

    asyncio.run(asyncio.wait_for(host(), 60))
    assert {row.state for row in task_rows(database)} == {"filed"}
    thread.start()
    assert thread.is_running
    thread.start()
    assert thread.stop()
    assert thread.stop()


FORKING = """
import os, sys
from tests.ledger.twophase import Destination, TwoPhaseAction
from uploadguard.config_ledger import OutboxSettings
from uploadguard.ledger.database import Database
from uploadguard.ledger.outbox_worker import OutboxThread, OutboxWorker

def make():
    return OutboxThread(OutboxWorker(database, {"authority": TwoPhaseAction(Destination())}, OutboxSettings()))

database = Database(sys.argv[1])
thread = make()
thread.start()
pid = os.fork()
if pid == 0:
    problems = [thread.is_running, not thread.stop()]
    try:
        thread.start()
        problems.append(True)
    except RuntimeError:
        pass
    database.after_fork()
    own = make()
    own.start()
    problems += [not own.is_running, not own.stop()]
    os._exit(sum(problems))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert thread.is_running
assert thread.stop()
"""


def test_a_forked_child_makes_its_own(database: Database) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", FORKING, url], timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    "options",
    [
        ("--kills", str(tries(5)), "--pauses", "0.3", "--reports", str(tries(100))),
        ("--reports", "300", "--workers", "3", "--scaling", "0"),
    ],
    ids=["kills", "drain"],
)
def test_workers_that_are_killed_and_stopped_lose_and_double_nothing(kind: str, options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.ledger.soak_outbox", "--threads", "4", "--database", kind, *options]
    done = subprocess.run(command, timeout=300, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
