"""Writes a segment: entries as they come, then the indexes over their hashes."""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uploadguard.errors import EmptyListError, HashSetError, ListFormatError
from uploadguard.hashset.exact import MAX_RECORD_BYTES, ExactIndex
from uploadguard.hashset.files import Output
from uploadguard.hashset.hamming import CODE_LENGTHS_BYTES, HammingIndex
from uploadguard.hashset.ids import MAX_IDS
from uploadguard.hashset.layout import BODY_OFFSET, Header, Section, align, pack_table
from uploadguard.hashset.metadata import (
    IndexKind,
    Role,
    SegmentMetadata,
    SignalInfo,
    check_list_name,
    check_signal_name,
)

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["Progress", "SignalTypes", "build_segment", "write_segment"]

SignalTypes = Mapping[str, tuple[int, int]]
"""length_bytes and max_distance_bits by signal type. A limit of 0 asks for exact look-up, above 0 for Hamming."""

Progress = Callable[[int], None]
"""Told now and then, and at the end, how many entries were written."""

_PROGRESS_ENTRIES = 10_000
_CHUNK_BYTES = 1 << 20

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _SectionWriter:
    """Writes sections one behind the other and keeps their table."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0
        self._sections: list[Section] = []
        self._pad_to(BODY_OFFSET)

    def write(self, name: str, data: memoryview) -> None:
        self._pad_to(align(self._position, len(data)))
        self.begin()
        self.append(data)
        self.end(name)

    def begin(self) -> None:
        self._start = self._position
        self._digest = hashlib.sha256()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._digest.update(data)
        self._output.write(data)
        self._position += len(data)

    def end(self, name: str) -> None:
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


class _SignalColumn:
    """The hashes of one signal type while they are collected: packed values, and the number of each one's entry."""

    def __init__(self, name: str, length_bytes: int, max_distance_bits: int) -> None:
        check_signal_name(name)
        self.kind: IndexKind = "hamming" if max_distance_bits > 0 else "exact"
        supported = CODE_LENGTHS_BYTES if self.kind == "hamming" else range(1, MAX_RECORD_BYTES + 1)
        if max_distance_bits < 0 or length_bytes not in supported:
            raise ValueError(
                f"signal type {name!r}: no look-up for {length_bytes} bytes within {max_distance_bits} bits; "
                f"exact look-up takes 1 to {MAX_RECORD_BYTES} bytes, Hamming look-up 8 or 32"
            )
        self.name = name
        self.length_bytes = length_bytes
        self.values = bytearray()
        self.ids = array("I")

    @property
    def info(self) -> SignalInfo:
        return SignalInfo(kind=self.kind, length_bytes=self.length_bytes, count=len(self.ids))

    def build(self) -> ExactIndex | HammingIndex:
        """The index over the hashes; lets go of them."""
        values = np.frombuffer(self.values, np.uint8).reshape(-1, self.length_bytes)
        ids = np.frombuffer(self.ids, np.uint32)
        self.values, self.ids = bytearray(), array("I")
        return HammingIndex.build(values, ids) if self.kind == "hamming" else ExactIndex.build(values, ids)


def write_segment(
    output: Output,
    entries: Iterable[ListEntry],
    signal_types: SignalTypes,
    *,
    list_name: str,
    role: Role = "deny",
    source: str = "",
    progress: Progress | None = None,
) -> SegmentMetadata:
    """Write one segment of all ``entries`` to ``output``, which stands at its start and is empty.

    Entries without a hash are left out: nothing could match them. Holds the hashes in memory (their own bytes and 4
    each, twice while they are sorted), not the entries.

    Raises :class:`EmptyListError` if there was no hash at all and :class:`ListFormatError` for a hash of a signal type
    or length that ``signal_types`` does not give, and for fields that are not JSON.
    """
    check_list_name(list_name)
    columns = {name: _SignalColumn(name, *shape) for name, shape in signal_types.items()}
    writer = _SectionWriter(output)
    offsets = _write_entries(writer, entries, columns, progress)
    count = len(offsets) - 1
    if count == 0:
        raise EmptyListError("no entry with a hash; nothing was imported. Check the file and its format")
    writer.write("entries/offsets", _bytes_of(np.frombuffer(offsets, np.uint64).astype("<u8", copy=False)))
    filled = [column for column in columns.values() if column.ids]
    metadata = SegmentMetadata(
        list_name=list_name,
        role=role,
        source=source.encode(errors="replace").decode(),  # a file's name need not be valid text
        added_at=datetime.now(UTC).replace(microsecond=0),
        entries=count,
        signals={column.name: column.info for column in filled},
    )
    for column in filled:
        for part, values in column.build().sections().items():
            writer.write(f"signals/{column.name}/{part}", _bytes_of(values))
    writer.write("metadata", memoryview(metadata.model_dump_json().encode()))
    writer.finish()
    if progress is not None:
        progress(count)
    return metadata


def build_segment(entries: Iterable[ListEntry], signal_types: SignalTypes, **options: Any) -> bytes:
    """A segment in memory, for :meth:`~uploadguard.hashset.segment.Segment.from_buffer`; see :func:`write_segment`."""
    output = io.BytesIO()
    write_segment(output, entries, signal_types, **options)
    return output.getvalue()


def _bytes_of(values: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _write_entries(
    writer: _SectionWriter,
    entries: Iterable[ListEntry],
    columns: Mapping[str, _SignalColumn],
    progress: Progress | None,
) -> array[int]:
    """Write the entries' JSON and fill the columns. Returns where each begins, and the end of the last."""
    offsets = array("Q", [0])
    chunk = bytearray()
    written = 0
    writer.begin()
    for entry in entries:
        if not entry.hashes:
            continue
        number = len(offsets) - 1
        if number == MAX_IDS - 1:
            raise HashSetError(f"a list of more than {MAX_IDS - 1} entries; split it")
        _add_hashes(entry, number, columns)
        chunk += _encode_entry(entry)
        offsets.append(written + len(chunk))
        if len(chunk) >= _CHUNK_BYTES:
            writer.append(chunk)
            written += len(chunk)
            chunk = bytearray()
        if progress is not None and len(offsets) % _PROGRESS_ENTRIES == 1:
            progress(len(offsets) - 1)
    writer.append(chunk)
    writer.end("entries/json")
    return offsets


def _add_hashes(entry: ListEntry, number: int, columns: Mapping[str, _SignalColumn]) -> None:
    for name, value in entry.hashes:
        column = columns.get(name)
        if column is None:
            raise ListFormatError(
                f"a hash of signal type {name!r}, which is not among those to import", line=entry.line
            )
        if len(value) != column.length_bytes:
            raise ListFormatError(
                f"a {name} hash of {len(value)} bytes in place of {column.length_bytes}", line=entry.line
            )
        column.values += value
        column.ids.append(number)


def _encode_entry(entry: ListEntry) -> bytes:
    if not (isinstance(entry.entry_id, str) and isinstance(entry.category, str | None)):
        raise ListFormatError("an entry whose id or category is not text", line=entry.line)
    # Encoding the whole as one object would take most of an import's time.
    category = "null" if entry.category is None else encode_basestring_ascii(entry.category)
    try:
        fields = _encode(dict(entry.fields)) if entry.fields else "{}"
    except (TypeError, ValueError, RecursionError):
        raise ListFormatError("an entry with fields that are not JSON", line=entry.line) from None
    text = f'{{"id":{encode_basestring_ascii(entry.entry_id)},"category":{category},"fields":{fields}}}'
    return text.encode("ascii")
