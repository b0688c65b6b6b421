"""A circuit breaker: a service that keeps failing is left alone for a while, and its callers are told so at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uploadguard.errors import MatcherError
from uploadguard.logs import log

__all__ = ["CircuitBreaker", "ServiceFailure"]

_LONGEST_ASKED_FOR_S = 3600.0


class ServiceFailure(MatcherError):
    """A call that failed. Its text is one sentence of ours, and quotes nothing.

    ``counts`` says that it tells of the service, and not of this one question. ``opens``: there is no point in trying
    on. ``pause_s`` is the wait that the service asked for.
    """

    def __init__(self, reason: str, *, counts: bool = True, opens: bool = False, pause_s: float | None = None) -> None:
        self.reason = reason
        self.counts = counts
        self.opens = opens
        self.pause_s = pause_s
        super().__init__(reason)


class CircuitBreaker:
    """Lets calls through until ``failures`` of them failed in a row, or one that ``opens``. Thread-safe.

    Then it refuses them for ``pause_s``, or as long as the service asked for (an hour at most), and after that lets one
    through at a time: the first that succeeds ends it, and each that fails doubles the pause, up to ``max_pause_s``.
    What calls that began before it opened turn out to be changes nothing. ``kind`` is for the log.
    """

    def __init__(
        self,
        kind: str,
        *,
        failures: int = 5,
        pause_s: float = 10.0,
        max_pause_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._failures = failures
        self._first_pause_s = pause_s
        self._max_pause_s = max(pause_s, max_pause_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._turn = 0
        self._pause_s = pause_s
        self._open_until: float | None = None
        self._reason = ""
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, or let through one at a time."""
        return self._open_until is not None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """One call; :class:`ServiceFailure` is its failure. Raises it at once where the call is refused."""
        turn = self._admit()
        try:
            yield
        except ServiceFailure as failure:
            if failure.counts:
                self._failed(turn, failure)
            else:
                self._told_nothing(turn)
            raise
        except BaseException:
            self._told_nothing(turn)
            raise
        self._succeeded(turn)

    def _admit(self) -> int:
        with self._lock:
            if self._open_until is not None:
                if self._probing or self._clock() < self._open_until:
                    raise ServiceFailure(f"it is not asked for a while, since {self._reason}", counts=False)
                self._probing = True
            return self._turn

    def _failed(self, turn: int, failure: ServiceFailure) -> None:
        with self._lock:
            if turn != self._turn:
                return
            was_open = self._open_until is not None
            self._in_a_row += 1
            if not was_open and not failure.opens and self._in_a_row < self._failures:
                return
            self._pause_s = min(self._pause_s * 2, self._max_pause_s) if was_open else self._first_pause_s
            asked_for_s = min(failure.pause_s or 0.0, _LONGEST_ASKED_FOR_S)
            self._open_until = self._clock() + max(self._pause_s, asked_for_s)
            self._reason = failure.reason
            self._probing = False
            self._turn += 1
        if not was_open:
            log.error("match service of the kind %s: %s; it is not asked for a while", self._kind, failure.reason)

    def _succeeded(self, turn: int) -> None:
        with self._lock:
            if turn != self._turn:
                return
            self._in_a_row = 0
            if self._open_until is None:
                return
            self._open_until = None
            self._probing = False
            self._turn += 1
        log.warning("match service of the kind %s: it answers again", self._kind)

    def _told_nothing(self, turn: int) -> None:
        with self._lock:
            if turn == self._turn:
                self._probing = False
