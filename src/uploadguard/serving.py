"""Which generation of the hash set serves, and when the next one takes over.

A check takes the current generation, by reading one reference. From the first one on, a thread looks at the manifest
every ``refresh_s``, checks or none; it loads a new generation and swaps it in by one assignment. The first check of a
process looks itself, as nobody did before it. So no check is answered by a generation that another had replaced more
than ``refresh_s`` and the time of loading before. A generation that cannot be loaded is refused: the old one goes on
serving, and the error is kept for :attr:`Serving.last_error`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Collection
from datetime import datetime
from typing import NamedTuple

from uploadguard.errors import HashSetError, NotReadyError
from uploadguard.hashset import Generation, HashSet, Segment
from uploadguard.hashset.metadata import summarise
from uploadguard.lists.local import LOCAL_LISTS
from uploadguard.logs import log

__all__ = ["Served", "Serving"]

_RETRY_S = 30.0
"""How long to wait before a generation that was refused is tried again unasked: reading it whole takes a while."""


class Served(NamedTuple):
    """What checks run against: the generation, and how many entries it has that protect.

    The built-in test list's do not, and none does where no list has a hash of a signal type that checks use.
    ``updated_at`` is when a deny list was last imported or updated, and ``oldest_at`` when the one was that waits
    longest; UTC. The local lists, which reviewers feed, do not count.
    """

    generation: Generation
    entries: int
    updated_at: datetime | None
    oldest_at: datetime | None


class Serving:
    """The current generation of a hash set.

    Raises :class:`~uploadguard.errors.HashSetError` if there is none that can be loaded. ``signal_types`` are those
    that checks use. ``built_in`` are segments that serve beside it and do not count as protection: the test list.
    ``changed`` is called, on whatever thread loaded it, with the number of each generation that takes over after the
    first.
    """

    def __init__(
        self,
        hash_set: HashSet,
        *,
        verify: bool,
        refresh_s: float,
        signal_types: Collection[str],
        built_in: tuple[Segment, ...] = (),
        changed: Callable[[int], None],
    ) -> None:
        self._hashset = hash_set
        self._verify = verify
        self._refresh_s = refresh_s
        self._signal_types = signal_types
        self._built_in = built_in
        self._changed = changed
        self._loading = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._refused: tuple[int, float] | None = None
        self.last_error: Exception | None = None
        self._current = self._load(None)

    @property
    def loaded(self) -> Served:
        """What is loaded, without a look for a new one."""
        return self._current

    def current(self) -> Served:
        """What to check against. A process's first call looks for a new one, and has it looked for from then on."""
        watcher = self._watcher
        if (watcher is None or not watcher.is_alive()) and self._refresh_s > 0 and not self._closed.is_set():
            self._begin_watching(watcher)
        return self._current

    def refresh(self) -> bool:
        """Look for a new generation now and swap it in. Returns whether there was one that could be loaded."""
        with self._loading:
            served = self._load_changed()
        return self._announce(served)

    def look(self) -> None:
        """As :meth:`refresh`, but leaves a generation alone for a while that was refused lately."""
        with self._loading:
            served = None if self._was_refused_lately() else self._load_changed()
        self._announce(served)

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock in the parent does not exist here, nor does the watcher."""
        self._loading = threading.Lock()
        self._watcher = None

    def close(self) -> None:
        """Let go of the current generation. Checks still under way keep theirs."""
        self._closed.set()
        self._current.generation.close()

    def _begin_watching(self, dead: threading.Thread | None) -> None:
        with self._loading:
            if self._watcher is not dead:
                return  # another check did it while this one waited
            served = self._load_changed()
            self._watcher = threading.Thread(
                target=_watch,
                args=(weakref.ref(self), self._closed, self._refresh_s),
                name="uploadguard-refresh",
                daemon=True,
            )
            self._watcher.start()
        self._announce(served)

    def _load_changed(self) -> Served | None:
        """Swap in the generation on disk, if it is another and sound. The caller holds the lock."""
        if not self._has_changed():
            return None
        number = self._current.generation.number
        try:
            number = self._hashset.generation
            served = self._load(self._current.generation)
        except (HashSetError, OSError, MemoryError) as error:
            if str(error) != str(self.last_error):
                log.error("the new generation of the hash set was refused and the old one goes on serving: %s", error)
            self.last_error = error.with_traceback(None)
            self._refused = (number, time.monotonic())
            return None
        self._current = served
        self.last_error = self._refused = None
        return served

    def _announce(self, served: Served | None) -> bool:
        if served is None:
            return False
        log.info("generation %d of the hash set serves", served.generation.number)
        self._changed(served.generation.number)
        return True

    def _was_refused_lately(self) -> bool:
        if self._refused is None or time.monotonic() - self._refused[1] > _RETRY_S:
            return False
        try:
            return self._hashset.generation == self._refused[0]
        except HashSetError:
            return False  # looking on says what is wrong

    def _has_changed(self) -> bool:
        """Whether another generation is on disk. A manifest that cannot be read is no reason to stop serving."""
        try:
            changed = self._hashset.changed_since(self._current.generation.number)
        except HashSetError as error:
            if str(error) != str(self.last_error):
                log.error("the hash set on disk cannot be read and the loaded generation goes on serving: %s", error)
            self.last_error = error.with_traceback(None)
            return False
        if not changed and self.last_error is not None:
            log.warning("the hash set on disk can be read again, and is the generation that serves")
            self.last_error = self._refused = None
        return changed

    def _load(self, previous: Generation | None) -> Served:
        stored = self._hashset.load(verify=self._verify, previous=previous)
        served = stored
        if self._built_in:
            lists = (*stored.lists, *summarise(segment.metadata for segment in self._built_in))
            served = Generation.of([*stored.segments, *self._built_in], number=stored.number, lists=lists)
        hashes = sum(
            count
            for info in stored.lists
            if info.role == "deny"
            for name, count in info.hashes.items()
            if name in self._signal_types
        )
        # What reviewers decide says nothing of whether the lists of others still come.
        updated = [info.updated_at for info in stored.lists if info.role == "deny" and info.name not in LOCAL_LISTS]
        return Served(
            served, stored.entries_total if hashes else 0, max(updated, default=None), min(updated, default=None)
        )


def _watch(serving: weakref.ref[Serving], closed: threading.Event, refresh_s: float) -> None:
    """Look for new generations until the owner is closed or gone."""
    while not closed.wait(refresh_s):
        owner = serving()
        if owner is None:
            return
        try:
            owner.look()
        except NotReadyError:
            return  # closed meanwhile
        del owner
