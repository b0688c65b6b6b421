"""When segments of a list are merged, and merging a whole list beside readers and other writers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from uploadguard.errors import HashSetError
from uploadguard.hashset.directory import COMPACTION_PREFIX, Directory
from uploadguard.hashset.manifest import Manifest, SegmentRecord
from uploadguard.hashset.merge import Moved, merge_segments
from uploadguard.hashset.metadata import ListInfo, SegmentMetadata
from uploadguard.hashset.segment_writer import Compiling
from uploadguard.hashset.spool import Spools

__all__ = ["Compaction", "compact_if_due", "compact_list", "is_due", "put_in_place", "rewrite_staged", "tail_to_merge"]

_SEGMENTS = 4
"""A delta that makes more of them merges the latest."""

_DELTA_MERGES = 100_000
"""The most entries and tombstones that a delta merges while other writers wait: under a second."""

_RATIO = 2
"""A segment is merged with those after it if it is at most this many times as large as they are together."""

_DUE_SEGMENTS = 12
_DUE_DEAD = 0.25
_DUE_DEAD_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did: lists merged, entries that are gone now, and the directory's size before and after.

    With ``kept_previous`` the files before it are still there, for the previous generations.
    """

    generation: int
    lists: int
    dead_entries: int
    before_bytes: int
    after_bytes: int
    kept_previous: bool


def tail_to_merge(segments: Sequence[SegmentMetadata]) -> int:
    """How many of a list's latest segments the writer of the last merges: none, or at least two.

    Each takes in those that are not much larger than all after it, so that an entry is copied about as often as the
    list's size has digits.
    """
    if len(segments) <= _SEGMENTS:
        return 0
    weights = [part.entries + sum(item.entries for item in part.tombstones) for part in reversed(segments)]
    total, taken = weights[0], 1
    for weight in weights[1:]:
        if weight > _RATIO * total or total + weight > _DELTA_MERGES:
            break
        total += weight
        taken += 1
    return taken if taken > 1 else 0


def is_due(info: ListInfo) -> bool:
    """Whether so many segments or dead entries have gathered that the list should be merged as a whole."""
    dead = info.dead_entries
    return info.segments > _DUE_SEGMENTS or dead > max(_DUE_DEAD_ENTRIES, _DUE_DEAD * (dead + info.entries))


def compact_if_due(files: Directory, name: str) -> None:
    """As :func:`compact_list`, but only where :func:`is_due` holds and no other compaction runs."""
    with files.try_compacting() as free:
        if free and any(info.name == name and is_due(info) for info in files.read().lists()):
            _compact(files, name)


def compact_list(files: Directory, name: str, compiling: Compiling | None = None) -> ListInfo | None:
    """Merge a list into one segment; returns what it was, or None if there was nothing to merge.

    Other writers wait only at its start and end. What they change meanwhile stays a segment beside the merged one; if
    one of them replaces or removes the list, :class:`HashSetError` is raised, and nothing was changed. Raises
    :class:`~uploadguard.errors.HashSetBusyError` too, if another compaction runs, and
    :class:`~uploadguard.errors.SegmentError` if the list is damaged.
    """
    with files.compacting():
        return _compact(files, name, compiling)


def _compact(files: Directory, name: str, compiling: Compiling | None = None) -> ListInfo | None:
    with files.writing() as (manifest, _):
        records = manifest.of_list(name)
        info = next((info for info in manifest.lists() if info.name == name), None)
        if info is None:
            return None
        if info.segments == 1 and info.dead_entries == 0 and files.is_as_configured(records[0]):
            return None
        sources = files.open_segments(records)
    path = files.new_segment_path(manifest)
    with contextlib.ExitStack() as held:
        spools = held.enter_context(Spools(files.spool_directory))
        with files.new_segment(path, prefix=COMPACTION_PREFIX) as output:
            _, moved = merge_segments(output, sources, spools=spools, compiling=compiling)
            output.sync()  # so that it need not take long under the lock
            manifest, stamp = held.enter_context(files.writing())
            present = manifest.of_list(name)
            if present[: len(records)] != records:
                raise HashSetError("the list was replaced, removed or rolled back while it was compacted")
        merged, all_moved = [files.record(path)], [moved]
        late = present[len(records) :]
        if late:
            late_path = files.new_segment_path(manifest)
            with files.new_segment(late_path) as output:
                _, late_moved = merge_segments(output, files.open_segments(late), before=all_moved, spools=spools)
            merged.append(files.record(late_path))
            all_moved.append(late_moved)
        changed = manifest.compacted(put_in_place(manifest, present, merged))
        files.write(_move_staged(files, changed, present, merged, all_moved), after=stamp)
    return info


def _move_staged(
    files: Directory,
    manifest: Manifest,
    before: Sequence[SegmentRecord],
    after: Sequence[SegmentRecord],
    moved: Sequence[Moved],
) -> Manifest:
    """What is staged for a list fits it still, now that its segments are others with the same content."""
    change = manifest.staged_of(before[0].metadata.list_name)
    if change is None or change.base != tuple(record.metadata.segment_id for record in before):
        return manifest
    segment = _rewrite(files, manifest, change.segment, moved) if change.kind == "update" else change.segment
    base = tuple(record.metadata.segment_id for record in after)
    return manifest.stage(change.model_copy(update={"segment": segment, "base": base}))


def _rewrite(files: Directory, manifest: Manifest, record: SegmentRecord, moved: Sequence[Moved] = ()) -> SegmentRecord:
    """A copy of a segment, with its tombstones where the entries are now."""
    path = files.new_segment_path(manifest)
    with files.new_segment(path) as output, Spools(files.spool_directory) as spools:
        merge_segments(output, files.open_segments([record]), before=moved, spools=spools)
    return files.record(path)


def rewrite_staged(files: Directory) -> None:
    """Encrypt what is staged as the settings have it, or write it plain. Other writers wait meanwhile."""
    with files.writing() as (manifest, stamp):
        changed = manifest
        for change in manifest.staged:
            if not files.is_as_configured(change.segment):
                segment = _rewrite(files, manifest, change.segment)
                changed = changed.stage(change.model_copy(update={"segment": segment}))
        if changed != manifest:
            files.write(changed, after=stamp)


def put_in_place(manifest: Manifest, old: Sequence[SegmentRecord], new: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """The manifest's segments with ``new`` where the first of ``old`` stands, and without ``old``."""
    segments: list[SegmentRecord] = []
    for record in manifest.segments:
        if record == old[0]:
            segments.extend(new)
        if record not in old:
            segments.append(record)
    return segments
