"""Sorts more records than memory should hold: runs are sorted as they fill, and merged when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.exact import sorted_order
from uploadguard.hashset.ids import Rows
from uploadguard.hashset.spool import PART_BYTES, Spools, bytes_of

__all__ = ["Part", "SortedRuns"]

Part = tuple[npt.NDArray[np.uint8], Rows]
"""Records, uint8 (n, length), and the id of each, (n,)."""

_SORTING_BYTES = 1 << 26
_LEAST_RUN_ROWS = 4096
_ROW_BYTES = 32
"""What sorting takes for each record besides its own bytes, about."""


class SortedRuns:
    """Records of one length (1 to 64 bytes) with an id each, in any order; :meth:`merged` has them by (record, id)."""

    def __init__(self, length_bytes: int, spools: Spools, sharing: int = 1) -> None:
        """``sharing`` is how many of them are filled at once: together they take about 64 MiB."""
        self._length_bytes = length_bytes
        self._records = spools.new()
        self._ids = spools.new()
        self._waiting: list[Part] = []
        self._waiting_rows = 0
        self._run_rows = max(_LEAST_RUN_ROWS, _SORTING_BYTES // sharing // (2 * length_bytes + _ROW_BYTES))
        self._ends: list[int] = []

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else 0) + self._waiting_rows

    def add(self, records: npt.NDArray[np.uint8], ids: Rows) -> None:
        """Take records in any order, fewer than a million at a time."""
        self._waiting.append((records, ids))
        self._waiting_rows += len(ids)
        if self._waiting_rows >= self._run_rows:
            self._sort()

    def add_run(self, parts: Iterable[Part]) -> None:
        """Take records that come by (record, id)."""
        self._sort()
        before = rows = len(self)
        for records, ids in parts:
            rows += self._append(records, ids)
        if rows > before:
            self._ends.append(rows)

    def merged(self) -> Iterator[Part]:
        """All records by (record, id), a part at a time. To be called once, and when all are there.

        The arrays of a part are used again for the next.
        """
        self._sort()
        records, ids = self._records.map(np.uint8), self._ids.map(np.uint32)
        runs = np.array(list(zip([0, *self._ends], self._ends, strict=False)), np.uint64)
        room = max(1, PART_BYTES // self._length_bytes)
        part, part_ids = np.empty((room, self._length_bytes), np.uint8), np.empty(room, np.uint32)
        while taken := _kernel.exact_merge(
            records.data, self._length_bytes, ids.data, runs.data, part.data, part_ids.data
        ):
            yield part[:taken], part_ids[:taken]

    def _sort(self) -> None:
        """Make a run of what is waiting."""
        if not self._waiting_rows:
            return
        end = len(self)
        records = np.concatenate([records for records, _ in self._waiting])
        ids = np.concatenate([ids for _, ids in self._waiting])
        self._waiting, self._waiting_rows = [], 0
        order = sorted_order(records, ids)
        self._append(records[order], ids[order])
        self._ends.append(end)

    def _append(self, records: npt.NDArray[np.uint8], ids: Rows) -> int:
        self._records.append(bytes_of(records))
        self._ids.append(bytes_of(ids.astype(np.uint32, copy=False)))
        return len(ids)
