"""Merges segments of a list into one that holds what is alive in them.

Copies bytes: entries are not parsed, hashes stay packed. Works on some entries at a time and keeps the rest in spools,
so that it takes about 200 MiB of memory, whatever the size of the segments, if the spools are files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uploadguard.errors import HashSetError
from uploadguard.hashset.columns import CHUNK_ENTRIES, Column, HashCounts, write_sorted
from uploadguard.hashset.exact import ExactIndex
from uploadguard.hashset.hamming import HammingIndex
from uploadguard.hashset.ids import ENTRY_KEY_BYTES, MAX_IDS, Rows
from uploadguard.hashset.metadata import SegmentMetadata
from uploadguard.hashset.runs import Part, SortedRuns
from uploadguard.hashset.sections import SectionWriter
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import (
    ENTRY_BYTES,
    Compiling,
    MeteredOutput,
    finish_segment,
    new_segment_id,
)
from uploadguard.hashset.spool import PART_BYTES, Spools, bytes_of
from uploadguard.hashset.tombstones import dead_chunk, dead_rows
from uploadguard.storage.files import Output

__all__ = ["GONE", "Moved", "merge_segments"]

GONE = MAX_IDS - 1
"""In place of the row of an entry that was left out."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a merge put entries: the new segment's id, and for each source's id the new row of each row, or GONE."""

    segment_id: str = ""
    rows: Mapping[str, Rows] = field(default_factory=dict)


class _Source(NamedTuple):
    """A segment, and the new row of each of its entries, or GONE."""

    segment: Segment
    rows: Rows

    def chunks(self) -> Iterator[tuple[int, Rows, npt.NDArray[np.bool_]]]:
        """Some entries at a time: the first, the new row of each, and whether each is alive."""
        for start in range(0, len(self.rows), CHUNK_ENTRIES):
            rows = self.rows[start : start + CHUNK_ENTRIES]
            yield start, rows, rows != GONE


def merge_segments(
    output: Output,
    segments: Sequence[Segment],
    *,
    before: Sequence[Moved] = (),
    spools: Spools | None = None,
    compiling: Compiling | None = None,
) -> tuple[SegmentMetadata, Moved]:
    """Write to ``output`` one segment of the entries of ``segments`` that no tombstone in these ends.

    ``segments`` are neighbours in one list, in its order; no later segment may have tombstones on them but through what
    is returned. Tombstones on earlier segments are kept; ``before`` tells where merges, in their order, put the entries
    of some of those. Hashes of one signal type must be stored alike in all. ``spools``, by default in memory, are where
    up to as much is kept as the segments take. Raises :class:`~uploadguard.errors.SegmentError` for a damaged source,
    and what writing raises.
    """
    for segment in segments:
        segment.verify()  # or its damage would get a right checksum
    spools = spools if spools is not None else Spools(None)
    sources, count = _number(segments, spools)
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
        merged_up_to=latest.revision,
    )
    metered = MeteredOutput(output, compiling)
    writer = SectionWriter(metered)
    metered.start(_expected_bytes(segments, count))
    _write_entries(writer, sources, count, spools)
    earlier = _Earlier(segments, before)
    metadata = finish_segment(writer, metadata, _columns(sources, spools), earlier.rows, earlier.count_hashes)
    metered.finish()
    return metadata, moved


def _number(segments: Sequence[Segment], spools: Spools) -> tuple[list[_Source], int]:
    """Number what is alive, from 0 through all segments."""
    sources: list[_Source] = []
    count = 0
    for segment, dead in zip(segments, dead_rows(segments), strict=True):
        spool = spools.new()
        for start in range(0, segment.metadata.entries, CHUNK_ENTRIES):
            alive = ~dead_chunk(dead, start, min(start + CHUNK_ENTRIES, segment.metadata.entries))
            here = int(np.count_nonzero(alive))
            if count + here >= GONE:
                raise HashSetError(f"a list of more than {GONE} entries; split it")
            rows = np.full(len(alive), GONE, np.uint32)
            rows[alive] = np.arange(count, count + here, dtype=np.uint32)
            spool.append(bytes_of(rows))
            count += here
        sources.append(_Source(segment, spool.map(np.uint32)))
        spool.close()
    return sources, count


def _expected_bytes(segments: Sequence[Segment], count: int) -> int:
    """What the merged segment will take, about."""
    before = max(1, sum(segment.metadata.entries for segment in segments))
    rows: dict[str, int] = {}
    expected = count * ENTRY_BYTES + sum(len(segment.entries_json) for segment in segments) * count // before
    for segment in segments:
        for name, info in segment.metadata.signals.items():
            rows[name] = rows.get(name, 0) + info.count * count // before
    infos = {name: info for segment in segments for name, info in segment.metadata.signals.items()}
    for name, info in infos.items():
        length = info.length_bytes
        expected += HammingIndex.size_bytes(rows[name], length) if info.kind == "hamming" else rows[name] * (length + 4)
    return expected


