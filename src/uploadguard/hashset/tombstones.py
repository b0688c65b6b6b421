"""Entries that were taken back: which of a segment's are dead, and how a delta finds those that it ends."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uploadguard.hashset.columns import CHUNK_ENTRIES
from uploadguard.hashset.ids import MAX_IDS, Rows, contains
from uploadguard.hashset.runs import SortedRuns
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.spool import Spools, bytes_of

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["Delta", "dead_chunk", "dead_rows", "is_dead"]

_ID_BYTES = 16
"""The length of the digests that ids are compared by: no two ids of one have been found, nor will be."""

_NOT_WRITTEN = MAX_IDS - 1
"""In place of the row of an entry that only ends others."""


def dead_rows(segments: Sequence[Segment]) -> tuple[tuple[Rows, ...], ...]:
    """For each segment the arrays of its dead entries, ascending: one for each segment with tombstones on it.

    The arrays are parts of the maps: nothing is read or copied.
    """
    found: dict[str, list[Rows]] = {}
    for segment in segments:
        for tombstones in segment.metadata.tombstones:
            found.setdefault(tombstones.segment_id, []).append(segment.tombstones(tombstones.segment_id))
    return tuple(tuple(found.get(segment.metadata.segment_id, ())) for segment in segments)


def is_dead(dead: Sequence[Rows], rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` are in any of the arrays of dead ones."""
    found = np.zeros(len(rows), np.bool_)
    for ascending in dead:
        found |= contains(ascending, rows)
    return found


def dead_chunk(dead: Sequence[Rows], start: int, end: int) -> npt.NDArray[np.bool_]:
    """Whether each entry from ``start`` to before ``end`` is in any of the arrays of dead ones."""
    mask = np.zeros(end - start, np.bool_)
    for ascending in dead:
        low, high = np.searchsorted(ascending, np.array([start, end], ascending.dtype))
        rows = ascending[low:high]
        mask[rows[(rows >= start) & (rows < end)] - start] = True  # a forged array need not ascend
    return mask


