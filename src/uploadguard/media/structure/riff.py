"""WebP: its RIFF chunks."""

from __future__ import annotations

from uploadguard.media.structure.base import Structure, Tally
from uploadguard.media.structure.exif import thumbnail

__all__ = ["read_webp"]

_PIXELS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})


def read_webp(data: memoryview, tally: Tally) -> Structure:
    """Read every top-level chunk's header."""
    found = Structure()
    end = 8 + int.from_bytes(data[4:8], "little")
    at, frames = 12, 0
    while at + 8 <= min(end, len(data)):
        kind, size = bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8], "little")
        start, stop = at + 8, at + 8 + size
        if stop > len(data):
            return found
        if kind == b"ANMF":
            frames += 1
            tally.frames(frames)
        elif kind not in _PIXELS:
            tally.metadata(size)
            found.metadata.append((start, stop))
            if kind == b"ICCP" and not found.icc:
                found.icc = bytes(data[start:stop])
            elif kind == b"EXIF" and found.exif is None:
                if bytes(data[start : start + 6]) == b"Exif\0\0":
                    start += 6
                found.exif = (start, stop)
                found.embedded += thumbnail(data, start, stop, tally)
        at = stop + size % 2
    if end <= len(data):
        found.end = min(len(data), end + end % 2)
    return found
