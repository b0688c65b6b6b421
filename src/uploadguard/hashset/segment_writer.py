"""Writes a segment: entries as they come, then the indexes over their hashes."""

from __future__ import annotations

import io
import json
import secrets
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uploadguard.errors import EmptyListError, HashSetError, ListFormatError
from uploadguard.hashset.exact import MAX_RECORD_BYTES, ExactIndex
from uploadguard.hashset.files import Output
from uploadguard.hashset.hamming import CODE_LENGTHS_BYTES, HammingIndex
from uploadguard.hashset.ids import ENTRY_KEY_BYTES, MAX_IDS, Rows, contains, entry_key
from uploadguard.hashset.metadata import (
    IndexKind,
    Role,
    SegmentMetadata,
    SignalInfo,
    Tombstones,
    check_list_name,
    check_signal_name,
)
from uploadguard.hashset.sections import SectionWriter

if TYPE_CHECKING:
    from uploadguard.hashset.tombstones import Delta
    from uploadguard.lists.base import ListEntry

__all__ = [
    "Column",
    "Progress",
    "SignalTypes",
    "build_segment",
    "bytes_of",
    "finish_segment",
    "kind_of",
    "new_segment_id",
    "write_entry_ids",
    "write_segment",
]

SignalTypes = Mapping[str, tuple[int, int]]
"""length_bytes and max_distance_bits by signal type. A limit of 0 asks for exact look-up, above 0 for Hamming."""

Progress = Callable[[int], None]
"""Told now and then, and at the end, how many entries were written."""

_PROGRESS_ENTRIES = 10_000
_CHUNK_BYTES = 1 << 20

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Column:
    """The hashes of one signal type: uint8 (n, length) in any order, and the number of each one's entry, (n,)."""

    name: str
    kind: IndexKind
    values: npt.NDArray[np.uint8]
    entries: Rows


class _Collected:
    """The hashes of one signal type while they are collected: packed values, and the number of each one's entry."""

    def __init__(self, name: str, length_bytes: int, max_distance_bits: int) -> None:
        check_signal_name(name)
        self.kind = kind_of(max_distance_bits)
        supported = CODE_LENGTHS_BYTES if self.kind == "hamming" else range(1, MAX_RECORD_BYTES + 1)
        if max_distance_bits < 0 or length_bytes not in supported:
            raise ValueError(
                f"signal type {name!r}: no look-up for {length_bytes} bytes within {max_distance_bits} bits; "
                f"exact look-up takes 1 to {MAX_RECORD_BYTES} bytes, Hamming look-up 8 or 32"
            )
        self.name = name
        self.length_bytes = length_bytes
        self.values = bytearray()
        self.entries = array("I")

    def take(self) -> Column:
        """What was collected; lets go of it."""
        values = np.frombuffer(self.values, np.uint8).reshape(-1, self.length_bytes)
        entries = np.frombuffer(self.entries, np.uint32)
        self.values, self.entries = bytearray(), array("I")
        return Column(self.name, self.kind, values, entries)


def kind_of(max_distance_bits: int) -> IndexKind:
    """How hashes are stored that are looked up within that limit."""
    return "hamming" if max_distance_bits > 0 else "exact"


def write_segment(
    output: Output,
    entries: Iterable[ListEntry],
    signal_types: SignalTypes,
    *,
    list_name: str,
    role: Role = "deny",
    source: str = "",
    delta: Delta | None = None,
    progress: Progress | None = None,
) -> SegmentMetadata:
    """Write one segment of all ``entries`` to ``output``, which stands at its start and is empty.

    Entries without a hash are left out: nothing could match them. ``delta`` gives the segment its tombstones, once it
    has seen all entries. Holds the hashes in memory (their own bytes and 4 each, twice while they are sorted) and 16
    bytes an entry, not the entries.

    Raises :class:`EmptyListError` if there was no hash, and no tombstone, at all and :class:`ListFormatError` for a
    hash of a signal type or length that ``signal_types`` does not give, and for fields that are not JSON.
    """
    check_list_name(list_name)
    columns = {name: _Collected(name, *shape) for name, shape in signal_types.items()}
    writer = SectionWriter(output)
    offsets, keys = _write_entries(writer, delta.add(entries) if delta is not None else entries, columns, progress)
    count = len(offsets) - 1
    tombstones = delta.tombstones() if delta is not None else {}
    if count == 0 and not tombstones:
        raise EmptyListError("no entry with a hash; nothing was imported. Check the file and its format")
    now = datetime.now(UTC).replace(microsecond=0)
    metadata = SegmentMetadata(
        segment_id=delta.segment_id if delta is not None else new_segment_id(),
        list_name=list_name,
        role=role,
        source=source.encode(errors="replace").decode(),  # a file's name need not be valid text
        added_at=now,
        updated_at=now,
        entries=count,
        signals={},
    )
    writer.write("entries/offsets", bytes_of(np.frombuffer(offsets, np.uint64).astype("<u8", copy=False)))
    del offsets
    write_entry_ids(writer, np.frombuffer(keys, np.uint8).reshape(-1, ENTRY_KEY_BYTES), None)
    del keys
    taken = (column.take() for column in columns.values() if column.entries)
    metadata = finish_segment(writer, metadata, taken, tombstones, delta.count_hashes if delta is not None else None)
    if progress is not None:
        progress(count)
    return metadata