class Delta:
    """A change of some of a list's entries, while it is written: which entries its segment ends.

    Takes a bit for each entry of the list and each that it adds; what it collects of the latter's ids is in spools.
    """

    def __init__(self, segments: Sequence[Segment], segment_id: str, spools: Spools | None = None) -> None:
        """``segments`` are the list's, ``segment_id`` that of the one to write. Spools are in memory by default."""
        self._segments = segments
        self._spools = spools if spools is not None else Spools(None)
        self._ended = [_RowSet(segment.metadata.entries) for segment in segments]
        self.segment_id = segment_id
        self._seen = SortedRuns(_ID_BYTES, self._spools)
        self._waiting = bytearray()
        self._waiting_rows = array("I")
        self._rows = self._spools.new()
        self._written = 0
        self._tombstones: dict[str, Rows] | None = None

    @property
    def added(self) -> int:
        """How many entries it adds."""
        return self._written - len(self.tombstones().get(self.segment_id, ()))

    def remove(self, entry_ids: Iterable[str]) -> None:
        """End the entries of these ids; ids that the list does not hold are no error."""
        for entry_id in entry_ids:
            self._end(entry_id)

    def add(self, entries: Iterable[ListEntry]) -> Iterator[ListEntry]:
        """Pass on the entries to write. Each ends those of its id, one passed on before included."""
        for entry in entries:
            if isinstance(entry.entry_id, str):  # of others the writer says what is wrong
                self._end(entry.entry_id)
                self._note(entry.entry_id, self._written if entry.hashes else _NOT_WRITTEN)
            if entry.hashes:  # without one it could not be matched, and is not written
                self._written += 1
                yield entry

    @property
    def removed(self) -> int:
        """How many entries, other than its own, it ends."""
        return sum(len(rows) for segment_id, rows in self.tombstones().items() if segment_id != self.segment_id)

    def tombstones(self) -> dict[str, Rows]:
        """The entries to end, ascending, by segment; only those that were alive. To be asked once all were added."""
        if self._tombstones is None:
            found: dict[str, Rows] = {}
            for segment, ended, dead in zip(self._segments, self._ended, dead_rows(self._segments), strict=True):
                found[segment.metadata.segment_id] = ended.rows(self._spools, dead)
            found[self.segment_id] = self._superseded().rows(self._spools)
            self._tombstones = {segment_id: rows for segment_id, rows in found.items() if len(rows)}
        return self._tombstones

    def count_hashes(self, segment_id: str, rows: Rows) -> dict[str, int]:
        """How many hashes these entries of one of the list's segments have, by signal type."""
        found = next(segment for segment in self._segments if segment.metadata.segment_id == segment_id)
        counts: Counter[str] = Counter()
        for start in range(0, len(rows), CHUNK_ENTRIES):
            counts.update(found.count_hashes(rows[start : start + CHUNK_ENTRIES]))
        return dict(counts)

    def _end(self, entry_id: str) -> None:
        for segment, ended in zip(self._segments, self._ended, strict=True):
            for row in segment.find_entries(entry_id):
                ended.add(row)

    def _note(self, entry_id: str, row: int) -> None:
        """Remember that an entry of that id came, as ``row`` of the new segment."""
        self._waiting += blake2b(entry_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()
        self._waiting_rows.append(row)
        if len(self._waiting_rows) >= CHUNK_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        rows = np.frombuffer(self._waiting_rows, np.uint32)
        numbers = np.arange(len(self._seen), len(self._seen) + len(rows), dtype=np.uint32)
        self._seen.add(np.frombuffer(self._waiting, np.uint8).reshape(-1, _ID_BYTES), numbers)
        self._rows.append(bytes_of(rows))
        self._waiting, self._waiting_rows = bytearray(), array("I")

    def _superseded(self) -> _RowSet:
        """The entries of the new segment that were followed by one of their id."""
        self._flush()
        rows_seen = self._rows.map(np.uint32)
        superseded = _RowSet(self._written)
        last_ids, last_rows = np.empty((0, _ID_BYTES), np.uint8), np.empty(0, np.uint32)
        for ids, numbers in self._seen.merged():
            ids = np.concatenate((last_ids, ids))
            rows = np.concatenate((last_rows, rows_seen[numbers]))
            followed = rows[:-1][(ids[1:] == ids[:-1]).all(axis=1)]
            superseded.add_many(followed[followed != _NOT_WRITTEN])
            last_ids, last_rows = ids[-1:], rows[-1:]
        return superseded


class _RowSet:
    """Numbers of entries of one segment; a bit for each there is."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._bits = bytearray(-(-entries // 8))

    def add(self, row: int) -> None:
        """Put a number in."""
        self._bits[row >> 3] |= 1 << (row & 7)

    def add_many(self, rows: Rows) -> None:
        """Put numbers in."""
        bits = np.frombuffer(self._bits, np.uint8)
        np.bitwise_or.at(bits, rows >> 3, np.left_shift(np.uint8(1), (rows & 7).astype(np.uint8)))

    def rows(self, spools: Spools, without: Sequence[Rows] = ()) -> Rows:
        """The numbers, ascending, but for those in the arrays ``without``."""
        spool = spools.new()
        bits = np.frombuffer(self._bits, np.uint8)
        for start in range(0, self._entries, CHUNK_ENTRIES):
            end = min(start + CHUNK_ENTRIES, self._entries)
            inside = np.unpackbits(bits[start // 8 : -(-end // 8)], count=end - start, bitorder="little").view(np.bool_)
            rows = np.flatnonzero(inside & ~dead_chunk(without, start, end)) + start
            spool.append(bytes_of(rows.astype(np.uint32)))
        found: Rows = spool.map(np.uint32)
        spool.close()
        return found
