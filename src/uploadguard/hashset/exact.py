"""Exact look-up: every stored record equal to a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.ids import check_ids, read_ids

__all__ = ["MAX_RECORD_BYTES", "ExactIndex", "sorted_order"]

MAX_RECORD_BYTES = 64
"""The longest record that the kernel compares."""

Records = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]


class ExactIndex:
    """Sorted records of one length (1 to 64 bytes) with an id each.

    Immutable and safe to share between threads. The constructor wraps the arrays it is given, a memory map's too,
    without copying; records that are not sorted are not found, but do no harm.
    """

    __slots__ = ("_buffer", "_ids", "_records")

    def __init__(self, records: Records, ids: Ids | None = None) -> None:
        """``records`` is C-contiguous uint8 (n, length), sorted; ``ids`` is (n,), by default the row numbers."""
        if records.ndim != 2 or not 1 <= records.shape[1] <= MAX_RECORD_BYTES or records.dtype != np.uint8:
            raise ValueError(f"records must be uint8 (n, 1 to 64), not {records.dtype} {records.shape}")
        if not records.flags.c_contiguous:
            raise ValueError("records must be C-contiguous; build() copies")
        self._records = records
        self._buffer = records.data
        self._ids = check_ids(ids, len(records))

    @classmethod
    def build(cls, records: Records, ids: Ids | None = None) -> ExactIndex:
        """Sort ``records``, uint8 (n, length) in any order and with duplicates; equal ones are ordered by id."""
        ids = np.arange(len(records), dtype=np.uint32) if ids is None else ids
        order = sorted_order(records, ids)
        return cls(np.ascontiguousarray(records[order]), ids[order])

    @classmethod
    def from_sections(cls, sections: Mapping[str, memoryview], length_bytes: int) -> ExactIndex:
        """Wrap what :meth:`sections` gave, without copying. Raises ``ValueError`` or ``KeyError`` if it cannot be."""
        records = np.frombuffer(sections["records"], np.uint8).reshape(-1, length_bytes)
        return cls(records, read_ids(sections["ids"]))

    def sections(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store, by name, little-endian."""
        return {"records": self._records, "ids": self.ids.astype("<u4", copy=False)}

    @property
    def ids(self) -> Ids:
        """The id of each record, (n,)."""
        return np.arange(len(self), dtype=np.uint32) if self._ids is None else self._ids

    @property
    def length_bytes(self) -> int:
        """The length of each record."""
        return int(self._records.shape[1])

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"ExactIndex(rows={len(self)}, length_bytes={self.length_bytes})"

    def query(self, key: bytes) -> Ids:
        """The ids of all records equal to ``key``, ascending where :meth:`build` sorted them."""
        low, high = _kernel.exact_find(self._buffer, self.length_bytes, key)
        return self._ids_of(low, high)

    def query_batch(self, keys: Records) -> tuple[Ids, Ids]:
        """:meth:`query` for each row of ``keys``, uint8 (q, length): key row numbers and ids of all hits."""
        if keys.ndim != 2 or keys.shape[1] != self.length_bytes or keys.dtype != np.uint8:
            raise ValueError(f"keys must be uint8 (q, {self.length_bytes}), not {keys.dtype} {keys.shape}")
        packed = _kernel.exact_find_many(self._buffer, self.length_bytes, np.ascontiguousarray(keys).data)
        low, high = np.frombuffer(packed, np.uint64).reshape(-1, 2).T.astype(np.int64)
        counts = high - low
        queries = np.repeat(np.arange(len(keys), dtype=np.uint32), counts)
        # Within each key's run of hits the rows count up from its low.
        rows = np.arange(len(queries)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        ids = rows.astype(np.uint32) if self._ids is None else self._ids[rows].astype(np.uint32, copy=False)
        return queries, ids

    def _ids_of(self, low: int, high: int) -> Ids:
        if self._ids is None:
            return np.arange(low, high, dtype=np.uint32)
        return self._ids[low:high].astype(np.uint32, copy=False)


def sorted_order(records: Records, ids: Ids) -> npt.NDArray[np.intp]:
    """The order of ``records`` as memcmp sorts, then of ``ids``.

    Sorts by the first eight bytes as numbers, which tells digests apart, and only what ties there by all bytes.
    """
    prefixes = _words(records[:, :8])[0]
    order = np.argsort(prefixes)
    ordered = prefixes[order]
    equal = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
    if len(tied):
        rows = order[tied]
        keys = [ids[rows].astype(np.uint64), *reversed(_words(records[rows]))]
        order[tied] = rows[np.lexsort(keys)]
    return order


def _words(records: Records) -> list[npt.NDArray[np.uint64]]:
    """The columns of ``records`` as big-endian words of eight bytes, padded with zeros, in native order."""
    length = records.shape[1]
    padded = np.zeros((len(records), -(-length // 8) * 8), np.uint8)
    padded[:, :length] = records
    return [column.astype(np.uint64) for column in padded.view(">u8").T]
