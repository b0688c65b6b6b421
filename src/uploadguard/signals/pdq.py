"""PDQ, Meta's perceptual hash of photographs: 256 bits with a quality.

The hash is bit-identical to the reference's wherever the pixels are the same (mode ``exact``). In mode ``auto`` a JPEG
is decoded to luma only, and at a half or a quarter where it is large, with the filter's geometry always that of the
full picture; docs/performance.md has the drift. Source of the algorithm: "The TMK+PDQF Video-Hashing Algorithm and the
PDQ Image-Hashing Algorithm", Facebook, 2019. The field matches at 31 bits or less, and not below quality 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from uploadguard._native import _kernel
from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelHash, parse_hex

__all__ = ["VARIANTS", "Pdq"]

VARIANTS = ("original", "rot90", "rot180", "rot270", "flip_x", "flip_y", "flip_plus1", "flip_minus1")
"""The kernel's order, named as the reference does: quarter turns counter-clockwise, ``flip_x`` top to bottom,
``flip_y`` left to right, and flips along the two diagonals."""

_LENGTH_BYTES = 32

_MANY_CLOSE = 8
"""Coefficients so close to the median that luma in place of colour may turn their bits; about half of them do."""


class Pdq:
    """PDQ as a signal type.

    ``mode`` is ``auto`` or ``exact``, see above. ``min_quality`` (0 to 100): a hash below it is not matched.
    ``variants``: whether the seven mirrored and turned forms are hashed too; they cost next to nothing to compute.
    """

    name = "pdq"
    length_bytes = _LENGTH_BYTES
    max_distance_bits = 31

    def __init__(
        self, *, mode: Literal["auto", "exact"] = "auto", min_quality: int = 50, variants: bool = True
    ) -> None:
        self.pixels: Literal["luma", "rgb"] = "rgb" if mode == "exact" else "luma"
        self.min_quality = min_quality
        self._variants = variants

    def parse(self, text: str) -> bytes:
        """Hex of the reference, in either case, to 32 bytes. Raises ``ValueError``."""
        return parse_hex(text, _LENGTH_BYTES)

    def format(self, value: bytes) -> str:
        """The hash in the reference's hex, lower case."""
        return value.hex()

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        """Hash one frame. Below 5 pixels a side: all zero, quality 0."""
        height, width = pixels.array.shape[:2]
        packed, quality, _, close = _kernel.pdq_hash(
            pixels.array.data,
            width,
            height,
            1 if pixels.is_luma else 3,
            full_width=pixels.full_width,
            full_height=pixels.full_height,
            scale=pixels.scale,
            bit_exact=pixels.scale == 1 and not pixels.approximate,
        )
        variants: Mapping[str, bytes] = MappingProxyType({})
        if self._variants:
            variants = MappingProxyType(
                {
                    name: packed[index * _LENGTH_BYTES : (index + 1) * _LENGTH_BYTES]
                    for index, name in enumerate(VARIANTS)
                    if index > 0
                }
            )
        return PixelHash(packed[:_LENGTH_BYTES], quality, variants, unsure=close > _MANY_CLOSE)
