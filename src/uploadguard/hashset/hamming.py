"""Hamming look-up: every stored code within a distance of a query, without exception.

Small sets are scanned. Large ones have tables for multi-index hashing (the kernel's ``mih.h`` has the source), which
find the same rows without reading most codes; where a limit is so wide, or the codes so alike, that the tables would
be slower, the codes are scanned all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.ids import check_ids, read_ids
from uploadguard.hashset.spool import Spools, bytes_of, parts_of
from uploadguard.hashset.tables import (
    LINE_BYTES,
    Tables,
    build_tables,
    count_line_rows,
    room_on_lines,
    stream_tables,
    tables_bytes,
)

__all__ = ["CODE_LENGTHS_BYTES", "HammingIndex"]

CODE_LENGTHS_BYTES = (8, 32)
"""The lengths of codes that the kernel compares."""

_SCANNED_ROWS = 4096
"""So many take a scan a few microseconds, and tables would only take room."""

_DESIGN_LIMIT_BITS = {8: 7, 32: 31}
"""The limit that the tables are made for, by length of code; they serve any other too."""

_TABLE_BYTES = {8: 60, 32: 94}
"""What the tables may take for each row of a large set, by length of code."""

_SMALL_TABLE_BYTES, _SMALL_SET_BYTES = 200, 192 << 20
"""What they may take for each row as long as all tables together stay small."""

# Measured nanoseconds; only their ratios matter, to choose between ways that give the same answer.
_LINE_NS, _CANDIDATE_NS = 22.0, 15.0
_SCAN_ROW_NS, _SCAN_FURTHER_QUERY_NS = 1.2, 0.2

_OVERFLOW_COST = 3
"""How much slower a query is where all lines overflow, as a part of what it takes."""

_INLINE_ROWS = 14
"""What one line of a table holds; the kernel's ``mih.h`` has the layout."""

Codes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Distances = npt.NDArray[np.uint16]


