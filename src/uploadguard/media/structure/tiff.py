"""TIFF: its directories, those inside others too."""

from __future__ import annotations

import contextlib
import struct

from uploadguard.media.structure.base import Structure, Tally
from uploadguard.models import FailureCode

__all__ = ["read_tiff"]

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_STRIP_TABLES = frozenset({273, 279, 324, 325})
_SAMPLES_PER_PIXEL, _SUB_DIRECTORIES, _ICC = 277, 330, 34675
_MORE_DIRECTORIES = frozenset({330, 34665, 34853, 40965})
_MAX_SUB_DIRECTORIES = 64


def read_tiff(data: memoryview, tally: Tally) -> Structure:
    """Follow the chain of directories and what they point to; strips and tiles are not touched."""
    found = Structure()
    reader = _Reader(data, tally, found)
    with contextlib.suppress(struct.error):
        reader.chain(reader.link(reader.first_link), depth=1)
    return found


class _Reader:
    def __init__(self, data: memoryview, tally: Tally, found: Structure) -> None:
        self._data, self._tally, self._found = data, tally, found
        self._order = "<" if bytes(data[:2]) == b"II" else ">"
        self._big = bytes(data[2:4]) in (b"+\0", b"\0+")
        self._word, self._count, self._entry_bytes = ("Q", "Q", 20) if self._big else ("I", "H", 12)
        self.first_link = 8 if self._big else 4
        self._seen: set[int] = set()
        self._pages = 0

    def link(self, at: int) -> int:
        """The offset that is stored at ``at``."""
        (value,) = struct.unpack_from(self._order + self._word, self._data, at)
        return int(value)

    def chain(self, at: int, depth: int) -> None:
        """Read the directory at ``at`` and all that are chained to it."""
        while at and at < len(self._data) and at not in self._seen:
            self._tally.depth(depth)
            self._seen.add(at)
            if depth == 1:
                self._pages += 1
                self._tally.frames(self._pages)
            at = self._directory(at, depth)

    def _directory(self, at: int, depth: int) -> int:
        """Read one directory. Returns the next one's offset."""
        (entries,) = struct.unpack_from(self._order + self._count, self._data, at)
        at += struct.calcsize(self._order + self._count)
        self._tally.metadata(0, parts=1 + entries)
        for index in range(entries):
            self._entry(at + index * self._entry_bytes, depth)
        return self.link(at + entries * self._entry_bytes)

    def _entry(self, at: int, depth: int) -> None:
        tag, kind, count = struct.unpack_from(f"{self._order}HH{self._word}", self._data, at)
        width = _TYPE_BYTES.get(kind, 1)
        size, value_at = width * count, at + (12 if self._big else 8)
        if size > (8 if self._big else 4):
            value_at = self.link(value_at)
        if tag not in _STRIP_TABLES:
            self._tally.metadata(min(size, len(self._data)), parts=0)
            if size > 64:
                self._found.metadata.append((value_at, value_at + size))
        if tag == _SAMPLES_PER_PIXEL and width == 2:
            (bands,) = struct.unpack_from(f"{self._order}H", self._data, value_at)
            self._tally.bands(bands)
        elif tag == _ICC and not self._found.icc:
            self._found.icc = bytes(self._data[value_at : value_at + size])
        elif tag in _MORE_DIRECTORIES and width in {4, 8}:
            if tag == _SUB_DIRECTORIES and depth == 1:
                self._found.trouble(FailureCode.PICTURES_UNHASHED, "the file holds pictures inside its pages")
            letter = "I" if width == 4 else "Q"
            for index in range(min(count, _MAX_SUB_DIRECTORIES)):
                (below,) = struct.unpack_from(self._order + letter, self._data, value_at + width * index)
                self.chain(below, depth + 1)
