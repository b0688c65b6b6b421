"""Merges segments of a list into one that holds what is alive in them.

Copies bytes: entries are not parsed, hashes stay packed. At one time it holds, beside the maps of the sources, 4 bytes
for each entry of the sources, and either 8 bytes an entry or the hashes of one signal type with their index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uploadguard.errors import HashSetError
from uploadguard.hashset.exact import ExactIndex
from uploadguard.hashset.files import Output
from uploadguard.hashset.ids import ENTRY_KEY_BYTES, MAX_IDS, Rows
from uploadguard.hashset.metadata import SegmentMetadata
from uploadguard.hashset.sections import SectionWriter
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import Column, bytes_of, finish_segment, new_segment_id, write_entry_ids
from uploadguard.hashset.tombstones import dead_mask, dead_rows

__all__ = ["GONE", "Moved", "merge_segments"]

GONE = MAX_IDS - 1
"""In place of the row of an entry that was left out."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a merge put entries: the new segment's id, and for each source's id the new row of each row, or GONE."""

    segment_id: str = ""
    rows: Mapping[str, Rows] = field(default_factory=dict)


class _Source(NamedTuple):
    segment: Segment
    alive: npt.NDArray[np.bool_]
    rows: Rows


def merge_segments(
    output: Output, segments: Sequence[Segment], *, before: Moved | None = None
) -> tuple[SegmentMetadata, Moved]:
    """Write to ``output`` one segment of the entries of ``segments`` that no tombstone in these ends.

    ``segments`` are neighbours in one list, in its order; no later segment may have tombstones on them but through what
    is returned. Tombstones on earlier segments are kept; ``before`` tells where a merge put the entries of some of
    those. Hashes of one signal type must be stored alike in all. Raises :class:`~uploadguard.errors.SegmentError` for a
    damaged source, and what writing raises.
    """
    for segment in segments:
        segment.verify()  # or its damage would get a right checksum
    sources, count = _number(segments)
    first, latest = segments[0].metadata, segments[-1].metadata
    moved = Moved(new_segment_id(), {source.segment.metadata.segment_id: source.rows for source in sources})
    metadata = SegmentMetadata(
        segment_id=moved.segment_id,
        list_name=first.list_name,
        role=first.role,
        source=latest.source,
        added_at=min(segment.metadata.added_at for segment in segments),
        updated_at=max(segment.metadata.updated_at for segment in segments),
        entries=count,
        signals={},
    )
    writer = SectionWriter(output)
    _write_entries(writer, sources, count)
    earlier = _Earlier(segments, before if before is not None else Moved())
    return finish_segment(writer, metadata, _columns(sources), earlier.rows, earlier.count_hashes), moved


def _number(segments: Sequence[Segment]) -> tuple[list[_Source], int]:
    """Number what is alive, from 0 through all segments."""
    sources: list[_Source] = []
    count = 0
    for segment, dead in zip(segments, dead_rows(segments), strict=True):
        alive = ~dead_mask(segment, dead)
        rows = np.full(len(alive), GONE, np.uint32)
        here = int(np.count_nonzero(alive))
        if count + here >= GONE:
            raise HashSetError(f"a list of more than {GONE} entries; split it")
        rows[alive] = np.arange(count, count + here, dtype=np.uint32)
        sources.append(_Source(segment, alive, rows))
        count += here
    return sources, count


def _write_entries(writer: SectionWriter, sources: Sequence[_Source], count: int) -> None:
    writer.begin()
    for source in sources:
        for start, end in _runs(source):
            for place in range(start, end, _CHUNK_BYTES):
                writer.append(source.segment.entries_json[place : min(place + _CHUNK_BYTES, end)])
    writer.end("entries/json")
    offsets = np.zeros(count + 1, np.uint64)
    for source in sources:
        offsets[1 + source.rows[source.alive].astype(np.int64)] = np.diff(source.segment.entry_offsets)[source.alive]
    writer.write("entries/offsets", bytes_of(np.cumsum(offsets, out=offsets).astype("<u8", copy=False)))
    del offsets
    keys, rows = [np.empty((0, ENTRY_KEY_BYTES), np.uint8)], [np.empty(0, np.uint32)]
    for source in sources:
        found, entries = source.segment.entry_keys()
        kept = source.alive[entries]
        keys.append(found[kept])
        rows.append(source.rows[entries[kept]])
    write_entry_ids(writer, np.concatenate(keys), np.concatenate(rows))


def _runs(source: _Source) -> Iterator[list[int]]:
    """The bytes of living entries: start and end of each run of neighbours."""
    edges = np.flatnonzero(np.diff(source.alive.astype(np.int8), prepend=0, append=0))
    yield from source.segment.entry_offsets[edges].reshape(-1, 2).tolist()


def _columns(sources: Sequence[_Source]) -> Iterator[Column]:
    names = dict.fromkeys(name for source in sources for name in source.segment.metadata.signals)
    for name in names:
        column = _column(name, [source for source in sources if name in source.segment.metadata.signals])
        if len(column.entries):
            yield column
        del column


def _column(name: str, sources: Sequence[_Source]) -> Column:
    values: list[npt.NDArray[np.uint8]] = []
    rows: list[Rows] = []
    for source in sources:
        index = source.segment.index(name)
        kept = source.alive[index.ids]
        values.append(index.sections()["records" if isinstance(index, ExactIndex) else "codes"][kept])
        rows.append(source.rows[index.ids[kept]])
    kind = sources[0].segment.metadata.signals[name].kind
    return Column(name, kind, np.concatenate(values), np.concatenate(rows))


class _Earlier:
    """The tombstones that merged segments have on segments before them."""

    def __init__(self, segments: Sequence[Segment], before: Moved) -> None:
        self._hashes: dict[str, dict[str, int]] = {}
        parts: dict[str, list[Rows]] = {}
        merged = {segment.metadata.segment_id for segment in segments}
        for segment in segments:
            for item in segment.metadata.tombstones:
                if item.segment_id in merged:
                    continue
                rows, target = segment.tombstones(item.segment_id), item.segment_id
                if target in before.rows:
                    rows, target = before.rows[target][rows], before.segment_id
                parts.setdefault(target, []).append(rows)
                hashes = self._hashes.setdefault(target, {})
                for name, count in item.hashes.items():
                    hashes[name] = hashes.get(name, 0) + count
        self.rows = {target: np.sort(np.concatenate(rows)) for target, rows in parts.items()}

    def count_hashes(self, segment_id: str, _: Rows) -> Mapping[str, int]:
        """How many hashes these entries have, by signal type."""
        return self._hashes[segment_id]
