"""Hamming look-up: every stored code within a distance of a query, without exception.

Small sets are scanned. Large ones have tables for multi-index hashing (the kernel's ``mih.h`` has the source), which
find the same rows without reading most codes; where a limit is so wide, or the codes so alike, that the tables would
be slower, the codes are scanned all the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.ids import check_ids, read_ids

__all__ = ["CODE_LENGTHS_BYTES", "HammingIndex"]

CODE_LENGTHS_BYTES = (8, 32)
"""The lengths of codes that the kernel compares."""

_DESIGN_LIMIT_BITS = {8: 7, 32: 31}
"""The limit that the number of tables is chosen for, by length of code."""

_TABLE_BYTES = {8: 60, 32: 96}
"""What the tables may take for each row, by length of code."""

# Measured nanoseconds; only their ratios matter, to choose between ways that give the same answer.
_PROBE_NS, _CANDIDATE_NS = 15.0, 18.0
_SCAN_ROW_NS, _SCAN_FURTHER_QUERY_NS = 1.6, 0.5

Codes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Distances = npt.NDArray[np.uint16]


class HammingIndex:
    """Codes of 8 or 32 bytes with an id each, searched by distance.

    Immutable and safe to share between threads. The constructor wraps the arrays it is given, a memory map's too,
    without copying. Everything outside uses :meth:`build`, :meth:`sections`, :meth:`from_sections` and the queries
    only, so how codes are stored and searched can change behind these.
    """

    __slots__ = ("_buffer", "_codes", "_ids", "_offsets", "_row_ids", "_tables")

    def __init__(
        self, codes: Codes, ids: Ids | None = None, offsets: Ids | None = None, row_ids: Ids | None = None
    ) -> None:
        """``codes`` is C-contiguous uint8 (n, 8) or (n, 32); ``ids`` is (n,), by default the row numbers.

        ``offsets`` and ``row_ids`` are the tables, as :meth:`build` makes them; without them queries scan.
        """
        if codes.ndim != 2 or codes.shape[1] not in CODE_LENGTHS_BYTES or codes.dtype != np.uint8:
            raise ValueError(f"codes must be uint8 (n, 8) or (n, 32), not {codes.dtype} {codes.shape}")
        if not codes.flags.c_contiguous:
            raise ValueError("codes must be C-contiguous; build() copies where it has to")
        self._codes = codes
        self._buffer = codes.data
        self._ids = check_ids(ids, len(codes))
        self._offsets, self._row_ids = offsets, row_ids
        self._tables = 0
        if offsets is not None and row_ids is not None and len(codes):
            self._tables, rest = divmod(len(row_ids), len(codes))
            if (
                rest
                or self._tables < 1
                or len(offsets) != _kernel.mih_layout(len(codes), codes.shape[1], self._tables)[-1]
            ):
                raise ValueError("the tables do not fit the codes")

    @classmethod
    def build(cls, codes: Codes, ids: Ids | None = None) -> HammingIndex:
        """Prepare ``codes``, uint8 (n, 8) or (n, 32) of any layout, for look-up. Large sets take all CPUs."""
        codes = np.ascontiguousarray(codes)
        if codes.ndim != 2 or codes.shape[1] not in CODE_LENGTHS_BYTES or codes.dtype != np.uint8:
            return cls(codes, ids)  # which says what is wrong
        tables = _choose_tables(len(codes), codes.shape[1])
        return cls(codes, ids, *_build_tables(codes, tables)) if tables else cls(codes, ids)

    @classmethod
    def from_sections(cls, sections: Mapping[str, memoryview], length_bytes: int) -> HammingIndex:
        """Wrap what :meth:`sections` gave, without copying. Raises ``ValueError`` or ``KeyError`` if it cannot be."""
        codes = np.frombuffer(sections["codes"], np.uint8).reshape(-1, length_bytes)
        tables = [np.frombuffer(sections[name], "<u4") for name in _TABLE_SECTIONS if name in sections]
        if len(tables) == 1:
            raise ValueError("the tables are incomplete")
        return cls(codes, read_ids(sections["ids"]), *tables)

    def sections(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store, by name, little-endian."""
        found: dict[str, npt.NDArray[Any]] = {"codes": self._codes, "ids": self.ids.astype("<u4", copy=False)}
        if self._offsets is not None and self._row_ids is not None:
            tables = (self._offsets, self._row_ids)
            found |= {name: part.astype("<u4", copy=False) for name, part in zip(_TABLE_SECTIONS, tables, strict=True)}
        return found

    @property
    def ids(self) -> Ids:
        """The id of each code, (n,)."""
        return np.arange(len(self), dtype=np.uint32) if self._ids is None else self._ids

    @property
    def length_bytes(self) -> int:
        """The length of each code."""
        return int(self._codes.shape[1])

    def __len__(self) -> int:
        return len(self._codes)

    def __repr__(self) -> str:
        return f"HammingIndex(rows={len(self)}, length_bytes={self.length_bytes})"

    def query(self, code: bytes | Codes, max_distance_bits: int = 31) -> tuple[Ids, Distances]:
        """Ids and distances of all codes at most ``max_distance_bits`` from ``code``, by (distance, id)."""
        codes = np.frombuffer(code, np.uint8) if isinstance(code, bytes) else code
        _, ids, distances_bits = self.query_batch(codes.reshape(1, -1), max_distance_bits)
        return ids, distances_bits

    def query_batch(self, codes: Codes, max_distance_bits: int = 31) -> tuple[Ids, Ids, Distances]:
        """:meth:`query` for each row of ``codes``, uint8 (q, length), in one pass over the index.

        Returns query row numbers, ids and distances of all hits, ordered by (query, distance, id).
        """
        if codes.ndim != 2 or codes.shape[1] != self.length_bytes or codes.dtype != np.uint8:
            raise ValueError(f"queries must be uint8 (q, {self.length_bytes}), not {codes.dtype} {codes.shape}")
        queries, rows, distances_bits = self._scan(np.ascontiguousarray(codes), max_distance_bits)
        ids = rows if self._ids is None else self._ids[rows].astype(np.uint32, copy=False)
        order = np.lexsort((ids, distances_bits, queries))
        return queries[order], ids[order], distances_bits[order].astype(np.uint16)

    def _scan(self, codes: Codes, max_distance_bits: int) -> tuple[Ids, Ids, Ids]:
        """Query numbers, rows and distances of all hits in any order, by the way that is likely the faster."""
        rows, length_bytes = self._codes.shape
        packed: bytes | None = None
        if self._tables and self._offsets is not None and self._row_ids is not None:
            scan_ns = rows * (_SCAN_ROW_NS + _SCAN_FURTHER_QUERY_NS * (len(codes) - 1))
            if len(codes) * _cost_ns(rows, length_bytes, self._tables, max_distance_bits) < scan_ns:
                packed = _kernel.mih_query(
                    self._buffer,
                    length_bytes,
                    self._tables,
                    self._offsets.data,
                    self._row_ids.data,
                    codes.data,
                    max_distance_bits,
                    int(scan_ns / _CANDIDATE_NS),
                )
        if packed is None:
            packed = _kernel.hamming_scan(self._buffer, length_bytes, codes.data, max_distance_bits)
        queries, found_rows, distances_bits = np.frombuffer(packed, np.uint32).reshape(-1, 3).T
        return queries, found_rows, distances_bits


