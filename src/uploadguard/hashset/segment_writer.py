"""Writes a segment: entries as they come, then the indexes over their hashes.

All that is collected on the way lies in spools. A segment of any size takes about 200 MiB of memory, most of it for
blocks of Hamming tables, if the spools are files.
"""

from __future__ import annotations

import io
import json
import secrets
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

import numpy as np

from uploadguard.errors import EmptyListError, HashSetError, ListFormatError
from uploadguard.hashset.columns import CollectedColumn, Column, write_sorted
from uploadguard.hashset.ids import ENTRY_KEY_BYTES, MAX_IDS, Rows, entry_key
from uploadguard.hashset.metadata import Role, SegmentMetadata, SignalInfo, Tombstones, check_list_name
from uploadguard.hashset.runs import SortedRuns
from uploadguard.hashset.sections import SectionWriter
from uploadguard.hashset.spool import Spool, Spools, bytes_of, parts_of
from uploadguard.storage.files import Output

if TYPE_CHECKING:
    from uploadguard.hashset.tombstones import Delta
    from uploadguard.lists.base import ListEntry

__all__ = [
    "ENTRY_BYTES",
    "Compiling",
    "MeteredOutput",
    "Progress",
    "SignalTypes",
    "build_segment",
    "finish_segment",
    "new_segment_id",
    "write_segment",
]

SignalTypes = Mapping[str, tuple[int, int]]
"""length_bytes and max_distance_bits by signal type. A limit of 0 asks for exact look-up, above 0 for Hamming."""

Progress = Callable[[int], None]
"""Told now and then, and at the end, how many entries were written."""

Compiling = Callable[[int, int], None]
"""Told now and then, and at the end, how many bytes were written, and how many there will be, about."""

ENTRY_BYTES = 8 + ENTRY_KEY_BYTES + 4
"""What each entry takes in a segment besides its JSON and its hashes."""

