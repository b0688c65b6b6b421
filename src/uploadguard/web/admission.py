"""How many uploads one process takes in at once: those beyond are refused before their bodies are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Admission"]


class Admission:
    """Counts the uploads under way. ``limit`` None admits all. Thread-safe; makes no thread and waits for nothing."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._under_way = 0
        self._counting = threading.Lock()

    @property
    def under_way(self) -> int:
        """How many there are now."""
        return self._under_way

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Whether there is room for one more; it counts until the block is left."""
        with self._counting:
            admitted = self._limit is None or self._under_way < self._limit
            self._under_way += admitted
        try:
            yield admitted
        finally:
            with self._counting:
                self._under_way -= admitted