_TABLE_SECTIONS = ("table_offsets", "table_rows")


@lru_cache(maxsize=1024)
def _cost_ns(rows: int, length_bytes: int, tables: int, max_distance_bits: int) -> float:
    """What one query by way of the tables takes, about."""
    probes, candidates = _kernel.mih_cost(rows, length_bytes, tables, max_distance_bits)
    return probes * _PROBE_NS + candidates * _CANDIDATE_NS


def _choose_tables(rows: int, length_bytes: int) -> int:
    """The number of tables that makes queries at the design limit fastest within the room there is; 0: scan."""
    best, best_ns = 0, rows * _SCAN_ROW_NS
    for tables in range(3, 33):
        try:
            offsets = _kernel.mih_layout(rows, length_bytes, tables)[-1]
        except ValueError:
            continue
        if 4 * (tables * rows + offsets) > _TABLE_BYTES[length_bytes] * rows:
            continue
        cost_ns = _cost_ns(rows, length_bytes, tables, _DESIGN_LIMIT_BITS[length_bytes])
        if cost_ns < best_ns:
            best, best_ns = tables, cost_ns
    return best


def _build_tables(codes: Codes, tables: int) -> tuple[Ids, Ids]:
    """Fill the tables, several at once: the kernel lets go of the GIL."""
    rows, length_bytes = codes.shape
    starts = _kernel.mih_layout(rows, length_bytes, tables)
    offsets = np.empty(starts[-1], np.uint32)
    row_ids = np.empty((tables, rows), np.uint32)

    def fill(table: int) -> None:
        part = offsets[starts[table] : starts[table + 1]]
        _kernel.mih_build_table(codes.data, length_bytes, tables, table, part.data, row_ids[table].data)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(tables)))
    return offsets, row_ids.reshape(-1)
