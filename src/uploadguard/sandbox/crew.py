"""The worker processes of one Guard, and the one thread that starts and ends them.

All state lies behind one lock. A worker is with the check that acquired it until that check releases it, abandons it
or reports it lost; in between only its ``kill`` is used from elsewhere.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from uploadguard.logs import log
from uploadguard.media.codecs import log_holes
from uploadguard.sandbox import wire
from uploadguard.sandbox.lockdown import Layers
from uploadguard.sandbox.process import Worker, WorkerSpec

__all__ = ["START_S", "Crew", "PoolStatus", "Waiter"]

START_S: Final = 30.0
"""How long a worker may take to be ready."""
_STOP_GRACE_S: Final = 0.25
_SPARE_DELAY_S: Final = 1.0
"""How long after the first worker its spare is started: a program that checks one file and ends needs none."""
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
_REAP_S: Final = 0.05
_CLOSE_S: Final = 5.0
_GROWTH_BYTES: Final = 256 << 20

_CREWS: weakref.WeakSet[Crew] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """How a Guard's workers are doing.

    ``layers`` are those of a worker that runs, or ran last, None before the first; ``holes`` the codecs it refuses.
    ``live`` counts workers that are ready, ``busy`` those of them at work, ``waiting`` the checks that wait for one.
    ``started`` counts the workers that became ready, ``ended`` those that ended, by reason. ``start_error`` is why the
    last one could not be started.
    """

    layers: Layers | None
    holes: tuple[str, ...]
    live: int
    busy: int
    waiting: int
    started: int
    ended: Mapping[str, int]
    start_error: str | None


class Waiter:
    """A check that waits for a worker."""

    def __init__(self, *, fresh: bool) -> None:
        self.fresh = fresh
        self.woken = threading.Event()
        self.worker: Worker | None = None


class Crew:
    """Workers, of which ``workers`` at most are at work at once, and one more is kept warm."""

    def __init__(
        self,
        spec: WorkerSpec,
        expected: wire.Expected,
        *,
        required: frozenset[str],
        workers: int,
        max_waiting: int,
        max_files: int,
        idle_s: float,
    ) -> None:
        self.workers = workers
        self._spec = spec
        self._expected = expected
        self._required = required
        self._max_waiting = max_waiting
        self._max_files = max_files
        self._idle_s = idle_s
        self._closed = False
        self._reset()
        _CREWS.add(self)

    def _reset(self) -> None:
        # A finalizer may close the pool on a thread that is inside it.
        self._lock = threading.RLock()
        self.making = threading.Lock()
        """Held while a worker is made, and over a fork: a child must know of every descriptor it has a copy of."""
        self._thread: threading.Thread | None = None
        self._wake_fd: int | None = None
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._starting: list[Worker] = []
        self._stopping: dict[Worker, tuple[int, float]] = {}
        self._dying: list[Worker] = []
        self._waiters: deque[Waiter] = deque()
        self._started = 0
        self._ended: Counter[str] = Counter()
        self._layers: Layers | None = None
        self._holes: tuple[str, ...] = ()
        self._start_error: str | None = None
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = self._spare_at = 0.0
        self._peak, self._peak_at = 0, 0.0
        self._prewarming = False

    def release(self, worker: Worker) -> None:
        """It has answered and can go on. It is replaced after so many uploads, or where it has grown."""
        with suppress(OSError):
            worker.give_back()
        grown = worker.resident_bytes() - worker.resident_at_start_bytes > _GROWTH_BYTES
        if grown or worker.files >= self._max_files:
            self.lost(worker, "grown" if grown else "recycled")
            return
        with self._lock:
            if not self._closed:
                self._busy.discard(worker)
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
                self._dispatch()
                return
        self.lost(worker, "closed")

    def abandon(self, worker: Worker, size_bytes: int, *, grace_s: float = _STOP_GRACE_S) -> None:
        """Its answer is no longer wanted: it is told so, and killed where it does not stop within ``grace_s``."""
        worker.stop()
        with self._lock:
            if not self._closed:
                self._stopping[worker] = (size_bytes, time.monotonic() + grace_s)
                self._wake()
                return
        self.lost(worker, "closed")

    def lost(self, worker: Worker, why: str) -> None:
        """It is gone, or must go."""
        worker.kill(why)
        with self._lock:
            self._forget(worker)
            self._ended[why] += 1
            self._dying.append(worker)
            if not self._closed:
                self._dispatch()
                self._wake()
                return
        self._bury(worker)

    def status(self) -> PoolStatus:
        """How the workers are doing."""
        with self._lock:
            return PoolStatus(
                layers=self._layers,
                holes=self._holes,
                live=len(self._idle) + len(self._busy),
                busy=len(self._busy),
                waiting=len(self._waiters),
                started=self._started,
                ended=dict(self._ended),
                start_error=self._start_error,
            )

    def close(self) -> None:
        """End all workers. Checks that wait for one, or for an answer, fail."""
        self.close_soon()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)

    def close_soon(self) -> None:
        """As :meth:`close`, without waiting for it."""
        with self._lock:
            self._closed = True
            for waiter in self._waiters:
                waiter.woken.set()
            if self._wake_fd is not None:
                os.eventfd_write(self._wake_fd, 1)

    def after_fork(self) -> None:
        """In a forked child: the workers are the parent's, and the thread does not exist here."""
        workers, wake_fd = self._all, self._wake_fd
        self._reset()
        for worker in tuple(workers):
            worker.forget()
        if wake_fd is not None:
            os.close(wake_fd)

    # Inside, with the lock held

    def _take(self, *, fresh: bool) -> Worker | None:
        if not self._idle or len(self._busy) >= self.workers:
            return None
        worker = min(self._idle, key=lambda one: one.files) if fresh else self._idle[-1]
        self._idle.remove(worker)
        self._busy.add(worker)
        self._note_demand()
        if not self._idle:
            self._wake()
        return worker

    def _note_demand(self) -> None:
        demand = min(len(self._busy) + len(self._waiters), self.workers)
        if demand >= self._peak:
            self._peak, self._peak_at = demand, time.monotonic()

    def _dispatch(self) -> None:
        while self._waiters and (worker := self._take(fresh=self._waiters[0].fresh)) is not None:
            waiter = self._waiters.popleft()
            waiter.worker = worker
            waiter.woken.set()

    def _forget(self, worker: Worker) -> None:
        self._busy.discard(worker)
        self._stopping.pop(worker, None)
        for workers in (self._idle, self._starting):
            if worker in workers:
                workers.remove(worker)

    def _wake(self) -> None:
        """Have the supervisor look around; start it where it does not run."""
        if self._thread is None or not self._thread.is_alive():
            if self._wake_fd is None:
                self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._supervise, name="uploadguard-sandbox", daemon=True)
            self._thread.start()
        elif self._wake_fd is not None:
            os.eventfd_write(self._wake_fd, 1)

    # The supervisor's thread

    def _supervise(self) -> None:
        try:
            while not self._closed:
                self._sleep(self._look_around())
        except Exception as error:
            log.critical("the workers' supervisor failed and begins anew: %s", type(error).__name__)
            raise
        finally:
            self._end_all()

    def _look_around(self) -> float | None:
        """Do all that is due. Returns in how many seconds something will be; None: not before something happens."""
        for worker in tuple(self._starting):
            self._look_at_start(worker)
        for worker, (size_bytes, kill_at) in tuple(self._stopping.items()):
            self._look_at_stopping(worker, size_bytes, kill_at)
        for worker in tuple(self._idle):
            if not worker.is_alive():
                with self._lock:
                    if worker in self._idle:
                        self.lost(worker, "died")
        for worker in tuple(self._dying):
            if not worker.is_alive():
                self._bury(worker)
        self._prune()
        for _ in range(self._missing()):
            self._start()
        return self._next_s()

    def _look_at_start(self, worker: Worker) -> None:
        try:
            problem = worker.greet()
        except BlockingIOError:
            if time.monotonic() - worker.started < START_S:
                return
            problem = f"a worker was not ready after {START_S:g} s"
        if problem is None and (missing := worker.layers.missing(self._required)):
            problem = f"a worker lacks {', '.join(missing)}"
        if problem is not None:
            self.lost(worker, "not_started")
            self._start_failed(problem)
            return
        with self._lock:
            self._starting.remove(worker)
            self._started += 1
            if worker.holes != self._holes:
                log_holes(worker.holes)
            self._layers, self._holes = worker.layers, worker.holes
            self._start_error, self._retry_s = None, _FIRST_RETRY_S
            worker.idle_since = time.monotonic()
            self._spare_at = max(self._spare_at, worker.started + _SPARE_DELAY_S)
            self._idle.insert(0, worker)
            self._dispatch()

    def _look_at_stopping(self, worker: Worker, size_bytes: int, kill_at: float) -> None:
        try:
            stopped = worker.has_stopped(size_bytes, self._expected)
        except (EOFError, wire.ProtocolError):
            self.lost(worker, "crashed")
            return
        if stopped:
            with self._lock:
                self._stopping.pop(worker, None)
            self.release(worker)
        elif time.monotonic() >= kill_at:
            self.lost(worker, "stopped")

    def _prune(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._peak_at > self._idle_s:
                self._peak, self._peak_at = min(len(self._busy) + len(self._waiters), self.workers), now
            surplus = len(self._idle) + len(self._busy) - min(self._peak, self.workers) - 1
            old = [one for one in self._idle if now - one.idle_since > self._idle_s]
            for worker in old[: max(surplus, 0)]:
                self.lost(worker, "idle")

    def _missing(self) -> int:
        """How many workers to start now."""
        now = time.monotonic()
        with self._lock:
            if now < self._retry_at or self._closed:
                return 0
            coming = len(self._idle) + len(self._starting)
            needed = min(len(self._waiters), self.workers - len(self._busy)) - coming
            if needed > 0:
                return needed
            if self._prewarming and not coming and not self._busy:
                return 1
            spare = self._started > 0 and self._peak > 0 and not coming and now >= self._spare_at
            return 1 if spare else 0

    def _start(self) -> None:
        try:
            with self.making:
                worker = Worker(self._spec)
                self._all.add(worker)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            is_python = error.filename == self._spec.python
            self._start_failed(f"sandbox.python, {error.filename}: {reason}" if is_python else reason)
            return
        with self._lock:
            self._starting.append(worker)

    def _start_failed(self, problem: str) -> None:
        with self._lock:
            if problem != self._start_error:
                log.error("no worker process could be started: %s", problem)
            self._start_error = problem
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            for waiter in self._waiters:
                waiter.woken.set()

    def _next_s(self) -> float | None:
        now = time.monotonic()
        with self._lock:
            due = [kill_at for _, kill_at in self._stopping.values()]
            due += [worker.started + START_S for worker in self._starting]
            if self._dying:
                due.append(now + _REAP_S)
            if self._retry_at > now:
                due.append(self._retry_at)
            if self._started and not self._idle and self._spare_at > now:
                due.append(self._spare_at)
            if len(self._idle) > 1 or self._peak:
                due.append(max(self._peak_at, *(one.idle_since for one in self._idle), 0.0) + self._idle_s + _REAP_S)
        return max(0.0, min(due) - now) if due else None

    def _sleep(self, timeout_s: float | None) -> None:
        poll = select.poll()
        with self._lock:
            assert self._wake_fd is not None
            poll.register(self._wake_fd, select.POLLIN)
            for worker in (*self._starting, *self._stopping):
                poll.register(worker.connection, select.POLLIN)
            for worker in (*self._idle, *self._dying):
                if worker.pidfd is not None:
                    poll.register(worker.pidfd, select.POLLIN)
        poll.poll(None if timeout_s is None else timeout_s * 1e3 + 1)
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _bury(self, worker: Worker) -> None:
        """Wait for a killed worker's end and let go of it."""
        worker.exit_status()
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)
                worker.close()
            if worker in self._dying:
                self._dying.remove(worker)

    def _end_all(self) -> None:
        with self._lock:
            workers = [worker for worker in self._all if worker not in self._busy or worker in self._stopping]
            for worker in self._all:
                worker.kill("closed")  # a check that waits for one of them sees it go, and buries it
            for worker in workers:
                self._forget(worker)
        for worker in workers:
            self._bury(worker)
        with self._lock:
            if self._wake_fd is not None and self._closed:
                os.close(self._wake_fd)
                self._wake_fd = None


def _close_all() -> None:
    for crew in tuple(_CREWS):
        crew.close()


_FORKING: list[Crew] = []


def _before_fork() -> None:
    for crew in tuple(_CREWS):
        crew.making.acquire()
        _FORKING.append(crew)


def _after_fork_in_parent() -> None:
    while _FORKING:
        _FORKING.pop().making.release()


def _after_fork_in_child() -> None:
    _FORKING.clear()
    for crew in tuple(_CREWS):
        crew.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
