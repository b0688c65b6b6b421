"""AVIF and HEIC: ISO base media boxes, as far as they tell how a picture is shown."""

from __future__ import annotations

import re
import struct

from uploadguard.media.structure.base import Structure, Tally
from uploadguard.models import FailureCode

__all__ = ["read_bmff"]

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
"""Boxes that hold boxes, with the bytes before the first of these."""

_KIND = re.compile(rb"[ -~]{4}")
_PIXELS = frozenset({b"mdat", b"idat", b"free", b"skip"})
_MAX_APERTURES = 4


def read_bmff(data: memoryview, tally: Tally) -> Structure:
    """Walk the boxes. ``free`` and ``skip`` count as pixels: nobody reads them."""
    found = Structure()
    kinds: set[bytes] = set()
    found.end = _boxes(data, 0, len(data), 1, tally, found, kinds)
    if bytes(data[8:12]) == b"avif" and {b"meta", b"moov"} <= kinds:
        found.trouble(FailureCode.SHOWN_OTHERWISE, "the file holds a still picture and an animation")
    return found


def _boxes(
    data: memoryview, at: int, stop: int, depth: int, tally: Tally, found: Structure, kinds: set[bytes]
) -> int | None:
    """Read the boxes from ``at`` to ``stop``. Returns where the last whole one ends."""
    tally.depth(depth)
    while at + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= stop:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            start = at + 16
        elif size == 0:
            size = stop - at
        if size < start - at or at + size > stop or _KIND.fullmatch(kind) is None:
            break
        end = at + size
        kinds.add(kind)
        if kind in _CONTAINERS:
            tally.metadata(0)
            _boxes(data, start + _CONTAINERS[kind], end, depth + 1, tally, found, kinds)
        elif kind not in _PIXELS:
            tally.metadata(end - start)
            found.metadata.append((start, end))
            _property(kind, data[start:end], found)
        at = end
    return at


def _property(kind: bytes, body: memoryview, found: Structure) -> None:
    if kind == b"colr" and bytes(body[:4]) in (b"prof", b"rICC") and not found.icc:
        found.icc = bytes(body[4:])
    elif kind == b"colr" and bytes(body[:4]) == b"nclx" and len(body) >= 8:
        found.transfer = int.from_bytes(body[6:8], "big")
    elif kind == b"clap" and len(body) == 32 and len(found.clean_apertures) < _MAX_APERTURES:
        found.clean_apertures.append(_aperture(body, found))


def _aperture(body: memoryview, found: Structure) -> tuple[int, int, int, int]:
    """Width, height, and the centre's offset from that of the picture, each a fraction; resolved when it is known."""
    numbers = struct.unpack(">IIIIiIiI", body)
    pairs = [(numbers[at], numbers[at + 1]) for at in range(0, 8, 2)]
    if any(below == 0 for _, below in pairs):
        found.trouble(FailureCode.SHOWN_OTHERWISE, "the file cuts its picture to a size that cannot be read")
        return (0, 0, 0, 0)
    width, height, across, down = (above / below for above, below in pairs)
    return (round(width), round(height), round(across * 2), round(down * 2))