class HammingIndex:
    """Codes of 8 or 32 bytes with an id each, searched by distance.

    Immutable and safe to share between threads. The constructor wraps the arrays it is given, a memory map's too,
    without copying. Everything outside uses :meth:`build`, :meth:`sections`, :meth:`from_sections` and the queries
    only, so how codes are stored and searched can change behind these.
    """

    __slots__ = ("_buffer", "_codes", "_ids", "_tables")

    def __init__(self, codes: Codes, ids: Ids | None = None, tables: Tables | None = None) -> None:
        """``codes`` is C-contiguous uint8 (n, 8) or (n, 32); ``ids`` is (n,), by default the row numbers.

        ``tables`` are as :meth:`build` makes them; without them queries scan.
        """
        if codes.ndim != 2 or codes.shape[1] not in CODE_LENGTHS_BYTES or codes.dtype != np.uint8:
            raise ValueError(f"codes must be uint8 (n, 8) or (n, 32), not {codes.dtype} {codes.shape}")
        if not codes.flags.c_contiguous:
            raise ValueError("codes must be C-contiguous; build() copies where it has to")
        self._codes = codes
        self._buffer = codes.data
        self._ids = check_ids(ids, len(codes))
        self._tables = tables
        if tables is not None:
            _cost_ns(*codes.shape, tables.count, tables.line_bits, 0)
            if len(tables.lines) * 4 != tables_bytes(tables.count, tables.line_bits):
                raise ValueError("the tables do not fit the codes")

    @classmethod
    def build(cls, codes: Codes, ids: Ids | None = None) -> HammingIndex:
        """Prepare ``codes``, uint8 (n, 8) or (n, 32) of any layout, for look-up. Large sets take all CPUs."""
        index = cls(np.ascontiguousarray(codes), ids)
        shape = _choose_tables(len(index), index.length_bytes)
        if shape is None:
            return index
        index = cls(_on_lines(index._codes), ids)
        index._tables = build_tables(index._codes, *shape)
        return index

    @classmethod
    def from_sections(cls, sections: Mapping[str, memoryview], length_bytes: int) -> HammingIndex:
        """Wrap what :meth:`sections` gave, without copying. Raises ``ValueError`` or ``KeyError`` if it cannot be."""
        codes = np.frombuffer(sections["codes"], np.uint8).reshape(-1, length_bytes)
        tables = None
        if "table_shape" in sections:
            layout, count, line_bits = np.frombuffer(sections["table_shape"], "<u4").tolist()
            if layout != _kernel.MIH_LAYOUT:
                raise ValueError(f"tables of layout {layout}; this version reads {_kernel.MIH_LAYOUT}")
            lines, overflow = (np.frombuffer(sections[name], "<u4") for name in ("table_lines", "table_overflow"))
            tables = Tables(count, line_bits, lines, overflow)
        return cls(codes, read_ids(sections["ids"]), tables)

    def sections(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store, by name, little-endian."""
        found: dict[str, npt.NDArray[Any]] = {"codes": self._codes, "ids": self.ids.astype("<u4", copy=False)}
        if self._tables is not None:
            found["table_shape"] = np.array([_kernel.MIH_LAYOUT, self._tables.count, self._tables.line_bits], "<u4")
            found["table_lines"] = self._tables.lines.astype("<u4", copy=False)
            found["table_overflow"] = self._tables.overflow.astype("<u4", copy=False)
        return found

    @staticmethod
    def stream_sections(codes: Codes, ids: Ids, spools: Spools) -> Iterator[tuple[str, int, Iterable[memoryview]]]:
        """What ``build(codes, ids).sections()`` gives, each as name, length in bytes and parts, in the same order.

        For more than memory should hold: ``codes`` and ``ids`` may be mapped, and of the tables a few blocks are there
        at a time. The parts of a section are to be taken before the next is asked for.
        """
        yield "codes", codes.nbytes, parts_of(codes)
        yield "ids", ids.nbytes, parts_of(ids.astype("<u4", copy=False))
        shape = _choose_tables(*codes.shape)
        if shape is None:
            return
        yield "table_shape", 12, parts_of(np.array([_kernel.MIH_LAYOUT, *shape], "<u4"))
        overflow = spools.new()
        lines = stream_tables(codes, *shape, spools, lambda words: overflow.append(bytes_of(words)))
        yield "table_lines", tables_bytes(*shape), (bytes_of(block.astype("<u4", copy=False)) for block in lines)
        words = overflow.map(np.uint32).astype("<u4", copy=False)
        yield "table_overflow", words.nbytes, parts_of(words)

    @staticmethod
    def size_bytes(rows: int, length_bytes: int) -> int:
        """What :meth:`sections` take for that many codes, but for the overflow."""
        shape = _choose_tables(rows, length_bytes)
        return rows * (length_bytes + 4) + (tables_bytes(*shape) if shape is not None else 0)

    def lines(self) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]]:
        """How many rows each line of the tables has, and whether that is more than it holds, many lines at a time.

        Nothing where there are no tables. Raises ``ValueError`` for damaged ones.
        """
        return iter(()) if self._tables is None else count_line_rows(self._tables, self.length_bytes)

    def save(self, directory: Path) -> None:
        """Write the index into a directory of its own, made with mode 0700: one .npy file for each array.

        For an index of one's own; the hash set keeps its indexes in segments, with checksums. Raises ``OSError``.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, values in self.sections().items():
            np.save(directory / f"{name}.npy", values, allow_pickle=False)

    @classmethod
    def open(cls, directory: Path) -> HammingIndex:
        """Map what :meth:`save` wrote, without reading it. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
        arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in directory.glob("*.npy")}
        length_bytes = int(arrays["codes"].shape[1])
        return cls.from_sections({name: values.reshape(-1).data for name, values in arrays.items()}, length_bytes)

    @property
    def codes(self) -> Codes:
        """The codes, uint8 (n, length)."""
        return self._codes

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
        found = self._scan(np.ascontiguousarray(codes), max_distance_bits)
        if not found:
            return np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.uint16)
        queries, rows, distances_bits = np.frombuffer(found, np.uint32).reshape(-1, 3).T
        ids = rows if self._ids is None else self._ids[rows].astype(np.uint32, copy=False)
        order = np.lexsort((ids, distances_bits, queries))
        return queries[order], ids[order], distances_bits[order].astype(np.uint16)

    def _scan(self, codes: Codes, max_distance_bits: int) -> bytes:
        """All hits in any order, by the way that is likely faster: query number, row and distance of each, uint32."""
        rows, length_bytes = self._codes.shape
        tables = self._tables
        if tables is not None:
            scan_ns = rows * (_SCAN_ROW_NS + _SCAN_FURTHER_QUERY_NS * (len(codes) - 1))
            if len(codes) * _cost_ns(rows, length_bytes, tables.count, tables.line_bits, max_distance_bits) < scan_ns:
                found = _kernel.mih_query(
                    self._buffer,
                    length_bytes,
                    tables.count,
                    tables.line_bits,
                    tables.lines.data,
                    tables.overflow.data,
                    codes.data,
                    max_distance_bits,
                    int(scan_ns / _CANDIDATE_NS),
                )
                if found is not None:
                    return found
        return _kernel.hamming_scan(self._buffer, length_bytes, codes.data, max_distance_bits)


@lru_cache(maxsize=4096)
def _cost_ns(rows: int, length_bytes: int, tables: int, line_bits: int, max_distance_bits: int) -> float:
    """What one query by way of the tables takes, about. Raises ``ValueError`` where no such tables can be."""
    lines, candidates = _kernel.mih_cost(rows, length_bytes, tables, line_bits, max_distance_bits)
    return lines * _LINE_NS + candidates * _CANDIDATE_NS


def _overflowing(rows_per_line: float) -> tuple[float, float]:
    """The share of lines that overflow, and the rows they hold for each line there is, if rows fall at random."""
    term, inside, rows_inside = math.exp(-rows_per_line), 0.0, 0.0
    for count in range(_INLINE_ROWS + 1):
        inside += term
        rows_inside += term * count
        term *= rows_per_line / (count + 1)
    return max(0.0, 1.0 - inside), max(0.0, rows_per_line - rows_inside)


def _choose_tables(rows: int, length_bytes: int) -> tuple[int, int] | None:
    """How many tables, and how many line bits, make queries at the design limit fastest in the room there is.

    None: a scan is faster.
    """
    if rows <= _SCANNED_ROWS:
        return None
    best, best_ns = None, rows * _SCAN_ROW_NS
    room = max(_TABLE_BYTES[length_bytes] * rows, min(_SMALL_TABLE_BYTES * rows, _SMALL_SET_BYTES))
    for tables in range(3, 33):
        for line_bits in range(8, 27):
            share, rows_over = _overflowing(rows / (1 << line_bits))
            table_bytes = (LINE_BYTES + 4 * rows_over + 4 * 16 * share) * (1 << line_bits)
            if tables * table_bytes > room:
                continue
            try:
                cost_ns = _cost_ns(rows, length_bytes, tables, line_bits, _DESIGN_LIMIT_BITS[length_bytes])
            except ValueError:
                continue
            cost_ns *= 1 + _OVERFLOW_COST * share
            if cost_ns < best_ns:
                best, best_ns = (tables, line_bits), cost_ns
    return best


def _on_lines(codes: Codes) -> Codes:
    """The codes themselves if they begin on a cache line, as in a segment's map they do; else a copy that does."""
    if codes.ctypes.data % LINE_BYTES == 0:
        return codes
    copy = room_on_lines(codes.nbytes).reshape(codes.shape)
    copy[:] = codes
    return copy
