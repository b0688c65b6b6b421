"""The block mean hash: 64 bits that say which parts of a picture are brighter than its middle tone.

Small and easy to follow, and weaker than PDQ: it stands here to show what a signal type is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelHash, parse_hex

__all__ = ["BlockMean"]

_BLOCKS = 8
_LUMA = np.array([0.299, 0.587, 0.114])


class BlockMean:
    """Means over 8 x 8 equal blocks of the picture, in rows from the top left; a bit is 1 above their median.

    The first block is the most significant bit. The quality is the standard deviation of the means, of 255 levels, in
    per cent of 40 levels: 0 for a flat picture.
    """

    name = "blockmean"
    length_bytes = _BLOCKS * _BLOCKS // 8
    max_distance_bits = 5
    min_quality = 20
    pixels: Literal["luma", "rgb"] = "luma"

    def parse(self, text: str) -> bytes:
        """16 hex digits, in either case, to 8 bytes. Raises ``ValueError``."""
        return parse_hex(text, self.length_bytes)

    def format(self, value: bytes) -> str:
        """16 hex digits in lower case."""
        return value.hex()

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        """Hash one frame."""
        means = _block_means(pixels.array)
        bits = means > np.median(means)
        quality = min(100, int(means.std() * 100 / 40))
        return PixelHash(np.packbits(bits).tobytes(), quality)


def _block_means(array: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean luma of each block, shape (8, 8). Where a side has fewer than 8 px, blocks share pixels."""
    rows, columns = (np.arange(_BLOCKS + 1) * side // _BLOCKS for side in array.shape[:2])
    sums = np.add.reduceat(array, rows[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    luma = sums if sums.ndim == 2 else sums @ _LUMA
    area = np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))
    means: NDArray[np.float64] = luma / area
    return means
