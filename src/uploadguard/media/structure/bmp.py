"""BMP: where its pixels end, and what lies between its header and them."""

from __future__ import annotations

import struct

from uploadguard.media.structure.base import Structure, Tally

__all__ = ["read_bmp"]

_CORE_HEADER_BYTES = 12
_UNPACKED = frozenset({0, 3, 6})


def read_bmp(data: memoryview, tally: Tally) -> Structure:
    """Read the two headers."""
    found = Structure()
    if len(data) < 34:
        return found
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == _CORE_HEADER_BYTES:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = packed_bytes = 0
    else:
        width, height, _, bits, compression, packed_bytes = struct.unpack_from("<iiHHII", data, 18)
    row_bytes = (abs(width) * bits + 31) // 32 * 4
    size = row_bytes * abs(height) if compression in _UNPACKED else packed_bytes
    metadata = (14 + header_bytes, min(pixels_at, len(data)))
    tally.metadata(max(0, metadata[1] - metadata[0]))
    found.metadata.append(metadata)
    if size and pixels_at + size <= len(data):
        found.end = pixels_at + size
    return found
