"""Which generation of the hash set serves, and when the next one takes over.

A check takes the current generation once, by reading one reference. Now and then it also has the manifest looked at; a
new generation is loaded on a thread of its own and swapped in by one assignment. A generation that cannot be loaded is
refused: the old one goes on serving, and the error is kept for :attr:`Serving.last_error`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from uploadguard.errors import HashSetError
from uploadguard.hashset import Generation, HashSet, Segment

__all__ = ["Served", "Serving"]

log = logging.getLogger("uploadguard")


class Served(NamedTuple):
    """What checks run against: the generation, and how many entries it has that protect.

    The built-in test list's do not, and none does where no list has a hash of a signal type that checks use.
    """

    generation: Generation
    entries: int


class Serving:
    """The current generation of a hash set's directory.

    Raises :class:`~uploadguard.errors.HashSetError` if there is none that can be loaded. ``signal_types`` are those
    that checks use. ``built_in`` are segments that serve beside it and do not count as protection: the test list.
    ``changed`` is called, on whatever thread loaded it, with the number of each generation that takes over after the
    first.
    """

    def __init__(
        self,
        directory: Path,
        *,
        verify: bool,
        refresh_s: float,
        signal_types: Collection[str],
        built_in: tuple[Segment, ...] = (),
        changed: Callable[[int], None],
    ) -> None:
        self._hashset = HashSet.open(directory)
        self._verify = verify
        self._refresh_s = refresh_s
        self._signal_types = signal_types
        self._built_in = built_in
        self._changed = changed
        self._loading = threading.Lock()
        self._next_look = time.monotonic() + refresh_s
        self.last_error: HashSetError | None = None
        self._current = self._load(None)

    def current(self) -> Served:
        """What to check against; starts a look for a new one when it is time."""
        if self._refresh_s > 0 and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._refresh_s
            if self._has_changed() and not self._loading.locked():
                threading.Thread(target=self.refresh, name="uploadguard-refresh", daemon=True).start()
        return self._current

    def refresh(self) -> bool:
        """Look for a new generation now and swap it in. Returns whether there was one that could be loaded."""
        with self._loading:
            if not self._has_changed():
                return False
            try:
                served = self._load(self._current.generation)
            except HashSetError as error:
                self.last_error = error
                log.error("the new generation of the hash set was refused and the old one goes on serving: %s", error)
                return False
            self._current = served
            self.last_error = None
        log.info("generation %d of the hash set serves", served.generation.number)
        self._changed(served.generation.number)
        return True

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock in the parent does not exist here."""
        self._loading = threading.Lock()

    def close(self) -> None:
        """Let go of the current generation. Checks still under way keep theirs."""
        self._current.generation.close()

    def _has_changed(self) -> bool:
        """Whether another generation is on disk. A manifest that cannot be read is no reason to stop serving."""
        try:
            return self._hashset.changed_since(self._current.generation.number)
        except HashSetError as error:
            if str(error) != str(self.last_error):
                log.error("the hash set on disk cannot be read and the loaded generation goes on serving: %s", error)
            self.last_error = error
            return False

    def _load(self, previous: Generation | None) -> Served:
        stored = self._hashset.load(verify=self._verify, previous=previous)
        served = Generation.of([*stored.segments, *self._built_in], number=stored.number) if self._built_in else stored
        hashes = sum(
            count
            for info in stored.lists
            if info.role == "deny"
            for name, count in info.hashes.items()
            if name in self._signal_types
        )
        return Served(served, stored.entries_total if hashes else 0)
