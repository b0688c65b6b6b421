"""The ids that an index keeps beside its rows, and rows of entries by their ids."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ENTRY_KEY_BYTES", "MAX_IDS", "Rows", "check_ids", "contains", "entry_key", "read_ids"]

MAX_IDS = 2**32
"""Ids are uint32."""

Rows = npt.NDArray[np.uint32]
"""Numbers of entries in a segment."""

ENTRY_KEY_BYTES = 8
"""The length of what entries are found by; whoever looks one up compares the whole id."""


def entry_key(entry_id: str) -> bytes:
    """What an entry of that id is found by."""
    return blake2b(entry_id.encode("utf-8", "surrogatepass"), digest_size=ENTRY_KEY_BYTES).digest()


def contains(ascending: Rows, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` are among those in ``ascending``."""
    if not len(ascending):
        return np.zeros(len(rows), np.bool_)
    places = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == rows
    return found


def check_ids(ids: npt.NDArray[np.uint32] | None, rows: int) -> npt.NDArray[np.uint32] | None:
    """``ids`` as they came; raises ``ValueError`` unless they are None or uint32 (rows,)."""
    if rows >= MAX_IDS:
        raise ValueError(f"{rows} rows are more than uint32 ids can number")
    if ids is not None and (ids.shape != (rows,) or ids.dtype.newbyteorder("=") != np.uint32):
        raise ValueError(f"ids must be uint32 ({rows},), not {ids.dtype} {ids.shape}")
    return ids


def read_ids(section: memoryview) -> npt.NDArray[np.uint32]:
    """The ids in a stored section of little-endian uint32. Raises ``ValueError`` if its length is not a multiple."""
    return np.frombuffer(section, "<u4")
