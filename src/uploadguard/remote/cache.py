"""Answers for a while, in memory only, and bounded."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["AnswerCache"]

K = TypeVar("K")
V = TypeVar("V")


class AnswerCache(Generic[K, V]):
    """What a service answered. Thread-safe; a look-up takes about a microsecond.

    Answers that found something are kept for ``found_s``, others for ``not_found_s`` (0: not at all). Each sort has
    room for ``entries``, the oldest giving way: so a flood of uploads that nobody knows displaces no match. While an
    answer that found something is there, it goes before another to the same question.
    """

    def __init__(
        self, *, entries: int, found_s: float, not_found_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._found: _Shelf[K, V] = _Shelf(entries, found_s)
        self._not_found: _Shelf[K, V] = _Shelf(entries, not_found_s)

    def __len__(self) -> int:
        with self._lock:
            return len(self._found) + len(self._not_found)

    def __repr__(self) -> str:
        return f"AnswerCache(<{len(self)} answers>)"

    def get(self, key: K) -> V | None:
        """The answer; None where none is kept."""
        with self._lock:
            now = self._clock()
            answer = self._found.get(key, now)
            return answer if answer is not None else self._not_found.get(key, now)

    def put(self, key: K, answer: V, *, found: bool) -> None:
        """Keep an answer, which must not be None."""
        with self._lock:
            (self._found if found else self._not_found).put(key, answer, self._clock())


class _Shelf(Generic[K, V]):
    """Answers of one sort, the oldest first: so those that are over are in front."""

    def __init__(self, entries: int, keep_s: float) -> None:
        self._entries = entries
        self._keep_s = keep_s
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: K, now: float) -> V | None:
        kept = self._answers.get(key)
        if kept is None:
            return None
        until, answer = kept
        if now < until:
            return answer
        del self._answers[key]
        return None

    def put(self, key: K, answer: V, now: float) -> None:
        if self._keep_s <= 0:
            return
        self._answers.pop(key, None)
        self._answers[key] = (now + self._keep_s, answer)
        while self._answers and (len(self._answers) > self._entries or self._oldest_until() <= now):
            self._answers.popitem(last=False)

    def _oldest_until(self) -> float:
        return next(iter(self._answers.values()))[0]
