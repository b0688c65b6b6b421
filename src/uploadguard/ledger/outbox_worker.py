"""The worker: takes due tasks from the outbox, hands them to their actions, and writes down what came of it.

Several may run at once, in threads, processes, hosts. A worker keeps its tasks by leases that one thread renews. What
it was doing when it died, or lost its lease, another one takes up from what was committed. It survives an outage of the
database, and whatever actions do.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from uploadguard.actions import Action, Evidence
from uploadguard.alarms import Alarm, log_alarm
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import LedgerError
from uploadguard.ledger.database import Database
from uploadguard.ledger.delivery.chores import Chore, Chores
from uploadguard.ledger.delivery.crew import Crew
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.leases import Lease, Leases
from uploadguard.ledger.delivery.outcomes import Ending, Outcome, Settling, carry_out
from uploadguard.ledger.delivery.pauses import Pauses
from uploadguard.ledger.delivery.rows import Written
from uploadguard.ledger.delivery.watch import Watch
from uploadguard.ledger.outbox import OutboxStatus
from uploadguard.logs import log

__all__ = ["OutboxThread", "OutboxWorker"]

_POLL_S = 1.0
_WATCH_S = 30.0
_WATCH = 0
"""Its place among the chores."""
_HANGS_S = 300.0
_STOP_S = 30.0
_MOST_STUCK = 4
"""For each of a worker's threads, how many may hang in one action before it gets no more tasks there."""
_AHEAD = 8
"""Tasks that a worker holds for each of its threads, so that one transaction claims several."""