def _write_entries(writer: SectionWriter, sources: Sequence[_Source], count: int, spools: Spools) -> None:
    writer.begin()
    for source in sources:
        for start, end in _runs(source):
            for place in range(start, end, PART_BYTES):
                writer.append(source.segment.entries_json[place : min(place + PART_BYTES, end)])
    writer.end("entries/json")
    writer.write_parts("entries/offsets", 8 * (count + 1), _offsets(sources))
    keys = SortedRuns(ENTRY_KEY_BYTES, spools)
    for source in sources:
        keys.add_run(_kept(*source.segment.entry_keys(), source.rows))
    write_sorted(writer, "entries/ids/", keys, ENTRY_KEY_BYTES, spools)


def _runs(source: _Source) -> Iterator[list[int]]:
    """The bytes of living entries: start and end of each run of neighbours."""
    for start, _, alive in source.chunks():
        edges = np.flatnonzero(np.diff(alive.astype(np.int8), prepend=0, append=0))
        yield from source.segment.entry_offsets[start + edges].reshape(-1, 2).tolist()


def _offsets(sources: Sequence[_Source]) -> Iterator[memoryview]:
    """Where each entry begins, and the end of the last."""
    end = np.zeros(1, np.uint64)
    yield bytes_of(end.astype("<u8"))
    for source in sources:
        for start, rows, alive in source.chunks():
            lengths = np.diff(source.segment.entry_offsets[start : start + len(rows) + 1])[alive]
            offsets = end + np.cumsum(lengths, dtype=np.uint64)
            yield bytes_of(offsets.astype("<u8", copy=False))
            end = offsets[-1:] if len(offsets) else end


def _kept(records: npt.NDArray[np.uint8], entries: Rows, rows: Rows) -> Iterator[Part]:
    """The records, with the new rows of their entries, that are alive, some at a time."""
    for start in range(0, len(entries), CHUNK_ENTRIES):
        part = rows[entries[start : start + CHUNK_ENTRIES]]
        kept = part != GONE
        yield records[start : start + CHUNK_ENTRIES][kept], part[kept]


def _columns(sources: Sequence[_Source], spools: Spools) -> Iterator[Column]:
    names = dict.fromkeys(name for source in sources for name in source.segment.metadata.signals)
    for name in names:
        info = next(found for source in sources if (found := source.segment.metadata.signals.get(name)) is not None)
        column = Column(name, info.kind, info.length_bytes, spools)
        for source in sources:
            if name not in source.segment.metadata.signals:
                continue
            index = source.segment.index(name)
            if isinstance(index, ExactIndex):
                column.add_sorted(_kept(index.sections()["records"], index.ids, source.rows))
            else:
                for values, rows in _kept(index.codes, index.ids, source.rows):
                    column.add(values, rows)
        if len(column):
            column.counts = _counts(name, sources)
            yield column


def _counts(name: str, sources: Sequence[_Source]) -> HashCounts:
    """How many hashes of a signal type each living entry has."""

    def counts() -> Iterator[npt.NDArray[np.integer]]:
        for source in sources:
            there = name in source.segment.metadata.signals
            each = source.segment.hash_counts(name) if there else None
            for start, _, alive in source.chunks():
                if each is not None:
                    yield each[start : start + len(alive)][alive]
                else:
                    yield np.full(np.count_nonzero(alive), there, np.uint8)

    return counts


class _Earlier:
    """The tombstones that merged segments have on segments before them. Takes 8 bytes for each of these."""

    def __init__(self, segments: Sequence[Segment], before: Sequence[Moved]) -> None:
        self._hashes: dict[str, dict[str, int]] = {}
        parts: dict[str, list[Rows]] = {}
        merged = {segment.metadata.segment_id for segment in segments}
        for segment in segments:
            for item in segment.metadata.tombstones:
                if item.segment_id in merged:
                    continue
                rows, target = segment.tombstones(item.segment_id), item.segment_id
                for moved in before:
                    if target in moved.rows:
                        rows, target = moved.rows[target][rows], moved.segment_id
                parts.setdefault(target, []).append(rows)
                hashes = self._hashes.setdefault(target, {})
                for name, count in item.hashes.items():
                    hashes[name] = hashes.get(name, 0) + count
        self.rows = {target: np.sort(np.concatenate(rows)) for target, rows in parts.items()}

    def count_hashes(self, segment_id: str, _: Rows) -> Mapping[str, int]:
        """How many hashes these entries have, by signal type."""
        return self._hashes[segment_id]
