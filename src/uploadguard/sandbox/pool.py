"""Where checks get their workers from: whoever finds all at work waits in line, and the line has an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from uploadguard.models import FailureCode
from uploadguard.sandbox.crew import START_S, Crew, PoolStatus, Waiter
from uploadguard.sandbox.process import Worker

__all__ = ["NoWorker", "PoolStatus", "WorkerPool"]

_CANCELLED_S: Final = 0.05
"""How long it may take until a waiting check sees that nobody wants its answer any more."""


class NoWorker(Exception):
    """There is no worker for a check: the failure's code, and a sentence."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class WorkerPool(Crew):
    """A crew with doors for checks."""

    @property
    def is_cold(self) -> bool:
        """Whether no worker has been ready yet."""
        return self._started == 0

    def try_acquire(self) -> Worker | None:
        """A worker that is free now, if nobody waits for one."""
        with self._lock:
            return None if self._waiters or self._closed else self._take(fresh=False)

    def acquire(self, until: float, cancelled: Callable[[], bool] | None = None, *, fresh: bool = False) -> Worker:
        """A worker; waits for one as long as the clock has not reached ``until`` (:func:`time.monotonic`).

        While none has ever been ready the start is waited for to the end; where they are only busy, the caller says
        how long is worth it. ``fresh`` asks for the one that has done the least. Raises :class:`NoWorker`, also when
        ``cancelled`` says so.
        """
        with self._lock:
            self._raise_closed()
            if not self._waiters and (worker := self._take(fresh=fresh)) is not None:
                return worker
            self._raise_failed_start()
            if len(self._waiters) >= self._max_waiting + max(0, self.workers - len(self._busy)):
                raise NoWorker(FailureCode.OVERLOADED, f"{len(self._waiters)} checks were waiting for a worker already")
            waiter = Waiter(fresh=fresh)
            self._waiters.append(waiter)
            self._note_demand()
            self._wake()
        try:
            while True:
                remaining_s = until - time.monotonic()
                if cancelled is not None:
                    remaining_s = min(remaining_s, _CANCELLED_S)
                waiter.woken.wait(max(remaining_s, 0))
                with self._lock:
                    if waiter.worker is not None:
                        return waiter.worker
                    waiter.woken.clear()
                    self._raise_closed()
                    self._raise_failed_start()
                if time.monotonic() >= until or (cancelled is not None and cancelled()):
                    raise NoWorker(FailureCode.TIMEOUT, "no worker became free in time")
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def wait_ready(self, timeout_s: float = START_S) -> str | None:
        """Start a worker unless there is one, and wait for it. Returns what went wrong, if anything."""
        until = time.monotonic() + timeout_s
        with self._lock:
            self._prewarming = True
            self._wake()
        while True:
            with self._lock:
                if self._idle or self._busy or self._closed:
                    return None
                if self._start_error is not None:
                    return self._start_error
            if time.monotonic() > until:
                return f"no worker was ready after {timeout_s:g} s"
            time.sleep(0.002)

    def _raise_closed(self) -> None:
        if self._closed:
            raise NoWorker(FailureCode.SANDBOX_FAILED, "the workers have been closed")

    def _raise_failed_start(self) -> None:
        if self._start_error is None or self._idle or self._busy or self._starting:
            return
        if time.monotonic() < self._retry_at:
            raise NoWorker(FailureCode.SANDBOX_FAILED, f"no worker can be started: {self._start_error}")
