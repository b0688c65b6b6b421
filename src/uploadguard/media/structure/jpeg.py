"""JPEG: segments up to the end-of-image marker. Scans are skipped by their markers, never decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from uploadguard._native import _kernel
from uploadguard.media.base import TooComplexError
from uploadguard.media.structure.base import Embedded, Structure, Tally
from uploadguard.media.structure.exif import thumbnail
from uploadguard.models import FailureCode

__all__ = ["DAMAGED", "MAX_SCANS", "jpeg_end", "read_jpeg"]

MAX_SCANS = 100
"""Encoders write about ten. Each costs a pass over the whole picture, so thousands of empty ones are an attack."""

DAMAGED = "the file is damaged inside"
_SENT_TWICE = "the file holds a component twice: decoders differ in which one they show"

_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_METADATA = frozenset({0xFE, *range(0xE0, 0xF0)})

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BLOCK_SIDE = 8

_PHOTOSHOP = b"Photoshop 3.0\0"
_THUMBNAIL_RESOURCES = frozenset({0x0409, 0x040C})
_THUMBNAIL_HEADER_BYTES = 28


def read_jpeg(data: memoryview, tally: Tally) -> Structure:
    """Follow the file to its end-of-image marker."""
    return _Reader(data, tally).read()


def jpeg_end(data: memoryview, start: int, tally: Tally) -> int | None:
    """Where the JPEG that begins at ``start`` ends; None where it does not."""
    end = _Reader(data[start:], tally).read().end
    return start + end if end is not None else None


@dataclass(slots=True)
class _Frame:
    progressive: bool
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]
    begun: set[int] = field(default_factory=set)

    def units(self, components: bytes) -> int:
        """The number of MCUs in a scan of these components."""
        across, down = (max(pair[axis] for pair in self.sampling.values()) for axis in (0, 1))
        if len(components) == 1:  # a scan of one component goes by its own blocks
            mine = self.sampling.get(components[0], (1, 1))
            width, height = -(-self.width * mine[0] // across), -(-self.height * mine[1] // down)
            across = down = 1
        else:
            width, height = self.width, self.height
        return -(-width // (_BLOCK_SIDE * across)) * -(-height // (_BLOCK_SIDE * down))


class _Reader:
    def __init__(self, data: memoryview, tally: Tally) -> None:
        self._data = data
        self._tally = tally
        self._found = Structure()
        self._frame: _Frame | None = None
        self._restart_interval = 0
        self._scans = 0
        self._profile: dict[int, memoryview] = {}

    def read(self) -> Structure:
        data, at = self._data, 2
        while (match := _MARKER.search(data, at)) is not None:
            at, marker = match.end(), data[match.end() - 1]
            if marker == _EOI:
                self._found.end = at
                break
            if marker in _BARE:
                continue
            length = int.from_bytes(data[at : at + 2], "big")
            stop = at + max(length, 2)
            if marker == _SOI or stop > len(data):
                break
            self._segment(marker, at + 2, stop)
            at = self._scan(stop, bytes(data[at + 2 : stop])) if marker == _SOS else stop
        self._found.icc = b"".join(self._profile[number] for number in sorted(self._profile))
        return self._found

    def _segment(self, marker: int, start: int, stop: int) -> None:
        data, found = self._data, self._found
        self._tally.metadata(stop - start if marker in _METADATA else 0)
        if marker in _FRAMES:
            self._begin_frame(marker, data[start:stop])
        elif marker == _DRI and stop - start >= 2:
            self._restart_interval = int.from_bytes(data[start : start + 2], "big")
        elif marker not in _METADATA:
            return
        found.metadata.append((start, stop))
        head = bytes(data[start : start + 14])
        if marker == _APP0 and head.startswith(b"JFXX\0\x10"):
            found.embedded.append(Embedded("thumbnail", start + 6, stop))
        elif marker == _APP1 and head.startswith(b"Exif\0\0") and found.exif is None:
            found.exif = (start + 6, stop)
            found.embedded += thumbnail(data, start + 6, stop, self._tally)
        elif marker == _APP2 and head.startswith(b"ICC_PROFILE\0") and stop - start > 14:
            self._profile.setdefault(head[12], data[start + 14 : stop])
        elif marker == _APP13 and head == _PHOTOSHOP:
            self._photoshop(start + 14, stop)

    def _photoshop(self, at: int, stop: int) -> None:
        """Image resource blocks: signature, id, a padded name, a padded body."""
        data = self._data
        while at + 12 < stop and bytes(data[at : at + 4]) == b"8BIM":
            self._tally.metadata(0)
            kind = int.from_bytes(data[at + 4 : at + 6], "big")
            at += 6 + (data[at + 6] + 2) // 2 * 2
            size = int.from_bytes(data[at : min(at + 4, stop)], "big")
            at += 4
            if kind in _THUMBNAIL_RESOURCES and _THUMBNAIL_HEADER_BYTES < size <= stop - at:
                self._found.embedded.append(Embedded("thumbnail", at + _THUMBNAIL_HEADER_BYTES, at + size))
            at += size + size % 2

    def _begin_frame(self, marker: int, segment: memoryview) -> None:
        if self._frame is not None:
            self._found.trouble(FailureCode.SHOWN_OTHERWISE, "the file holds two frames: decoders differ in which")
            return
        if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
            return
        self._tally.bands(segment[5])
        sampling = {
            segment[at]: (max(1, segment[at + 1] >> 4), max(1, segment[at + 1] & 15))
            for at in range(6, 6 + 3 * segment[5], 3)
        }
        height, width = (int.from_bytes(segment[at : at + 2], "big") for at in (1, 3))
        if sampling:
            self._frame = _Frame(marker in _PROGRESSIVE, width, height, sampling)

    def _scan(self, start: int, header: bytes) -> int:
        """Where the entropy-coded data that begins at ``start`` ends; checks its restart markers on the way."""
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise TooComplexError(f"more than {MAX_SCANS} scans")
        frame = self._frame
        count = header[0] if header else 0
        expected: int | None = None
        if frame is not None and len(header) == 4 + 2 * count:
            components, first, before = header[1 : 1 + 2 * count : 2], header[1 + 2 * count], header[3 + 2 * count] >> 4
            if not frame.progressive or (first == 0 and before == 0):
                if not frame.begun.isdisjoint(components):
                    self._found.trouble(FailureCode.SHOWN_OTHERWISE, _SENT_TWICE)
                frame.begun.update(components)
            if self._restart_interval:
                expected = -(-frame.units(components) // self._restart_interval) - 1
        end, restarts, in_order = _kernel.jpeg_scan_end(self._data, start)
        if expected is not None and end < len(self._data) and (restarts < expected or not in_order):
            self._found.trouble(FailureCode.TRUNCATED, DAMAGED)
        return end
