"""How many uploads one process takes in at once: those beyond are refused before their bodies are read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.guard import Guard

__all__ = ["Admission"]


class Admission:
    """Counts the uploads under way. ``limit`` None admits all. Thread-safe; makes no thread and waits for nothing."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._under_way = 0
        self._waiting: set[Callable[[], None]] = set()
        self._counting = threading.Lock()

    @classmethod
    def of(cls, guard: Guard) -> Admission:
        """The one that all adapters of this Guard share: as many as it checks at once."""
        with _MAKING:
            return _OF_GUARDS.setdefault(guard, cls(guard.max_at_once))

    @property
    def under_way(self) -> int:
        """How many there are now."""
        return self._under_way

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Whether there is room for one more; it counts until the block is left. Where there is none, those that are
        waited for are hurried: slow ones make room for this upload's next try."""
        with self._counting:
            admitted = self._limit is None or self._under_way < self._limit
            self._under_way += admitted
        if not admitted:
            self.hurry()
        try:
            yield admitted
        finally:
            with self._counting:
                self._under_way -= admitted

    @contextmanager
    def waiting(self, hurry: Callable[[], None]) -> Iterator[None]:
        """A body is waited for. ``hurry`` is called, on any thread, each time that an upload finds no room."""
        with self._counting:
            self._waiting.add(hurry)
        try:
            yield
        finally:
            with self._counting:
                self._waiting.discard(hurry)

    def hurry(self) -> None:
        """An upload found no room."""
        with self._counting:
            waiting = tuple(self._waiting)
        for hurry in waiting:
            hurry()


_OF_GUARDS: weakref.WeakKeyDictionary[Guard, Admission] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()