class OutboxWorker:
    """``actions`` by name; tasks of others are left alone. ``evidence`` gives the file of a decision to an action.

    ``alarm`` is told what an operator must look at; otherwise it is logged. ``watcher`` is told how the outbox stands,
    now and then; filed tasks are not counted. ``chores`` are functions to be called every so many seconds. A call of
    ``deliver`` that takes longer than ``hangs_s`` is given up, and its thread left to itself. ``stop_s`` bounds how
    long stopping waits for what is under way.
    """

    def __init__(
        self,
        database: Database,
        actions: Mapping[str, Action],
        settings: OutboxSettings,
        *,
        evidence: Callable[[int, str], Evidence | None] | None = None,
        alarm: Callable[[Alarm], None] | None = None,
        watcher: Callable[[OutboxStatus], None] | None = None,
        chores: Sequence[Chore] = (),
        hangs_s: float = _HANGS_S,
        stop_s: float = _STOP_S,
    ) -> None:
        self.endings: Counter[Ending] = Counter()
        """How attempts ended, since the start."""
        self._actions = dict(actions)
        self._settings = settings
        self._evidence = evidence
        self._hangs_s = hangs_s
        self._stop_s = stop_s
        self._database = database
        self._leases = Leases(database, settings.lease_s)
        self._progress: GroupCommit[Written] = GroupCommit(database.changing)
        self._settling = Settling(database, settings)
        self._pauses = Pauses(settings)
        watch = Watch(database, settings, actions, alarm or log_alarm, watcher)
        self._chores = ((_WATCH_S, watch.run), *chores)
        self._housekeeping = Chores(self._chores)
        self._ended = threading.Event()
        self._crew = Crew(settings.threads, self._share, partial(self._carry_out, self._ended))
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._is_down = False
        self._stuck: set[str] = set()
        self._more: set[str] = set()
        self._low = max(1, settings.threads // 2)

    @property
    def _share(self) -> int:
        """How many threads one action may have, so that a slow one leaves some to the others."""
        threads = self._settings.threads
        return threads if len(self._actions) < 2 else max(1, threads - max(1, threads // 4))

    def run_once(self) -> int:
        """Carry out what is due, each task once, and return how many there were; then do the chores.

        Raises :class:`~uploadguard.errors.LedgerError`.
        """
        with self._running, self._database.reading() as connection:
            due_by = self._leases.clock.read(connection)
        with self._running:
            taken = 0
            self._start()
            try:
                while True:
                    was_idle = self._crew.wait_until_idle(0)
                    claimed = self._claim(due_by)
                    if was_idle and not claimed:
                        break
                    taken += claimed
                    self._give_up_hanging()
                    if not self._wait_for_room():
                        self._crew.wait_until_idle(_POLL_S)
            finally:
                self._end()
            self._housekeeping.run_all()
            return taken

    def run(self, stop: threading.Event) -> None:
        """Carry out what is due, until ``stop`` is set; then finish what is under way, within bounds."""
        with self._running:
            self._start()
            self._housekeeping.start()
            try:
                failures = 0
                while not stop.is_set():
                    try:
                        self._claim(None)
                        self._give_up_hanging()
                    except Exception as error:  # noqa: BLE001 - whatever it is, reports must go out; it is logged
                        failures += 1
                        self._tell_down(error)
                        stop.wait(min(_POLL_S * 2.0 ** min(failures, 10), _WATCH_S))
                        continue
                    failures = 0
                    self._tell_up()
                    if not self._wait_for_room():
                        stop.wait(_POLL_S)
            finally:
                self._end()

    def _start(self) -> None:
        self._ended = threading.Event()
        self._housekeeping = Chores(self._chores)
        self._crew = Crew(self._settings.threads, self._share, partial(self._carry_out, self._ended))
        self._crew.start()
        threading.Thread(
            target=self._keep_leases, args=(self._ended, self._crew), name="uploadguard-leases", daemon=True
        ).start()

    def _end(self) -> None:
        try:
            self._give_back(self._crew.take_out())
            left = self._crew.stop(self._stop_s)
            if left:
                log.warning("%d tasks were still under way; they are taken up again after outbox.lease_s", left)
        finally:
            self._ended.set()
            self._housekeeping.stop(_POLL_S)

    def _claim(self, due_by: datetime | None) -> int:
        """Take what is due, of each action as far as it has room; returns how many."""
        held = Counter(lease.action for lease in self._crew.held())
        waiting = self._crew.waiting()
        most = max(2, self._settings.threads * _AHEAD // max(1, len(self._actions)))
        wanted = {
            action: min(self._pauses.allowed(action, held[action]), most - held[action])
            for action in random.sample(sorted(self._actions), len(self._actions))
            if waiting[action] <= self._low and not self._is_stuck(action)
        }
        leases = self._leases.claim({action: limit for action, limit in wanted.items() if limit > 0}, due_by)
        found = Counter(lease.action for lease in leases)
        self._more = {
            action for action in self._actions if waiting[action] > self._low or found[action] == wanted.get(action)
        }
        self._crew.add(leases)
        return len(leases)

    def _wait_for_room(self) -> bool:
        """Wait a little until there is room for tasks that are due, most likely; False where none are."""
        if self._more:
            self._crew.wait_for_room(self._more, self._low, _POLL_S / 4)
        return bool(self._more)

    def _carry_out(self, ended: threading.Event, lease: Lease) -> None:
        """One attempt, on one of the crew's threads."""
        try:
            if not self._leases.is_held(lease):
                return
            outcome = carry_out(self._actions[lease.action], lease, self._progress, self._evidence)
            self._heed(lease.action, outcome)
            ending = self._settle(ended, lease, outcome)
        except LedgerError as error:
            self._tell_down(error)
            return
        except Exception as error:  # noqa: BLE001 - the thread must go on; the task is found again by its lease
            log.error("the outbox could not write down what became of task %d: %s", lease.id, type(error).__name__)
            return
        if ending is Ending.LOST:
            log.warning("task %d was taken over by another worker: it took too long here", lease.id)
        elif ending is Ending.REFUSED:
            log.error("task %d for %s was refused: %s", lease.id, lease.action, outcome.error)
            self._housekeeping.soon(_WATCH)
        if ending is not None:
            with self._lock:
                self.endings[ending] += 1

    def _settle(self, ended: threading.Event, lease: Lease, outcome: Outcome) -> Ending | None:
        """Write what came of it, whatever that takes; None where the worker ended before."""
        failures = 0
        while True:
            try:
                return self._settling.settle(lease, outcome)
            except LedgerError as error:
                self._tell_down(error)
            failures += 1
            if ended.wait(min(_POLL_S / 8 * 2.0 ** min(failures, 10), _POLL_S * 8)):
                return None

    def _heed(self, action: str, outcome: Outcome) -> None:
        """Take a hint that the other side is down, or is not any more."""
        if outcome.outage is None:
            return
        if outcome.outage:
            if self._pauses.outage(action, outcome.after_s):
                log.warning("%s is down; its tasks wait: %s", action, outcome.error)
            self._give_back(self._crew.take_out(action))
        elif self._pauses.answered(action):
            log.warning("%s is there again", action)

    def _give_back(self, leases: Sequence[Lease]) -> None:
        if not leases:
            return
        try:
            self._leases.give_back(leases)
        except LedgerError as error:
            self._tell_down(error)  # they are free again when their leases have run out

    def _keep_leases(self, ended: threading.Event, crew: Crew) -> None:
        """Renew the leases of all that the crew has, until the worker ends."""
        wait_s = self._settings.lease_s / 4
        while not ended.wait(wait_s):
            wait_s = self._settings.lease_s / 4
            held = crew.held()
            try:
                if held:
                    self._leases.renew(held)
            except Exception as error:  # noqa: BLE001 - without this thread every lease would run out
                self._tell_down(error)
                wait_s = min(wait_s, _POLL_S)

    def _give_up_hanging(self) -> None:
        for lease in self._crew.give_up(self._hangs_s):
            log.error(
                "%s has task %d for more than %.0f s; its thread is given up, the task is tried again later",
                lease.action,
                lease.id,
                self._hangs_s,
            )
            outcome = Outcome(Ending.POSTPONED, f"the action did not come back within {self._hangs_s:.0f} s")
            try:
                self._settling.settle(lease, outcome)
            except LedgerError as error:
                self._tell_down(error)  # it is free again when its lease has run out
            lease.ended = True

    def _is_stuck(self, action: str) -> bool:
        """Whether so many threads hang in the action that it gets no more."""
        if self._crew.given_up(action) < self._settings.threads * _MOST_STUCK:
            self._stuck.discard(action)
            return False
        if action not in self._stuck:
            self._stuck.add(action)
            log.error("%s hangs in %d threads: it gets no more tasks here", action, self._crew.given_up(action))
        return True

    def _tell_down(self, error: Exception) -> None:
        with self._lock:
            news, self._is_down = not self._is_down, True
        if news:
            said = str(error) if isinstance(error, LedgerError) else f"unexpected {type(error).__name__}"
            log.error("the outbox cannot go on, and keeps trying: %s", said)

    def _tell_up(self) -> None:
        with self._lock:
            news, self._is_down = self._is_down, False
        if news:
            log.warning("the outbox goes on")


class OutboxThread:
    """Runs a worker beside the host's own work, in hosts of any kind: with threads, processes or an event loop.

    To be started and stopped by one thread at a time. It does not run in a forked child, which may make a worker and a
    thread of its own.
    """

    def __init__(self, worker: OutboxWorker) -> None:
        self._worker = worker
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._process = os.getpid()

    @property
    def is_running(self) -> bool:
        """Whether the worker runs, in this process."""
        return self._process == os.getpid() and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the worker, unless it runs. Raises ``RuntimeError`` in a forked child."""
        if self._process != os.getpid():
            raise RuntimeError("this outbox thread is the parent's; a forked process makes its own")
        if self.is_running:
            return
        self._stop = threading.Event()
        run = self._worker.run
        self._thread = threading.Thread(target=run, args=(self._stop,), name="uploadguard-outbox", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Take no more tasks, and wait so long for those under way; returns whether all came to an end.

        Blocks: an event loop should have a thread call it. A process that ends without it loses nothing: other workers
        take its tasks over when its leases have run out.
        """
        if not self.is_running or self._thread is None:
            return True
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
