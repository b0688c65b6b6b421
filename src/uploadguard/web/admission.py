"""How many uploads one process takes in at once: those beyond are refused before their bodies are read.

Unless somebody else's body does not come: a client that has a place and sends nothing loses it to the next one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uploadguard.guard import Guard

__all__ = ["Admission", "Waits"]


class Waits(Protocol):
    """A body that is waited for, by a request that has its place. Both may be called on any thread."""

    def behind_s(self) -> float:
        """For how much longer it was waited for than it may be while others find no place; 0 or less: it may."""

    def give_up(self) -> None:
        """Somebody else has its place: wait no longer."""


class _Waiting:
    """All bodies that are waited for."""

    def __init__(self) -> None:
        self._bodies: set[Waits] = set()
        self._changing = threading.Lock()

    def add(self, body: Waits) -> None:
        with self._changing:
            self._bodies.add(body)

    def discard(self, body: Waits) -> None:
        with self._changing:
            self._bodies.discard(body)

    def give_up_slowest(self) -> bool:
        """Whether one was too slow to keep its place. Each gives up once."""
        with self._changing:
            behind_s, slowest = max(((body.behind_s(), body) for body in self._bodies), key=_first, default=(0.0, None))
            if slowest is None or behind_s <= 0:
                return False
            self._bodies.discard(slowest)
        slowest.give_up()
        return True


def _first(pair: tuple[float, Waits]) -> float:
    return pair[0]


class Admission:
    """Counts the uploads under way. ``limit`` None admits all. Thread-safe; makes no thread and waits for nothing.

    ``beside`` is another one whose bodies make room here as well: a request has a place in both.
    """

    def __init__(self, limit: int | None, *, beside: Admission | None = None) -> None:
        self._limit = limit
        self._under_way = 0
        self._counting = threading.Lock()
        self._waiting: _Waiting = beside._waiting if beside is not None else _Waiting()

    @classmethod
    def of(cls, guard: Guard) -> Admission:
        """The one that all adapters of this Guard share: as many as it checks at once."""
        with _MAKING:
            return _OF_GUARDS.setdefault(guard, cls(guard.max_at_once))

    @property
    def under_way(self) -> int:
        """How many there are now; one more than the limit while one gives its place up."""
        return self._under_way

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Whether there is room for one more, or somebody slow makes room; it counts until the block is left."""
        with self._counting:
            admitted = self._limit is None or self._under_way < self._limit or self._waiting.give_up_slowest()
            self._under_way += admitted
        try:
            yield admitted
        finally:
            with self._counting:
                self._under_way -= admitted

    @contextmanager
    def waiting(self, body: Waits) -> Iterator[None]:
        """The body of a request that has a place is waited for."""
        self._waiting.add(body)
        try:
            yield
        finally:
            self._waiting.discard(body)


_OF_GUARDS: weakref.WeakKeyDictionary[Guard, Admission] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()
