"""Writes the sections of a segment, their table and the header."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from uploadguard.hashset.layout import BODY_OFFSET, Header, Section, align, pack_table
from uploadguard.storage.files import Output

__all__ = ["SectionWriter"]


class SectionWriter:
    """Writes sections one behind the other and keeps their table."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0
        self._sections: list[Section] = []
        self._pad_to(BODY_OFFSET)

    def write(self, name: str, data: memoryview) -> None:
        """Write one whole section."""
        self.write_parts(name, len(data), (data,))

    def write_parts(self, name: str, length_bytes: int, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write one whole section of that length as its parts come."""
        self._pad_to(align(self._position, length_bytes))
        self.begin()
        for part in parts:
            self.append(part)
        self.end(name)
        if self._position - self._start != length_bytes:
            raise ValueError(f"section {name!r} has {self._position - self._start} bytes in place of {length_bytes}")

    def begin(self) -> None:
        """Start a section that :meth:`append` fills."""
        self._start = self._position
        self._digest = hashlib.sha256()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next part of the section."""
        self._digest.update(data)
        self._output.write(data)
        self._position += len(data)

    def end(self, name: str) -> None:
        """Note the section."""
        self._sections.append(Section(name, self._start, self._position - self._start, self._digest.digest()))

    def finish(self) -> None:
        """Write the section table, and the header at the start."""
        self._pad_to(align(self._position, 0))
        table = pack_table(self._sections)
        self._output.write(table)
        header = Header(
            file_bytes=self._position + len(table),
            section_count=len(self._sections),
            table_offset=self._position,
            table_checksum=hashlib.sha256(table).digest(),
        )
        self._output.seek(0)
        self._output.write(header.pack())

    def _pad_to(self, offset: int) -> None:
        self._output.write(bytes(offset - self._position))
        self._position = offset
