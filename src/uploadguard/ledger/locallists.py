"""The local lists in a host's hash set: what reviewers confirmed, and what they dismissed.

The ledger has their changes in order. Each host brings its own hash set up to the last one, by one small segment for
each list. How far it came is in the list's source text, in the hash set itself; so it goes back with a generation that
is rolled back, and what was taken off is applied again; and none of these changes pushes out a generation that an
operator might go back to. With the number stands a fingerprint of that change: in
another ledger, or one restored from a backup, it is another one's, and the list is then built anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import ListError, UnknownListError
from uploadguard.hashset import HashSet
from uploadguard.hashset.metadata import Role
from uploadguard.hashset.segment_writer import SignalTypes
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.lists.base import ListEntry
from uploadguard.lists.local import CONFIRMED_LIST, DISMISSED_LIST, LOCAL_LISTS

__all__ = ["apply_local_lists"]

_CATEGORIES = {CONFIRMED_LIST: "confirmed", DISMISSED_LIST: "dismissed"}
_SOURCE = "ledger:"
_SOURCE_FORM = re.compile(rf"{_SOURCE}(?P<seq>[0-9]{{1,18}}):(?P<fingerprint>[0-9a-f]{{16}})")
_Item = TypeVar("_Item")
_ATTEMPTS = 10
_BATCH = 1000


class _OvertakenError(Exception):
    """Another process has changed the list since it was looked at."""


def apply_local_lists(database: Database, hashset: HashSet, signal_types: SignalTypes) -> bool:
    """Bring the hash set's local lists up to date with the ledger; returns whether anything changed.

    ``signal_types`` gives length_bytes and max_distance_bits by name; hashes of others are left out. Cheap where there
    is no news. Several processes may do it at once: each change is made once. Raises what
    :meth:`~uploadguard.hashset.HashSet.update_list` raises, and :class:`~uploadguard.errors.LedgerError`.
    """
    changed = False
    for name, role in LOCAL_LISTS.items():
        local = _LocalList(database, hashset, signal_types, name, role)
        for attempt in range(_ATTEMPTS):
            try:
                changed |= local.apply()
                break
            except _OvertakenError:
                if attempt == _ATTEMPTS - 1:
                    raise ListError("a local list changes faster than it can be brought up to date") from None
    return changed


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a list is: its source text in the hash set, None where it is not there, and the number of the last change
    that is in it, 0 where that is not known."""

    source: str | None
    seq: int


