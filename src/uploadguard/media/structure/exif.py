"""EXIF blocks and TIFF directories: limits, and the thumbnail of a photo."""

from __future__ import annotations

import struct

from uploadguard.media.structure.base import Embedded, Tally

__all__ = ["thumbnail"]

_JPEG_START, _JPEG_BYTES = 0x0201, 0x0202
_MAX_ENTRIES = 1024


def thumbnail(data: memoryview, start: int, stop: int, tally: Tally) -> list[Embedded]:
    """The JPEG thumbnail that the second directory of an EXIF block points to, if it has one."""
    block = data[start:stop]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        return []
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, first)
        (second,) = struct.unpack_from(f"{order}I", block, first + 2 + 12 * entries)
        if not second:
            return []
        (entries,) = struct.unpack_from(f"{order}H", block, second)
        tally.metadata(0, parts=entries)
        values = {}
        for index in range(min(entries, _MAX_ENTRIES)):
            tag, _, _, value = struct.unpack_from(f"{order}HHII", block, second + 2 + 12 * index)
            values[tag] = value
    except struct.error:
        return []
    at, size = values.get(_JPEG_START, 0), values.get(_JPEG_BYTES, 0)
    if not at or not size or at >= len(block):
        return []
    return [Embedded("thumbnail", start + at, min(start + at + size, stop))]
