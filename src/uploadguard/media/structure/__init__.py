"""What a file is made of besides its pixels, read from headers alone and within limits, before any decoder sees it.

One module for each format; :func:`read_structure` is the only name that others need.
"""

from __future__ import annotations

from collections.abc import Callable

from uploadguard.media.structure.base import Embedded, Structure, Tally
from uploadguard.media.structure.bmff import read_bmff
from uploadguard.media.structure.bmp import read_bmp
from uploadguard.media.structure.gif import read_gif
from uploadguard.media.structure.jpeg import read_jpeg
from uploadguard.media.structure.png import read_png
from uploadguard.media.structure.riff import read_webp
from uploadguard.media.structure.tiff import read_tiff

__all__ = ["Embedded", "Structure", "Tally", "read_structure"]

_READERS: dict[str, Callable[[memoryview, Tally], Structure]] = {
    "image/jpeg": read_jpeg,
    "image/png": read_png,
    "image/gif": read_gif,
    "image/webp": read_webp,
    "image/avif": read_bmff,
    "image/heic": read_bmff,
    "image/heif": read_bmff,
    "image/tiff": read_tiff,
    "image/bmp": read_bmp,
}


def read_structure(data: memoryview, media_type: str, tally: Tally) -> Structure:
    """Walk through a file's segments, chunks, boxes or directories; ``data`` is a flat view of all of it.

    Raises :class:`~uploadguard.media.base.TooComplexError` where a limit is exceeded, and nothing else: what cannot be
    followed is left to the decoder to judge. A media type without a reader has an empty structure.
    """
    reader = _READERS.get(media_type)
    return reader(data, tally) if reader is not None else Structure()