_PROGRESS_ENTRIES = 10_000
_CHUNK_BYTES = 1 << 20
_FLUSHED_HASHES = 1 << 15

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class MeteredOutput:
    """An :class:`~uploadguard.storage.files.Output` that tells how much was written since :meth:`start`."""

    def __init__(self, output: Output, compiling: Compiling | None) -> None:
        self._output = output
        self._compiling = compiling
        self._done_bytes = self._told_bytes = self._total_bytes = 0

    def start(self, total_bytes: int) -> None:
        """So much will be written from here on, about."""
        self._total_bytes = max(1, total_bytes)
        self._done_bytes = self._told_bytes = 0
        self._tell(0)

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of ``data``."""
        self._output.write(data)
        self._done_bytes += len(data)
        if self._total_bytes and self._done_bytes - self._told_bytes >= _CHUNK_BYTES:
            self._tell(min(self._done_bytes, self._total_bytes - 1))

    def seek(self, offset: int, /) -> None:
        """Go to ``offset`` from the start."""
        self._output.seek(offset)

    def finish(self) -> None:
        """All was written."""
        self._tell(self._total_bytes)

    def _tell(self, done_bytes: int) -> None:
        self._told_bytes = self._done_bytes
        if self._compiling is not None:
            self._compiling(done_bytes, self._total_bytes)


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
    compiling: Compiling | None = None,
    spools: Spools | None = None,
) -> SegmentMetadata:
    """Write one segment of all ``entries`` to ``output``, which stands at its start and is empty.

    Entries without a hash are left out: nothing could match them. ``delta`` gives the segment its tombstones, once it
    has seen all entries. ``spools`` is where hashes are kept until all are there: their own bytes, and 4 to 8 for each
    and 24 for each entry; by default in memory. ``compiling`` follows what is written after the last entry.

    Raises :class:`EmptyListError` if there was no hash, and no tombstone, at all and :class:`ListFormatError` for a
    hash of a signal type or length that ``signal_types`` does not give, and for fields that are not JSON.
    """
    check_list_name(list_name)
    spools = spools if spools is not None else Spools(None)
    sorting = 1 + sum(max_distance_bits == 0 for _, max_distance_bits in signal_types.values())
    columns = {name: CollectedColumn(name, *shape, spools, sorting) for name, shape in signal_types.items()}
    metered = MeteredOutput(output, compiling)
    writer = SectionWriter(metered)
    offsets, keys = spools.new(), SortedRuns(ENTRY_KEY_BYTES, spools, sorting)
    seen = delta.add(entries) if delta is not None else entries
    count = _write_entries(writer, seen, columns, offsets, keys, progress)
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
    filled = [column for column in columns.values() if len(column)]
    metered.start(count * ENTRY_BYTES + sum(column.index_bytes for column in filled))
    writer.write_parts("entries/offsets", offsets.size_bytes, parts_of(offsets.map(np.uint8)))
    write_sorted(writer, "entries/ids/", keys, ENTRY_KEY_BYTES, spools)
    metadata = finish_segment(writer, metadata, filled, tombstones, delta.count_hashes if delta is not None else None)
    metered.finish()
    if progress is not None:
        progress(count)
    return metadata


def new_segment_id() -> str:
    """A name for a segment that no other has."""
    return secrets.token_hex(8)


def finish_segment(
    writer: SectionWriter,
    metadata: SegmentMetadata,
    columns: Iterable[Column],
    tombstones: Mapping[str, Rows],
    count_hashes: Callable[[str, Rows], Mapping[str, int]] | None = None,
) -> SegmentMetadata:
    """Write indexes, tombstones and metadata. Takes one column at a time.

    ``tombstones`` are the rows, ascending, by segment; ``count_hashes`` tells how many hashes those of another segment
    have. Returns ``metadata`` with signals and tombstones.
    """
    own = tombstones.get(metadata.segment_id, np.empty(0, np.uint32))
    own_hashes: dict[str, int] = {}
    signals: dict[str, SignalInfo] = {}
    for column in columns:
        signals[column.name] = SignalInfo(kind=column.kind, length_bytes=column.length_bytes, count=len(column))
        ended = _write_hash_counts(writer, column, metadata.entries, own)
        if ended:
            own_hashes[column.name] = ended
        column.write(writer)
    records = []
    for segment_id, rows in tombstones.items():
        writer.write_parts(f"tombstones/{segment_id}", 4 * len(rows), parts_of(rows.astype("<u4", copy=False)))
        hashes = own_hashes if rows is own or count_hashes is None else dict(count_hashes(segment_id, rows))
        records.append(Tombstones(segment_id=segment_id, entries=len(rows), hashes=hashes))
    metadata = metadata.model_copy(update={"signals": signals, "tombstones": tuple(records)})
    writer.write("metadata", memoryview(metadata.model_dump_json().encode()))
    writer.finish()
    return metadata


def _write_hash_counts(writer: SectionWriter, column: Column, entries: int, ended: Rows) -> int:
    """Write how many hashes each entry has, unless each has one. Returns how many those of ``ended`` have."""
    most, fewest, of_ended, start = 0, 1, 0, 0
    for counts in filter(len, column.counts()):
        most, fewest = max(most, int(counts.max())), min(fewest, int(counts.min()))
        low, high = np.searchsorted(ended, np.array([start, start + len(counts)], np.uint32))
        of_ended += int(counts[ended[low:high] - np.uint32(start)].sum())
        start += len(counts)
    if (fewest, most) != (1, 1):
        width = np.min_scalar_type(most).newbyteorder("<")
        parts = (bytes_of(counts.astype(width)) for counts in column.counts())
        writer.write_parts(f"entries/hashes/{column.name}", entries * width.itemsize, parts)
    return of_ended


def build_segment(entries: Iterable[ListEntry], signal_types: SignalTypes, **options: Any) -> bytes:
    """A segment in memory, for :meth:`~uploadguard.hashset.segment.Segment.from_buffer`; see :func:`write_segment`."""
    output = io.BytesIO()
    write_segment(output, entries, signal_types, **options)
    return output.getvalue()


def _write_entries(
    writer: SectionWriter,
    entries: Iterable[ListEntry],
    columns: Mapping[str, CollectedColumn],
    offsets: Spool,
    keys: SortedRuns,
    progress: Progress | None,
) -> int:
    """Write the entries' JSON; fill the columns, the offsets (the end of the last too) and the keys of the ids.

    Returns how many entries there are.
    """
    collected = {name: (column.length_bytes, column.values, column.entries) for name, column in columns.items()}
    count = waiting = written = 0
    ends = array("Q", [0])
    chunk, chunk_keys = bytearray(), bytearray()

    def flush() -> None:
        nonlocal ends, chunk, chunk_keys, written
        writer.append(chunk)
        written += len(chunk)
        offsets.append(bytes_of(np.frombuffer(ends, np.uint64).astype("<u8", copy=False)))
        added = len(chunk_keys) // ENTRY_KEY_BYTES
        ids = np.arange(count - added, count, dtype=np.uint32)
        keys.add(np.frombuffer(chunk_keys, np.uint8).reshape(-1, ENTRY_KEY_BYTES), ids)
        ends, chunk, chunk_keys = array("Q"), bytearray(), bytearray()

    writer.begin()
    for entry in entries:
        if not entry.hashes:
            continue
        if count == MAX_IDS - 1:
            raise HashSetError(f"a list of more than {MAX_IDS - 1} entries; split it")
        for name, value in entry.hashes:
            found = collected.get(name)
            if found is None or len(value) != found[0]:
                raise _misplaced(entry, name, value, found[0] if found is not None else 0)
            _, values, numbers = found
            values += value
            numbers.append(count)
            waiting += 1
            if waiting == _FLUSHED_HASHES:
                waiting = 0
                for column in columns.values():
                    column.flush()
        chunk += _encode_entry(entry)
        chunk_keys += entry_key(entry.entry_id)
        ends.append(written + len(chunk))
        count += 1
        if len(chunk) >= _CHUNK_BYTES:
            flush()
        if progress is not None and count % _PROGRESS_ENTRIES == 0:
            progress(count)
    flush()
    writer.end("entries/json")
    for column in columns.values():
        column.close(count)
    return count


def _misplaced(entry: ListEntry, name: str, value: bytes, length_bytes: int) -> ListFormatError:
    """What is wrong with a hash; ``length_bytes`` is 0 where its signal type is not to be imported."""
    if not length_bytes:
        reason = f"a hash of signal type {name!r}, which is not among those to import"
    else:
        reason = f"a {name} hash of {len(value)} bytes in place of {length_bytes}"
    return ListFormatError(reason, line=entry.line)


def _encode_entry(entry: ListEntry) -> bytes:
    if not (isinstance(entry.entry_id, str) and (entry.category is None or isinstance(entry.category, str))):
        raise ListFormatError("an entry whose id or category is not text", line=entry.line)
    # Encoding the whole as one object would take most of an import's time.
    category = "null" if entry.category is None else encode_basestring_ascii(entry.category)
    try:
        fields = _encode(dict(entry.fields)) if entry.fields else "{}"
    except (TypeError, ValueError, RecursionError):
        raise ListFormatError("an entry with fields that are not JSON", line=entry.line) from None
    text = f'{{"id":{encode_basestring_ascii(entry.entry_id)},"category":{category},"fields":{fields}}}'
    return text.encode("ascii")
