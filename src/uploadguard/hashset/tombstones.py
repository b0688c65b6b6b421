"""Entries that were taken back: which of a segment's are dead, and how a delta finds those that it ends."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uploadguard.hashset.ids import Rows, contains
from uploadguard.hashset.segment import Segment

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["Delta", "dead_mask", "dead_rows", "is_dead"]


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


def dead_mask(segment: Segment, dead: Sequence[Rows]) -> npt.NDArray[np.bool_]:
    """Whether each entry of ``segment`` is dead. Takes a byte an entry."""
    mask = np.zeros(segment.metadata.entries, np.bool_)
    for rows in dead:
        mask[rows[rows < len(mask)]] = True
    return mask


class Delta:
    """A change of some of a list's entries, while it is written: which entries its segment ends.

    Holds the ids that it adds (about 150 bytes each), and 4 bytes for each entry that it ends.
    """

    def __init__(self, segments: Sequence[Segment], segment_id: str) -> None:
        """``segments`` are the list's, ``segment_id`` that of the one to be written."""
        self._segments = segments
        self._dead = dead_rows(segments)
        self._ended = [array("I") for _ in segments]
        self.segment_id = segment_id
        self._added: dict[str, int] = {}
        self._superseded = array("I")

    @property
    def added(self) -> int:
        """How many entries it adds."""
        return len(self._added)

    def remove(self, entry_ids: Iterable[str]) -> None:
        """End the entries of these ids; ids that the list does not hold are no error."""
        for entry_id in entry_ids:
            self._end(entry_id)

    def add(self, entries: Iterable[ListEntry]) -> Iterator[ListEntry]:
        """Pass on the entries to write. Each ends those of its id, one passed on before included."""
        written = 0
        for entry in entries:
            if isinstance(entry.entry_id, str):  # of others the writer says what is wrong
                self._end(entry.entry_id)
            earlier = self._added.pop(entry.entry_id, None)
            if earlier is not None:
                self._superseded.append(earlier)
            if entry.hashes:  # without one it could not be matched, and is not written
                self._added[entry.entry_id] = written
                written += 1
                yield entry

    @property
    def removed(self) -> int:
        """How many entries, other than its own, it ends."""
        return sum(len(rows) for segment_id, rows in self.tombstones().items() if segment_id != self.segment_id)

    def tombstones(self) -> dict[str, Rows]:
        """The entries to end, ascending, by segment; only those that were alive."""
        found: dict[str, Rows] = {}
        for segment, ended, dead in zip(self._segments, self._ended, self._dead, strict=True):
            rows = np.unique(np.frombuffer(ended, np.uint32))
            found[segment.metadata.segment_id] = rows[~is_dead(dead, rows)]
        found[self.segment_id] = np.unique(np.frombuffer(self._superseded, np.uint32))
        return {segment_id: rows for segment_id, rows in found.items() if len(rows)}

    def count_hashes(self, segment_id: str, rows: Rows) -> dict[str, int]:
        """How many hashes these entries of one of the list's segments have, by signal type."""
        found = next(segment for segment in self._segments if segment.metadata.segment_id == segment_id)
        return found.count_hashes(rows)

    def _end(self, entry_id: str) -> None:
        for segment, ended in zip(self._segments, self._ended, strict=True):
            ended.extend(segment.find_entries(entry_id))
