"""The ids that an index keeps beside its rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_IDS", "check_ids", "read_ids"]

MAX_IDS = 2**32
"""Ids are uint32."""


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
