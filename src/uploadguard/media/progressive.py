"""Leaves out the scans of a progressive JPEG that its luma, at the scale wanted, does not need.

A progressive JPEG sends the picture in passes over all of it, and each costs a decoder about as much as a baseline
file does altogether. For luma the passes that hold chroma alone are of no use. For luma at a quarter or less, neither
are the high frequencies, nor the last bits of the low ones, as long as these bits are worth little in the file's own
quantisation. The averages of all blocks (the DC scans) always stay, in full, and so does whatever the rules below do
not know. What a decoder at full size would clip to black or white is averaged here before it is clipped, as in any
decoding to a smaller size: a file made for it can show another brightness than the one that is hashed.
"""

from __future__ import annotations

import re

__all__ = ["needed_scans"]

_SOI, _EOI, _SOS, _DQT, _SOF2, _APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xC2, 0xEE
_NO_SEGMENT = frozenset({0x00, 0x01, 0xFF, _SOI, *range(0xD0, 0xD8)})

_MAX_SEGMENTS = 10_000

_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In entropy-coded data 0xFF is followed by 0x00 or is a restart marker."""

_LOW_BAND = 6
"""The first five AC coefficients in zigzag order: what is left of a block at a quarter of its size and more."""

_SMALL_STEP = 64
"""What may be left out of a low coefficient, dequantised: at most 11 of 255 at the block's edges."""


def needed_scans(data: memoryview, *, luma: bool, scale: int) -> bytes | None:
    """The file without the scans that are not needed; None to take it as it is.

    ``data`` is a progressive JPEG whose header has been read. None also where anything about it is unusual, it ends
    early for one.
    """
    reader = _Reader(data, scale)
    parts = reader.read()
    if parts is None or not luma or not reader.is_ycc:
        return None
    return b"".join(parts)


class _Reader:
    """Walks through the segments of one file and sorts its scans."""

    def __init__(self, data: memoryview, scale: int) -> None:
        self._data = data
        self._scale = scale
        self._components: tuple[int, ...] = ()
        self._luma_table = 0
        self._low_steps: dict[int, int] = {}
        self._scans = 0
        self.is_ycc = True

    def read(self) -> list[memoryview] | None:
        """What to keep, or None where the file is unusual or nothing can be left out."""
        data, at = self._data, 2
        kept, left_out, segments = [data[:2]], False, 0
        while at + 4 <= len(data) or bytes(data[at:]) == b"\xff\xd9":
            marker = data[at + 1]
            segments += 1
            if data[at] != 0xFF or marker in _NO_SEGMENT or segments > _MAX_SEGMENTS:
                return None
            if marker == _EOI:
                return [*kept, data[at : at + 2]] if left_out else None
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            segment = data[at + 4 : end]
            if len(segment) != end - at - 4:
                return None
            keep: bool | None = True
            if marker == _SOS:
                keep = self._is_needed(segment)
                found = _END_OF_SCAN.search(data, end)
                if keep is None or found is None:
                    return None
                end = found.start()
            elif not self._note(marker, segment):
                return None
            if keep:
                kept.append(data[at:end])
            else:
                left_out = True
            at = end
        return None

    def _note(self, marker: int, segment: memoryview) -> bool:
        """Remember what the rules go by. False for a file that they do not cover."""
        if marker == _SOF2:
            if self._components or len(segment) != 6 + 3 * 3 or segment[5] != 3:
                return False
            self._components = (segment[6], segment[9], segment[12])
            self._luma_table = segment[8]
            self.is_ycc &= self._components == (1, 2, 3)
        elif marker == _DQT:
            return self._scans == 0 and self._note_steps(segment)
        elif marker == _APP14 and bytes(segment[:5]) == b"Adobe":
            self.is_ycc &= len(segment) >= 12 and segment[11] == 1
        return True

    def _note_steps(self, segment: memoryview) -> bool:
        at = 0
        while at < len(segment):
            width = 2 if segment[at] >> 4 else 1
            table = segment[at + 1 : at + 1 + 64 * width]
            if len(table) != 64 * width:
                return False
            steps = [int.from_bytes(table[k * width : (k + 1) * width]) for k in range(1, _LOW_BAND)]
            self._low_steps[segment[at] & 15] = max(steps)
            at += 1 + 64 * width
        return True

    def _is_needed(self, header: memoryview) -> bool | None:
        """Whether the scan must stay; None where its header is unusual."""
        self._scans += 1
        count = header[0] if len(header) else 0
        if not self._components or len(header) != 4 + 2 * count or self._luma_table not in self._low_steps:
            return None
        first, bits_before = header[1 + 2 * count], header[3 + 2 * count] >> 4
        if first == 0:
            return True
        if self._components[0] not in bytes(header[1 : 1 + 2 * count : 2]):
            return False
        if self._scale < 4:
            return True
        if first >= _LOW_BAND:
            return False
        return bits_before == 0 or (self._low_steps[self._luma_table] << bits_before) > _SMALL_STEP
