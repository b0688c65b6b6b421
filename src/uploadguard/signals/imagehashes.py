"""pHash, dHash and wHash of the imagehash package, as optional 64-bit signal types (extra ``imagehash``).

They are computed by that package on the same canonical pixels as PDQ. They are weaker than PDQ: use them only for
lists that hold nothing else.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import numpy as np

from uploadguard.errors import ConfigError
from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelHash, parse_hex

__all__ = ["IMAGE_HASHES", "ImageHashSignal"]

IMAGE_HASHES = ("phash", "dhash", "whash")

_LENGTH_BYTES = 8

_FLAT_SPAN = 8
"""Below this span of sample values, of 255, the hash is of noise."""


class ImageHashSignal:
    """One of the imagehash package's 64-bit hashes. ``max_distance_bits`` defaults to 6 of 64."""

    length_bytes = _LENGTH_BYTES
    max_distance_bits = 6
    min_quality = 1
    pixels: Literal["luma", "rgb"] = "luma"

    def __init__(self, name: str) -> None:
        if name not in IMAGE_HASHES:
            raise ValueError(f"not a hash of the imagehash package: {name!r}")
        self.name = name

    def require_package(self) -> None:
        """Raise :class:`~uploadguard.errors.ConfigError` where the package is missing. Lists can be read without it."""
        if importlib.util.find_spec("imagehash") is None:
            raise ConfigError(
                f"signal type {self.name!r} needs the imagehash package: pip install 'uploadguard[imagehash]'"
            )

    def parse(self, text: str) -> bytes:
        """16 hex digits, in either case, to 8 bytes. Raises ``ValueError``."""
        return parse_hex(text, _LENGTH_BYTES)

    def format(self, value: bytes) -> str:
        """The hash as the imagehash package prints it."""
        return value.hex()

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        """Hash one frame. The quality is 0 where it is as good as flat, so that blank pictures match nothing."""
        import imagehash
        from PIL import Image

        quality = 100 if int(np.ptp(pixels.array)) >= _FLAT_SPAN else 0
        function = getattr(imagehash, self.name)
        bits = function(Image.fromarray(pixels.array)).hash
        return PixelHash(np.packbits(bits.reshape(-1)).tobytes(), quality)