def new_segment_id() -> str:
    """A name for a segment that no other has."""
    return secrets.token_hex(8)


def write_entry_ids(writer: SectionWriter, keys: npt.NDArray[np.uint8], entries: Rows | None) -> None:
    """Write what finds entries by their ids: uint8 (n, 8), and the number of each one's entry if not its own."""
    for part, values in ExactIndex.build(keys, entries).sections().items():
        writer.write(f"entries/ids/{part}", bytes_of(values))


def finish_segment(
    writer: SectionWriter,
    metadata: SegmentMetadata,
    columns: Iterable[Column],
    tombstones: Mapping[str, Rows],
    count_hashes: Callable[[str, Rows], Mapping[str, int]] | None = None,
) -> SegmentMetadata:
    """Write indexes, tombstones and metadata. Takes one column at a time, and holds no other.

    ``tombstones`` are the rows, ascending, by segment; ``count_hashes`` tells how many hashes those of another segment
    have. Returns ``metadata`` with signals and tombstones.
    """
    own = tombstones.get(metadata.segment_id, np.empty(0, np.uint32))
    own_hashes: dict[str, int] = {}
    signals: dict[str, SignalInfo] = {}
    for column in columns:
        length_bytes = column.values.shape[1]
        signals[column.name] = SignalInfo(kind=column.kind, length_bytes=length_bytes, count=len(column.entries))
        ended = int(contains(own, column.entries).sum()) if len(own) else 0
        if ended:
            own_hashes[column.name] = ended
        _write_hash_counts(writer, column, metadata.entries)
        index = (HammingIndex if column.kind == "hamming" else ExactIndex).build(column.values, column.entries)
        prefix = f"signals/{column.name}/"
        del column
        for part, values in index.sections().items():
            writer.write(prefix + part, bytes_of(values))
        del index
    records = []
    for segment_id, rows in tombstones.items():
        writer.write(f"tombstones/{segment_id}", bytes_of(rows.astype("<u4", copy=False)))
        hashes = own_hashes if rows is own or count_hashes is None else dict(count_hashes(segment_id, rows))
        records.append(Tombstones(segment_id=segment_id, entries=len(rows), hashes=hashes))
    metadata = metadata.model_copy(update={"signals": signals, "tombstones": tuple(records)})
    writer.write("metadata", memoryview(metadata.model_dump_json().encode()))
    writer.finish()
    return metadata


def _write_hash_counts(writer: SectionWriter, column: Column, entries: int) -> None:
    """Write how many hashes each entry has, unless each has one."""
    counts = np.bincount(column.entries, minlength=entries)
    if bool((counts != 1).any()):
        width = np.min_scalar_type(int(counts.max())).newbyteorder("<")
        writer.write(f"entries/hashes/{column.name}", bytes_of(counts.astype(width)))


def build_segment(entries: Iterable[ListEntry], signal_types: SignalTypes, **options: Any) -> bytes:
    """A segment in memory, for :meth:`~uploadguard.hashset.segment.Segment.from_buffer`; see :func:`write_segment`."""
    output = io.BytesIO()
    write_segment(output, entries, signal_types, **options)
    return output.getvalue()


def bytes_of(values: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array, copied only if it is not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _write_entries(
    writer: SectionWriter,
    entries: Iterable[ListEntry],
    columns: Mapping[str, _Collected],
    progress: Progress | None,
) -> tuple[array[int], bytearray]:
    """Write the entries' JSON and fill the columns.

    Returns where each begins, and the end of the last, and the keys of their ids.
    """
    offsets = array("Q", [0])
    keys = bytearray()
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
        keys += entry_key(entry.entry_id)
        offsets.append(written + len(chunk))
        if len(chunk) >= _CHUNK_BYTES:
            writer.append(chunk)
            written += len(chunk)
            chunk = bytearray()
        if progress is not None and len(offsets) % _PROGRESS_ENTRIES == 1:
            progress(len(offsets) - 1)
    writer.append(chunk)
    writer.end("entries/json")
    return offsets, keys


def _add_hashes(entry: ListEntry, number: int, columns: Mapping[str, _Collected]) -> None:
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
        column.entries.append(number)


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