@dataclass(frozen=True, slots=True)
class _LocalList:
    database: Database
    hashset: HashSet
    signal_types: SignalTypes
    name: str
    role: Role

    def apply(self) -> bool:
        """Bring it up to date; returns whether that changed anything. Raises :class:`_OvertakenError`."""
        with self.database.reading() as connection:
            top = self._top(connection)
            place = self._place(connection)
            if place.seq == top:
                return False
            source = f"{_SOURCE}{top}:{self._fingerprint(connection, top)}"
            changed = self._update(connection, place, top, source) if place.seq else None
            return changed if changed is not None else self._build(connection, place, top, source)

    def _update(self, connection: Connection, place: _Place, top: int, source: str) -> bool | None:
        """Make the changes since ``place``. None where they cannot be made to the list as it is in the hash set."""
        removed = self._removed(connection, place.seq, top)
        added = list(self._entries(connection, place.seq, top))
        if not added and not removed:
            return False  # added and taken back in between
        try:
            update = self.hashset.update_list(
                self.name,
                self._unless_overtaken(place, added),
                self._unless_overtaken(place, removed),
                self.signal_types,
                source=source,
                undoable=False,
            )
        except UnknownListError:
            raise _OvertakenError from None
        except ListError:  # a signal type is looked up in another way than it was
            return None
        return True if update.added or update.removed else None

    def _build(self, connection: Connection, place: _Place, top: int, source: str) -> bool:
        """Put the whole list in place of whatever there is of that name."""
        with closing(self._entries(connection, 0, top)) as entries:
            first = next(entries, None)
            if first is None:
                if place.source is None:
                    return False
                self.hashset.remove_list(self.name)
                return True
            try:
                self.hashset.add_list(
                    self.name,
                    self._unless_overtaken(place, chain([first], entries)),
                    self.signal_types,
                    role=self.role,
                    source=source,
                    replace=place.source is not None,
                    undoable=False,
                )
            except ListError:
                if self._source() != place.source:
                    raise _OvertakenError from None
                raise
        return True

    def _unless_overtaken(self, place: _Place, items: Iterable[_Item]) -> Iterator[_Item]:
        """Runs under the hash set's write lock: nothing is written over what another process has just done."""
        if self._source() != place.source:
            raise _OvertakenError
        yield from items

    def _source(self) -> str | None:
        return next((info.source for info in self.hashset.lists() if info.name == self.name), None)

    def _place(self, connection: Connection) -> _Place:
        info = next((info for info in self.hashset.lists() if info.name == self.name), None)
        if info is None:
            return _Place(None, 0)
        found = _SOURCE_FORM.fullmatch(info.source)
        if found is None or info.role != self.role:
            return _Place(info.source, 0)
        seq = int(found["seq"])
        return _Place(info.source, seq if self._fingerprint(connection, seq) == found["fingerprint"] else 0)

    def _top(self, connection: Connection) -> int:
        entries = schema.local_entries.c
        query = sa.select(sa.func.max(entries.seq)).where(entries.list_name == self.name)
        return connection.execute(query).scalar() or 0

    def _fingerprint(self, connection: Connection, seq: int) -> str | None:
        """Tells the change of this number from another ledger's."""
        entries = schema.local_entries.c
        query = sa.select(entries.entry_id, entries.at, entries.removed)
        row = connection.execute(query.where(entries.list_name == self.name, entries.seq == seq)).one_or_none()
        if row is None:
            return None
        told = f"{seq} {row.entry_id} {row.at.isoformat()} {row.removed}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _latest(self, after: int, top: int, *, removed: bool) -> sa.Select[Any]:
        """The last change of each entry that changed after one number and up to another."""
        entries, later = schema.local_entries.c, schema.local_entries.alias("later").c
        superseded = sa.exists().where(
            later.list_name == self.name, later.entry_id == entries.entry_id, later.seq > entries.seq, later.seq <= top
        )
        return (
            sa.select(entries.entry_id, entries.hashes)
            .where(
                entries.list_name == self.name,
                entries.seq > after,
                entries.seq <= top,
                entries.removed.is_(sa.true() if removed else sa.false()),
                ~superseded,
            )
            .order_by(entries.seq)
        )

    def _entries(self, connection: Connection, after: int, top: int) -> Generator[ListEntry, None, None]:
        """The entries that were added, with those of their hashes that this host knows of."""
        query = self._latest(after, top, removed=False)
        with connection.execution_options(yield_per=_BATCH).execute(query) as rows:
            for number, row in enumerate(rows, start=1):
                if hashes := tuple(self._known(row.hashes)):
                    yield ListEntry(row.entry_id, hashes, category=_CATEGORIES[self.name], line=number)

    def _known(self, hashes: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
        for name, value in hashes:
            known = self.signal_types.get(name)
            if known is not None and len(value) == 2 * known[0]:
                yield name, bytes.fromhex(value)

    def _removed(self, connection: Connection, after: int, top: int) -> list[str]:
        """The ids of the entries that were taken back and had been there."""
        entries = schema.local_entries.c
        before, between = schema.local_entries.alias("before").c, schema.local_entries.alias("between").c
        ended = sa.exists().where(
            between.list_name == self.name,
            between.entry_id == before.entry_id,
            between.seq > before.seq,
            between.seq <= after,
        )
        was_there = sa.exists().where(
            before.list_name == self.name,
            before.entry_id == entries.entry_id,
            before.seq <= after,
            before.removed.is_(sa.false()),
            ~ended,
        )
        return list(connection.execute(self._latest(after, top, removed=True).where(was_there)).scalars())
