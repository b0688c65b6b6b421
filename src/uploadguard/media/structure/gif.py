"""GIF: its blocks up to the trailer."""

from __future__ import annotations

from uploadguard.media.structure.base import Structure, Tally

__all__ = ["read_gif"]

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_MAX_BLOCKS = 2_000_000


def read_gif(data: memoryview, tally: Tally) -> Structure:
    """Walk all blocks; their contents are not unpacked. Comments and other extensions are metadata."""
    found = Structure()
    if len(data) < 13:
        return found
    at, size = 13 + _colour_table_bytes(data[10]), len(data)
    frames = blocks = 0
    while at < size and blocks < _MAX_BLOCKS:
        kind, start = data[at], at
        if kind == _TRAILER:
            found.end = at + 1
            break
        if kind == _EXTENSION and at + 2 < size:
            is_metadata = data[at + 1] != _GRAPHIC_CONTROL
            at += 2
        elif kind == _IMAGE and at + 11 <= size:
            is_metadata = False
            frames += 1
            tally.frames(frames)
            at += 11 + _colour_table_bytes(data[at + 9])
        else:
            break
        while at < size and data[at] and blocks < _MAX_BLOCKS:
            at += data[at] + 1
            blocks += 1
        at += 1
        if is_metadata:
            tally.metadata(at - start)
            found.metadata.append((start + 2, min(at, size)))
    return found


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
