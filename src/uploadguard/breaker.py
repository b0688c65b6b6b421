"""The breaker: a list that matches too much is not believed any more.

Lists have been poisoned: one held hashes of pictures that half the web uses. A Guard counts, by list, in how many of
its last checks it matched. One above the bound is *tripped*: what it matches is still kept from being served, but
nothing is blocked or reported because of it, until a person has looked and closed the breaker again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.errors import HashSetError
from uploadguard.lists.local import LOCAL_LISTS
from uploadguard.logs import log
from uploadguard.models import Decision
from uploadguard.policy import Policy, matched_lists
from uploadguard.testing.testlist import TEST_LIST_NAME
from uploadguard.tripped import Trip, Tripped, TrippedFile

if TYPE_CHECKING:
    from uploadguard.config_hosts import SafetySettings

__all__ = ["Breaker", "HitWindow"]

_NEVER_TRIP: Final = frozenset({*LOCAL_LISTS, TEST_LIST_NAME})
"""What the host's own reviewers decided, and what an operator tries a deployment out with."""

_RETRY_S: Final = 30.0


class HitWindow:
    """Counts, by list, how many different files matched it in the last ``window_checks`` checks. Not thread-safe.

    A file that comes again counts once, for as long as it comes: only a list that matches many files trips. Holds at
    most one digest for each list and check of the window.
    """

    def __init__(self, *, window_checks: int, min_matched: int, percent: float) -> None:
        self._window_checks = window_checks
        self._min_matched = min_matched
        self._percent = percent
        self._checks = 0
        self._files: dict[str, OrderedDict[bytes, int]] = {}

    @property
    def checks(self) -> int:
        """How many checks the window has now."""
        return min(self._checks, self._window_checks)

    def check(self) -> None:
        """Begin the next check."""
        self._checks += 1

    def match(self, list_name: str, file: bytes) -> bool:
        """Count that ``file``, by its digest, matched in the current check. Returns whether that is too much."""
        files = self._files.setdefault(list_name, OrderedDict())
        files[file] = self._checks
        files.move_to_end(file)
        matched = self.matched(list_name)
        return matched >= self._min_matched and matched * 100 >= self._percent * self.checks

    def matched(self, list_name: str) -> int:
        """How many different files matched the list in the window."""
        files = self._files.get(list_name)
        if files is None:
            return 0
        oldest = self._checks - self._window_checks
        while files and next(iter(files.values())) <= oldest:
            files.popitem(last=False)
        return len(files)

    def forget(self, list_names: Iterable[str]) -> None:
        """Count these lists from nothing."""
        for name in list_names:
            self._files.pop(name, None)


class _AllLists(Container[str]):
    """Where it is not known which lists are tripped."""

    def __contains__(self, name: object) -> bool:
        return name not in _NEVER_TRIP


_ALL: Final = _AllLists()


