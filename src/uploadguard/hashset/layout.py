"""The binary layout of a segment file, all little-endian.

::

    0       header, 128 bytes: magic, version, size of the file, place and checksum of the section table, own checksum
    4096    sections, each at a multiple of 64 bytes, or of 4096 if it is that long; zeros between them
    end     section table: 128 bytes a section: name, offset, length, checksum

Checksums are SHA-256. The header's checksum covers the table's, which covers those of the sections: it stands for the
whole file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from uploadguard.errors import SegmentError

__all__ = ["BODY_OFFSET", "FORMAT_VERSION", "HEADER_BYTES", "Header", "Section", "align", "pack_table", "unpack_table"]

MAGIC = b"\x89UGS\r\n\x1a\n"  # the line ends show a transfer in text mode
FORMAT_VERSION = 2
BODY_OFFSET = 4096
MAX_SECTIONS = 4096

_HEADER = struct.Struct("<8sIIQQ32s32x")
_CHECKSUM_BYTES = 32
HEADER_BYTES = _HEADER.size + _CHECKSUM_BYTES
_SECTION = struct.Struct("<64sQQ32s16x")
_NAME_BYTES = 64
_ALIGN_BYTES = 64
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Section:
    """One named run of bytes in a segment."""

    name: str
    offset: int
    length: int
    checksum: bytes

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 128 bytes say."""

    file_bytes: int
    section_count: int
    table_offset: int
    table_checksum: bytes

    def pack(self) -> bytes:
        """The header as it stands in the file, with its checksum behind it."""
        body = _HEADER.pack(
            MAGIC, FORMAT_VERSION, self.section_count, self.file_bytes, self.table_offset, self.table_checksum
        )
        return body + hashlib.sha256(body).digest()

    @classmethod
    def unpack(cls, data: bytes, size_bytes: int) -> Header:
        """Read ``data``, the file's first 128 bytes, of a file of ``size_bytes``. Raises :class:`SegmentError`."""
        if len(data) < HEADER_BYTES:
            raise SegmentError(f"holds {size_bytes} bytes, too few for a segment; import the list again")
        body, checksum = data[: _HEADER.size], data[_HEADER.size : HEADER_BYTES]
        magic, version, section_count, file_bytes, table_offset, table_checksum = _HEADER.unpack(body)
        if magic != MAGIC:
            raise SegmentError("is not a segment file; remove it or import the list again")
        if version != FORMAT_VERSION:
            raise SegmentError(
                f"is of format version {version}, and this release reads version {FORMAT_VERSION}; "
                "update uploadguard or import the list again"
            )
        if hashlib.sha256(body).digest() != checksum:
            raise SegmentError("its header is altered; import the list again")
        if file_bytes != size_bytes:
            raise SegmentError(f"holds {size_bytes} bytes in place of {file_bytes}; import the list again")
        if section_count > MAX_SECTIONS or table_offset + section_count * _SECTION.size != file_bytes:
            raise SegmentError("its section table does not fit; import the list again")
        return cls(file_bytes, section_count, table_offset, table_checksum)


def pack_table(sections: Sequence[Section]) -> bytes:
    """The section table as it stands in the file."""
    records = []
    for section in sections:
        name = section.name.encode("ascii")
        if not 0 < len(name) <= _NAME_BYTES:
            raise ValueError(f"a section's name of {len(name)} bytes; use 1 to {_NAME_BYTES}")
        records.append(_SECTION.pack(name, section.offset, section.length, section.checksum))
    return b"".join(records)


def unpack_table(data: bytes, header: Header) -> dict[str, Section]:
    """The sections by name, checked to lie in order, apart and inside the file. Raises :class:`SegmentError`."""
    if hashlib.sha256(data).digest() != header.table_checksum:
        raise SegmentError("its section table is altered; import the list again")
    sections: dict[str, Section] = {}
    end = BODY_OFFSET
    for raw_name, offset, length, checksum in _SECTION.iter_unpack(data):
        name = raw_name.rstrip(b"\0").decode("ascii", "replace")
        section = Section(name, offset, length, checksum)
        if name in sections or offset != align(end, length):
            raise SegmentError("its section table is inconsistent; import the list again")
        sections[name] = section
        end = section.end
    if header.table_offset != align(end, 0):  # so all sections end before it
        raise SegmentError("its section table is inconsistent; import the list again")
    return sections


def align(offset: int, length: int) -> int:
    """Where a section of ``length`` bytes may begin at or after ``offset``."""
    step = _PAGE_BYTES if length >= _PAGE_BYTES else _ALIGN_BYTES
    return -(-offset // step) * step
