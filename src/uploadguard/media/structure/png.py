"""PNG: its chunks up to IEND."""

from __future__ import annotations

import zlib

from uploadguard.media.structure.base import Structure, Tally
from uploadguard.media.structure.exif import thumbnail
from uploadguard.models import FailureCode

__all__ = ["read_png"]

_PIXELS = frozenset({b"IDAT", b"fdAT"})
_STANDARD_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_MAX_CHROMATICITY_SHIFT = 30_000
"""Of 100,000: what lies between sRGB's primaries and those of the widest real colour spaces."""

_MAX_CHUNKS = 1_000_000
_ODD_ANIMATION = "the animation's chunks do not agree; viewers show one part of it or another"


class _Animation:
    """Follows what the chunks of an animation say. Where they disagree it is up to the viewer what is shown."""

    def __init__(self) -> None:
        self._promised = 0
        self._frames = 0
        self._has_still = self._still_over = False
        self._is_odd = False

    def chunk(self, kind: bytes, body: memoryview) -> None:
        """Take in the next chunk."""
        if kind == b"acTL":
            self._is_odd |= self._has_still
            self._promised = int.from_bytes(body[:4], "big")
        elif kind == b"fcTL":
            self._frames += 1
        elif kind == b"fdAT":
            self._is_odd |= not self._has_still or not self._frames
        elif kind == b"IDAT":
            self._is_odd |= self._still_over and self._frames > 0
            self._has_still = True
            return
        self._still_over = self._has_still

    @property
    def is_odd(self) -> bool:
        """Whether viewers may differ; for after the last chunk. Fewer frames than promised fail to decode anyway."""
        return self._is_odd or self._frames > self._promised


def read_png(data: memoryview, tally: Tally) -> Structure:
    """Read every chunk's header; text and profiles are unpacked no further than the limits go."""
    found = Structure()
    at = 8
    standard = False
    animation = _Animation()
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        size = int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        start, stop = at + 8, at + 8 + size
        if kind == b"IEND":
            found.end = stop + 4
            break
        if stop + 4 > len(data):
            break
        animation.chunk(kind, data[start:stop])
        if kind not in _PIXELS:
            tally.metadata(size)
            found.metadata.append((start, stop))
            body = data[start:stop]
            if kind == b"iCCP" and not found.icc:
                found.icc = _unpacked(body, _text_end(body) + 2, tally)
            elif kind == b"zTXt":
                _unpacked(body, _text_end(body) + 2, tally)
            elif kind == b"iTXt":
                _international_text(body, tally)
            elif kind == b"eXIf" and found.exif is None:
                found.exif = (start, stop)
                found.embedded += thumbnail(data, start, stop, tally)
            elif kind == b"sRGB":
                standard = True
            elif kind == b"gAMA" and size == 4:
                found.gamma = int.from_bytes(body, "big") / 100_000
            elif kind == b"cICP" and size == 4:
                found.transfer = body[1]
            elif kind == b"cHRM" and size == 32:
                _judge_chromaticities(body, found)
        at = stop + 4
    if standard or found.icc:  # both go before gAMA and cHRM
        found.gamma = None
        found.troubles.pop(FailureCode.SHOWN_OTHERWISE, None)
    if animation.is_odd:
        found.trouble(FailureCode.SHOWN_OTHERWISE, _ODD_ANIMATION)
    return found


def _text_end(body: memoryview) -> int:
    """Where the null behind the keyword stands; the standard allows 79 bytes before it."""
    return bytes(body[:80]).find(b"\0") if len(body) else -1


def _international_text(body: memoryview, tally: Tally) -> None:
    end = _text_end(body)
    if end < 0 or len(body) < end + 3 or body[end + 1] != 1:
        return
    rest = bytes(body[end + 3 : end + 3 + 4096])
    language = rest.find(b"\0")
    keyword = rest.find(b"\0", language + 1)
    if language >= 0 and keyword >= 0:
        _unpacked(body, end + 3 + keyword + 1, tally)


def _unpacked(body: memoryview, start: int, tally: Tally) -> bytes:
    """What a packed part holds, empty where it is damaged; counted as metadata before more of it is unpacked."""
    try:
        text = zlib.decompressobj().decompress(body[start:], max(1, tally.bytes_left + 1))
    except zlib.error:
        return b""
    tally.metadata(len(text), parts=0)
    return text


def _judge_chromaticities(body: memoryview, found: Structure) -> None:
    values = [int.from_bytes(body[at : at + 4], "big") for at in range(0, 32, 4)]
    shift = max(abs(value - usual) for value, usual in zip(values, _STANDARD_CHROMATICITIES, strict=True))
    if shift > _MAX_CHROMATICITY_SHIFT:
        found.trouble(FailureCode.SHOWN_OTHERWISE, "the file names colours of light that no display has")
