"""Going back: the whole hash set, or one list, as a previous generation has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from uploadguard.errors import HashSetError
from uploadguard.hashset.changes import of_list
from uploadguard.hashset.compaction import put_in_place
from uploadguard.hashset.directory import Directory
from uploadguard.hashset.files import write_errors
from uploadguard.hashset.manifest import Manifest, PreviousGeneration, SegmentRecord
from uploadguard.hashset.metadata import ListInfo

__all__ = ["ListRollback", "find_list", "roll_back", "roll_back_list"]


@dataclass(frozen=True, slots=True)
class ListRollback:
    """What going back with one list does, or did.

    ``info`` is the list as the previous generation ``restored`` has it, ``before`` as it was until then, None where it
    was not there. ``generation`` is the one in force: before the rollback the one it would replace.
    """

    info: ListInfo
    before: ListInfo | None
    restored: int
    generation: int


def roll_back(files: Directory, generation: int | None, keep_previous: int) -> int:
    """See :meth:`~uploadguard.hashset.HashSet.rollback`."""
    with files.writing() as (manifest, stamp):
        found = _generation(files, manifest, generation)
        _verify(files, found.segments)
        others = tuple(item for item in manifest.previous if item != found)
        # Whoever goes back looks after the hash set: its old age should not fail every check from here on.
        changed = (
            manifest.model_copy(update={"previous": others})
            .next(found.segments, keep_previous=max(1, keep_previous))
            .confirm({record.metadata.list_name for record in found.segments})
        )
        files.write(changed, after=stamp)
        return changed.generation


def roll_back_list(files: Directory, name: str, generation: int | None, keep_previous: int) -> ListRollback:
    """See :meth:`~uploadguard.hashset.HashSet.rollback_list`."""
    with files.writing() as (manifest, stamp):
        found, records = _version(files, manifest, name, generation)
        _verify(files, records)
        present = manifest.of_list(name)
        segments = put_in_place(manifest, present, records) if present else [*manifest.segments, *records]
        changed = manifest.next(segments, keep_previous=max(1, keep_previous)).confirm([name])
        files.write(changed, after=stamp)
    return _rollback(present, records, found, changed)


def find_list(files: Directory, name: str, generation: int | None) -> ListRollback:
    """What :func:`roll_back_list` would do. Raises as it does."""
    manifest = files.read()
    found, records = _version(files, manifest, name, generation)
    return _rollback(manifest.of_list(name), records, found, manifest)


def _rollback(
    present: tuple[SegmentRecord, ...],
    records: tuple[SegmentRecord, ...],
    found: PreviousGeneration,
    manifest: Manifest,
) -> ListRollback:
    return ListRollback(of_list(records), of_list(present) if present else None, found.generation, manifest.generation)


def _generation(files: Directory, manifest: Manifest, generation: int | None) -> PreviousGeneration:
    found = [item for item in manifest.previous if generation in (None, item.generation)]
    if not found:
        wanted = "previous generation" if generation is None else f"generation {generation}"
        raise HashSetError(f"{files.path}: there is no {wanted} to go back to")
    return found[0]


def _version(
    files: Directory, manifest: Manifest, name: str, generation: int | None
) -> tuple[PreviousGeneration, tuple[SegmentRecord, ...]]:
    """The previous generation to take the list from, and its segments there."""
    revision = _revision(manifest.of_list(name))
    if generation is None:
        for found in manifest.previous:
            records = _of_list(found, name)
            if records and _revision(records) != revision:
                return found, records
        if not manifest.of_list(name) and not any(_of_list(found, name) for found in manifest.previous):
            raise HashSetError(
                f"{files.path}: there is no list of that name, and was none in what is kept to go back to"
            )
        raise HashSetError(
            f"{files.path}: none of the {len(manifest.previous)} previous generations that are kept has another "
            "version of that list; `uploadguard lists remove` takes a list out"
        )
    found = _generation(files, manifest, generation)
    records = _of_list(found, name)
    if not records:
        raise HashSetError(f"{files.path}: generation {generation} has no list of that name")
    if _revision(records) == revision:
        raise HashSetError(f"{files.path}: the list holds now what it held in generation {generation}")
    return found, records


def _of_list(generation: PreviousGeneration, name: str) -> tuple[SegmentRecord, ...]:
    return tuple(record for record in generation.segments if record.metadata.list_name == name)


def _revision(records: tuple[SegmentRecord, ...]) -> str | None:
    return records[-1].metadata.revision if records else None


def _verify(files: Directory, records: Iterable[SegmentRecord]) -> None:
    with write_errors(files.path):
        segments = files.open_segments(records)
    for segment in segments:
        segment.verify()
