"""Hamming look-up: every stored code within a distance of a query, without exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.ids import check_ids, read_ids

__all__ = ["CODE_LENGTHS_BYTES", "HammingIndex"]

CODE_LENGTHS_BYTES = (8, 32)
"""The lengths of codes that the kernel compares."""

Codes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Distances = npt.NDArray[np.uint16]


class HammingIndex:
    """Codes of 8 or 32 bytes with an id each, searched by distance.

    Immutable and safe to share between threads. The constructor wraps the arrays it is given, a memory map's too,
    without copying. Everything outside uses :meth:`build`, :meth:`sections`, :meth:`from_sections` and the queries
    only, so how codes are stored and searched can change behind these.
    """

    __slots__ = ("_buffer", "_codes", "_ids")

    def __init__(self, codes: Codes, ids: Ids | None = None) -> None:
        """``codes`` is C-contiguous uint8 (n, 8) or (n, 32); ``ids`` is (n,), by default the row numbers."""
        if codes.ndim != 2 or codes.shape[1] not in CODE_LENGTHS_BYTES or codes.dtype != np.uint8:
            raise ValueError(f"codes must be uint8 (n, 8) or (n, 32), not {codes.dtype} {codes.shape}")
        if not codes.flags.c_contiguous:
            raise ValueError("codes must be C-contiguous; build() copies where it has to")
        self._codes = codes
        self._buffer = codes.data
        self._ids = check_ids(ids, len(codes))

    @classmethod
    def build(cls, codes: Codes, ids: Ids | None = None) -> HammingIndex:
        """Prepare ``codes``, uint8 (n, 8) or (n, 32) of any layout, for look-up."""
        return cls(np.ascontiguousarray(codes), ids)

    @classmethod
    def from_sections(cls, sections: Mapping[str, memoryview], length_bytes: int) -> HammingIndex:
        """Wrap what :meth:`sections` gave, without copying. Raises ``ValueError`` or ``KeyError`` if it cannot be."""
        codes = np.frombuffer(sections["codes"], np.uint8).reshape(-1, length_bytes)
        return cls(codes, read_ids(sections["ids"]))

    def sections(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store, by name, little-endian."""
        return {"codes": self._codes, "ids": self.ids.astype("<u4", copy=False)}

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
        """Query numbers, rows and distances of all hits in any order. What a faster search replaces."""
        packed = _kernel.hamming_scan(self._buffer, self.length_bytes, codes.data, max_distance_bits)
        queries, rows, distances_bits = np.frombuffer(packed, np.uint32).reshape(-1, 3).T
        return queries, rows, distances_bits
