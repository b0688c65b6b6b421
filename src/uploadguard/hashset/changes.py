"""One change of one list: compiling its segment, and the manifest that has it in force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploadguard.errors import EmptyListError, ListError, UnknownListError
from uploadguard.hashset.columns import kind_of
from uploadguard.hashset.compaction import put_in_place, tail_to_merge
from uploadguard.hashset.directory import Directory
from uploadguard.hashset.manifest import ListChange, Manifest, SegmentRecord
from uploadguard.hashset.merge import merge_segments
from uploadguard.hashset.metadata import ListInfo, Role, check_list_name, summarise
from uploadguard.hashset.segment_writer import Compiling, Progress, SignalTypes, new_segment_id, write_segment
from uploadguard.hashset.spool import Spools
from uploadguard.hashset.tombstones import Delta

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = [
    "Compilation",
    "ListUpdate",
    "apply_change",
    "check_role",
    "check_stored_alike",
    "compile_list",
    "compile_update",
    "of_list",
]


@dataclass(frozen=True, slots=True)
class ListUpdate:
    """What an update did: the list as it is now, the generation that is so, entries that came and entries that went.

    An entry that another of its id replaced went, and the other came. Where ``in_force`` is False the change is staged
    only: ``info`` is the list as it would be, ``generation`` the one that goes on.
    """

    info: ListInfo
    generation: int
    added: int
    removed: int
    in_force: bool = True


@dataclass(frozen=True, slots=True)
class Compilation:
    """How entries are compiled: signal types to keep, the name of what they came from, and who is told of progress."""

    signal_types: SignalTypes
    source: str | None = None
    progress: Progress | None = None
    compiling: Compiling | None = None


def compile_list(
    files: Directory,
    manifest: Manifest,
    name: str,
    entries: Iterable[ListEntry],
    how: Compilation,
    *,
    role: Role,
    replace: bool,
    append: bool,
) -> ListChange:
    """Write the segment of an import; see :meth:`~uploadguard.hashset.HashSet.add_list`. The write lock is held."""
    check_list_name(name)
    if replace and append:
        raise ValueError("replace or append, not both")
    present = manifest.of_list(name)
    if present and not (replace or append):
        raise ListError("there is a list of that name; use replace to put this in its place, or append to it")
    if present and append:
        check_role(present, role)
        check_stored_alike(present, how.signal_types)
    path = files.new_segment_path(manifest)
    with files.new_segment(path) as output, Spools(files.spool_directory) as spools:
        write_segment(
            output,
            entries,
            how.signal_types,
            list_name=name,
            role=role,
            source=how.source or "",
            progress=how.progress,
            compiling=how.compiling,
            spools=spools,
        )
    record = files.record(path)
    return ListChange(
        kind="new" if not present else "append" if append else "replace",
        base=_ids(present),
        segment=record,
        added=record.metadata.entries,
        removed=of_list(present).entries if present and replace else 0,
    )


def compile_update(
    files: Directory,
    manifest: Manifest,
    name: str,
    added: Iterable[ListEntry],
    removed: Iterable[str],
    how: Compilation,
) -> ListChange | None:
    """Write the segment of an update; None where nothing changes. The write lock is held.

    See :meth:`~uploadguard.hashset.HashSet.update_list`.
    """
    present = manifest.of_list(name)
    if not present:
        raise UnknownListError("there is no list of that name in the hash set")
    check_stored_alike(present, how.signal_types)
    latest = present[-1].metadata
    with Spools(files.spool_directory) as spools:
        delta = Delta(files.open_segments(present), new_segment_id(), spools)
        delta.remove(removed)
        path = files.new_segment_path(manifest)
        try:
            with files.new_segment(path) as output:
                write_segment(
                    output,
                    added,
                    how.signal_types,
                    list_name=name,
                    role=latest.role,
                    source=how.source if how.source is not None else latest.source,
                    delta=delta,
                    progress=how.progress,
                    compiling=how.compiling,
                    spools=spools,
                )
        except EmptyListError:
            if delta.added or delta.tombstones():
                raise
            return None
        return ListChange(
            kind="update", base=_ids(present), segment=files.record(path), added=delta.added, removed=delta.removed
        )


def apply_change(files: Directory, manifest: Manifest, change: ListChange, *, keep_previous: int | None) -> Manifest:
    """The next generation, with ``change`` in force. The write lock is held, and the change fits the list as it is.

    ``keep_previous`` None: this one does not become one to go back to. Merges the list's latest segments where many
    small ones have gathered.
    """
    present = manifest.of_list(change.list_name)
    if change.kind == "update":
        segments = put_in_place(manifest, present, _merge_tail(files, manifest, change.result(present)))
    else:
        kept = [record for record in manifest.segments if change.kind == "append" or record not in present]
        segments = [*kept, change.segment]
    if keep_previous is None:
        return manifest.compacted(segments)
    return manifest.next(segments, keep_previous=keep_previous)


def _merge_tail(files: Directory, manifest: Manifest, records: list[SegmentRecord]) -> list[SegmentRecord]:
    """The list's segments, the last of them merged if it is time for it."""
    taken = tail_to_merge([record.metadata for record in records])
    if not taken:
        return records
    with files.try_compacting() as free:
        if not free:
            return records  # a compaction copies these very segments
        path = files.new_segment_path(manifest)
        with files.new_segment(path) as output, Spools(files.spool_directory) as spools:
            merge_segments(output, files.open_segments(records[-taken:]), spools=spools)
    return [*records[:-taken], files.record(path)]


def check_role(present: Sequence[SegmentRecord], role: Role) -> None:
    """Raise :class:`ListError` if the list is of another role."""
    if present[0].metadata.role != role:
        raise ListError(f"the list is of the role {present[0].metadata.role!r}, not {role!r}; use replace")


def check_stored_alike(present: Sequence[SegmentRecord], signal_types: SignalTypes) -> None:
    """Raise :class:`ListError` if hashes of a signal type would be stored in two ways in one list."""
    for record in present:
        for name, info in record.metadata.signals.items():
            length_bytes, max_distance_bits = signal_types.get(name, (info.length_bytes, int(info.kind == "hamming")))
            if (info.length_bytes, info.kind) != (length_bytes, kind_of(max_distance_bits)):
                raise ListError(f"the list's {name} hashes were stored for another kind of look-up; use replace")


def of_list(records: Iterable[SegmentRecord]) -> ListInfo:
    """The list that these segments make up."""
    (info,) = summarise(record.metadata for record in records)
    return info


def _ids(records: Iterable[SegmentRecord]) -> tuple[str, ...]:
    return tuple(record.metadata.segment_id for record in records)