class Breaker:
    """Which lists are tripped, for one Guard. Shared between threads; survives ``fork``.

    Looks at the file at most every ``refresh_s``, when it is asked; 0 is never. Where the file is damaged every list
    counts as tripped: then what was poisoned harms nobody, and what was not is still kept from being served and comes
    before a person, who can report it. ``counts`` is False for a Guard whose checks are no uploads: it goes by what
    others found. ``alarm`` is told of each trip, on the thread of the check that did it, once for all processes.
    """

    def __init__(
        self,
        file: TrippedFile,
        settings: SafetySettings,
        policy: Policy,
        *,
        refresh_s: float,
        counts: bool,
        alarm: Callable[[Alarm], None],
    ) -> None:
        self._file = file
        self._policy = policy
        self._window = HitWindow(
            window_checks=settings.breaker_window_checks,
            min_matched=settings.breaker_min_uploads,
            percent=settings.breaker_percent,
        )
        self._refresh_s = refresh_s
        self._counts = counts and settings.breaker_percent > 0
        self._alarm = alarm
        self._lock = threading.Lock()
        self._stored = Tripped({}, None)
        self._unsaved: dict[str, Trip] = {}
        self._tripped: Container[str] = frozenset()
        self._error: str | None = None
        self._look_at = self._retry_at = 0.0
        self._saves = 0
        self.refresh()

    @property
    def error(self) -> str | None:
        """Why it is not known which lists are tripped, so that all count as such."""
        return self._error

    def tripped(self) -> Container[str]:
        """The tripped lists, by name, for :func:`~uploadguard.policy.decide`."""
        if self._refresh_s > 0 and time.monotonic() >= self._look_at:
            self.refresh()
        return self._tripped

    def among(self, list_names: Iterable[str]) -> tuple[str, ...]:
        """Which of these lists are tripped, in order."""
        tripped = self.tripped()
        return tuple(sorted(name for name in list_names if name in tripped))

    def count(self, decision: Decision) -> None:
        """Count a decision, and trip the lists that match too much with it.

        One that a late answer made is no further check, but its matches count.
        """
        if not self._counts:
            return
        with self._lock:
            if decision.revises is None:
                self._window.check()
            if not decision.matches:
                return
            names = matched_lists(decision.matches, self._policy) - _NEVER_TRIP
            file = _file_of(decision)
            trips = [
                self._trip(name)
                for name in sorted(names)
                if name not in self._tripped and self._window.match(name, file)
            ]
            for trip in trips:
                self._unsaved[trip.list_name] = trip
                self._window.forget([trip.list_name])
            if trips:
                self._settle()
        for trip in trips:
            if self._save(trip):
                self._alarm(
                    Alarm(
                        AlarmKind.LIST_TRIPPED,
                        f"a hash list matched {trip.matched} different files in the last {trip.checks} checks of a "
                        "process: from now on its matches are only queued, and none is reported unasked. `uploadguard "
                        "lists status` shows which; `uploadguard lists reset` puts it back in force",
                    )
                )

    def refresh(self) -> None:
        """Look at the file now, and write down what could not be until now."""
        self._look_at = time.monotonic() + self._refresh_s
        if self._unsaved and time.monotonic() >= self._retry_at:
            for trip in tuple(self._unsaved.values()):
                self._save(trip)
        saves = self._saves
        try:
            if self._error is None and self._file.stamp() == self._stored.stamp:
                return
            stored = self._file.read()
        except HashSetError as error:
            self._fail(str(error))
            return
        with self._lock:
            if saves != self._saves:  # what was read may be from before another thread wrote
                self._look_at = 0.0
                return
            changed = self._stored.trips.keys() ^ stored.trips.keys()
            came = stored.trips.keys() - self._stored.trips.keys() - self._unsaved.keys()
            self._stored, self._error = stored, None
            for name in stored.trips:
                self._unsaved.pop(name, None)
            self._window.forget(changed)
            self._settle()
        if came:
            log.warning("%d hash list(s) that matched too much are tripped: their matches are only queued", len(came))
        if stored.trips and not stored.as_configured:
            self._renew()

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock in the parent does not exist here."""
        self._lock = threading.Lock()

    def _trip(self, list_name: str) -> Trip:
        at = datetime.now(UTC).replace(microsecond=0)
        return Trip(list_name=list_name, at=at, matched=self._window.matched(list_name), checks=self._window.checks)

    def _settle(self) -> None:
        """The caller holds the lock."""
        self._tripped = _ALL if self._error is not None else frozenset({*self._stored.trips, *self._unsaved})

    def _save(self, trip: Trip) -> bool:
        """Write it down for all processes; returns whether it is news. Where it cannot be, this process goes by it."""
        self._retry_at = time.monotonic() + _RETRY_S
        try:
            news = self._file.add(trip)
        except HashSetError as error:
            log.error("a hash list is tripped, but only this process knows: %s", error)
            return True
        with self._lock:  # from now on the file says whether it is, so that it can be reset
            self._saves += 1
            self._unsaved.pop(trip.list_name, None)
            self._stored = self._stored._replace(trips={**self._stored.trips, trip.list_name: trip})
            self._settle()
        return news

    def _renew(self) -> None:
        try:
            self._file.renew()
        except HashSetError as error:
            log.warning("the file of tripped lists is not encrypted as configured: %s", error)

    def _fail(self, reason: str) -> None:
        with self._lock:
            known, self._error = self._error, reason
            self._settle()
        if known != reason:
            self._alarm(
                Alarm(
                    AlarmKind.LIST_TRIPPED,
                    f"it is not known which hash lists are tripped, so the matches of all are only queued: {reason}",
                )
            )


def _file_of(decision: Decision) -> bytes:
    """What tells one file from another: its SHA-256, or else all hashes there are of it."""
    sha256 = next((item.value for item in decision.hashes if item.signal_type == "sha256"), None)
    return sha256 or hashlib.sha256(b"".join(sorted(item.value for item in decision.hashes))).digest()
