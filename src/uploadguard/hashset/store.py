"""The hash set: one writer at a time, any number of readers, one generation after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.errors import EmptyListError, HashSetError, ListError, SegmentError, UnknownListError
from uploadguard.hashset.columns import kind_of
from uploadguard.hashset.compaction import Compaction, compact_if_due, compact_list, is_due, put_in_place, tail_to_merge
from uploadguard.hashset.directory import Directory, EncryptedFiles
from uploadguard.hashset.files import write_errors
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.inspection import HashSetStats, Verification, stats_of, verify_files
from uploadguard.hashset.manifest import Manifest, SegmentRecord
from uploadguard.hashset.merge import merge_segments
from uploadguard.hashset.metadata import ListInfo, Role, check_list_name, summarise
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import Compiling, Progress, SignalTypes, new_segment_id, write_segment
from uploadguard.hashset.spool import Spools
from uploadguard.hashset.tombstones import Delta
from uploadguard.logs import log
from uploadguard.storage.keys import Keys

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["HashSet", "ListUpdate"]

_LOAD_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class ListUpdate:
    """What an update did: the list as it is now, the generation that is so, entries that came and entries that went.

    An entry that another of its id replaced went, and the other came.
    """

    info: ListInfo
    generation: int
    added: int
    removed: int


class HashSet:
    """A directory of immutable segments and a manifest that names those in force.

    Every change writes new segments and then replaces the manifest in one step, so that a reader, or a crash at any
    moment, finds the old generation or the new one. Safe to share between threads and between processes.
    """

    def __init__(
        self, directory: Path, *, lock_timeout_s: float = 30.0, keep_previous: int = 3, keys: Keys | None = None
    ) -> None:
        """Use :meth:`create` or :meth:`open`."""
        if keep_previous < 0:
            raise ValueError(f"keep_previous must be 0 or more, not {keep_previous}")
        self.directory = directory
        self._files = Directory(directory, lock_timeout_s, keys)
        self._keep_previous = keep_previous
        self._compacting = threading.Lock()

    @classmethod
    def create(
        cls, directory: Path | str, *, lock_timeout_s: float = 30.0, keep_previous: int = 3, keys: Keys | None = None
    ) -> HashSet:
        """Create an empty hash set in ``directory``, which is made with mode 0700 or is empty.

        Raises :class:`HashSetError` if it holds anything, and :class:`~uploadguard.errors.HashSetWriteError`.
        """
        directory = Path(directory)
        with write_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        hash_set = cls(directory, lock_timeout_s=lock_timeout_s, keep_previous=keep_previous, keys=keys)
        files = hash_set._files
        if files.manifest_path.exists():
            raise HashSetError(f"{directory}: there is a hash set already; open it")
        with write_errors(directory):
            if not files.may_become_one():
                raise HashSetError(f"{directory}: is not empty; choose a directory of its own for the hash set")
            directory.chmod(0o700)
        with files.locked():
            if files.manifest_path.exists():
                raise HashSetError(f"{directory}: another process has just created the hash set; open it")
            files.write(Manifest(generation=0, segments=()))
        return hash_set

    @classmethod
    def open(
        cls, directory: Path | str, *, lock_timeout_s: float = 30.0, keep_previous: int = 3, keys: Keys | None = None
    ) -> HashSet:
        """The hash set in ``directory``. Raises :class:`~uploadguard.errors.ManifestError` without a sound manifest.

        ``lock_timeout_s`` is how long a change waits for another process's, ``keep_previous`` how many generations
        before the one in force a change leaves to go back to. ``keys`` are those of an encrypted hash set.
        """
        hash_set = cls(Path(directory), lock_timeout_s=lock_timeout_s, keep_previous=keep_previous, keys=keys)
        hash_set._files.read()
        return hash_set

    def __repr__(self) -> str:
        return f"HashSet({str(self.directory)!r})"

    @property
    def generation(self) -> int:
        """The number of the generation on disk; 0 has no lists. Raises :class:`~uploadguard.errors.ManifestError`."""
        return self._files.read().generation

    @property
    def previous_generations(self) -> tuple[int, ...]:
        """The generations that :meth:`rollback` can go back to, the latest first."""
        return tuple(previous.generation for previous in self._files.read().previous)

    def changed_since(self, generation: int) -> bool:
        """Whether the generation on disk is another than this. One ``stat`` where nothing has changed."""
        return self.generation != generation

    def lists(self) -> tuple[ListInfo, ...]:
        """The lists on disk, in the order in which they were added."""
        return self._files.read().lists()

    def load(self, *, verify: bool = True, prepare: bool = True, previous: Generation | None = None) -> Generation:
        """Open the generation on disk.

        ``verify`` reads every byte and compares checksums; segments that ``previous`` has open are taken from there,
        and are not read again if they were verified. Without ``prepare`` an encrypted segment is decrypted by its first
        query only. Raises :class:`~uploadguard.errors.ManifestError` and
        :class:`SegmentError`.
        """
        known = {segment.checksum: segment for segment in previous.segments} if previous is not None else {}
        for _ in range(_LOAD_ATTEMPTS):
            manifest = self._files.read()
            try:
                segments = self._files.open_segments(manifest.segments, known)
            except FileNotFoundError as error:
                # A writer may have removed it since the manifest was read; if not, it is lost.
                if self._files.read().generation == manifest.generation:
                    raise SegmentError("is missing; import the list again", path=Path(error.filename)) from None
                continue
            for segment in segments:
                if prepare:
                    segment.load()
                if verify:
                    segment.verify()
            return Generation.of(segments, number=manifest.generation, lists=manifest.lists())
        raise HashSetError(f"{self.directory}: changes faster than it can be loaded; try again")

    def add_list(
        self,
        name: str,
        entries: Iterable[ListEntry],
        signal_types: SignalTypes,
        *,
        role: Role = "deny",
        source: str = "",
        replace: bool = False,
        append: bool = False,
        undoable: bool = True,
        progress: Progress | None = None,
        compiling: Compiling | None = None,
    ) -> ListInfo:
        """Import ``entries`` as the list ``name`` and put the new generation in force.

        A list of that name may be there only with ``replace``, which puts the entries in place of its own, or
        ``append``, which adds them, whatever their ids. ``signal_types`` gives length_bytes and max_distance_bits by
        name. Other writers wait while ``entries`` are read. If not ``undoable``, the generation until then does not
        become one to go back to, and pushes none out: for changes that come again by themselves after a rollback.

        Raises :class:`ListError` for a name that is taken or not one, :class:`EmptyListError`,
        :class:`~uploadguard.errors.ListFormatError`, :class:`~uploadguard.errors.HashSetBusyError`,
        :class:`~uploadguard.errors.HashSetWriteError`, and whatever ``entries`` raises; in all these cases nothing is
        changed.
        """
        check_list_name(name)
        if replace and append:
            raise ValueError("replace or append, not both")
        with self._files.writing() as (manifest, stamp):
            present = manifest.of_list(name)
            if present and not (replace or append):
                raise ListError("there is a list of that name; use replace to put this in its place, or append to it")
            if present and append and present[0].metadata.role != role:
                raise ListError(f"the list is of the role {present[0].metadata.role!r}, not {role!r}; use replace")
            if append:
                _check_stored_alike(present, signal_types)
            path = self._files.new_segment_path(manifest)
            with self._files.new_segment(path) as output, Spools(self._files.spool_directory) as spools:
                write_segment(
                    output,
                    entries,
                    signal_types,
                    list_name=name,
                    role=role,
                    source=source,
                    progress=progress,
                    compiling=compiling,
                    spools=spools,
                )
            kept = [record for record in manifest.segments if not replace or record not in present]
            changed = self._next(manifest, [*kept, self._files.record(path)], undoable=undoable)
            self._files.write(changed, after=stamp)
            return _info(changed.of_list(name))

    def update_list(
        self,
        name: str,
        added: Iterable[ListEntry],
        removed: Iterable[str],
        signal_types: SignalTypes,
        *,
        source: str | None = None,
        undoable: bool = True,
        progress: Progress | None = None,
        compiling: Compiling | None = None,
    ) -> ListUpdate:
        """Take the entries of the ids ``removed`` out of the list, then put ``added`` in, in one new generation.

        Writes one small segment, whatever the list's size. An entry replaces all of its id that were there, and those
        before it in ``added``; one without hashes only ends them. Ids that are not there are no error, so that a
        change can be repeated. Where nothing changes, the new generation holds the same, and notes that the list is up
        to date. ``source`` is by default the list's, ``undoable`` as for :meth:`add_list`.

        Merges the latest segments where many small ones have gathered; where all should be merged, that is done on a
        thread, which the process's end waits for. Raises :class:`UnknownListError`, and else as :meth:`add_list`.
        """
        with self._files.writing() as (manifest, stamp), Spools(self._files.spool_directory) as spools:
            present = manifest.of_list(name)
            if not present:
                raise UnknownListError("there is no list of that name in the hash set")
            _check_stored_alike(present, signal_types)
            segments = self._files.open_segments(present)
            delta = Delta(segments, new_segment_id(), spools)
            delta.remove(removed)
            path = self._files.new_segment_path(manifest)
            try:
                with self._files.new_segment(path) as output:
                    write_segment(
                        output,
                        added,
                        signal_types,
                        list_name=name,
                        role=present[-1].metadata.role,
                        source=source if source is not None else present[-1].metadata.source,
                        delta=delta,
                        progress=progress,
                        compiling=compiling,
                        spools=spools,
                    )
            except EmptyListError:
                if delta.added or delta.tombstones():
                    raise
                confirmed = manifest.confirm([name]).compacted(manifest.segments)
                self._files.write(confirmed, after=stamp)
                (info,) = (info for info in confirmed.lists() if info.name == name)
                return ListUpdate(info, confirmed.generation, 0, 0)
            records = self._merge_tail(manifest, present, segments, self._files.record(path))
            changed = self._next(manifest, put_in_place(manifest, present, records), undoable=undoable)
            self._files.write(changed, after=stamp)
            update = ListUpdate(_info(records), changed.generation, delta.added, delta.removed)
        if is_due(update.info):
            self._compact_beside(name)
        return update

    def remove_list(self, name: str, *, purge: bool = False) -> None:
        """Take the list ``name`` out and put the new generation in force. Readers that still map it go on.

        Its files stay as long as a previous generation has them; ``purge`` drops all previous generations, and with
        them the files. Raises :class:`UnknownListError`, :class:`~uploadguard.errors.HashSetBusyError`,
        :class:`~uploadguard.errors.HashSetWriteError`.
        """
        with self._files.writing() as (manifest, stamp):
            removed = manifest.of_list(name)
            if not removed:
                raise UnknownListError("there is no list of that name in the hash set")
            kept = [record for record in manifest.segments if record not in removed]
            changed = manifest.next(kept, keep_previous=0 if purge else self._keep_previous)
            self._files.write(changed, after=stamp)

    def rollback(self, generation: int | None = None) -> int:
        """Put a previous generation's lists in force again, by default the latest's. Returns the new generation.

        The generation in force until then becomes a previous one, so that a rollback can be taken back. Raises
        :class:`HashSetError` if there is no such generation, and :class:`SegmentError` if one of its files is damaged.
        """
        with self._files.writing() as (manifest, stamp):
            found = [item for item in manifest.previous if generation in (None, item.generation)]
            if not found:
                wanted = "previous generation" if generation is None else f"generation {generation}"
                raise HashSetError(f"{self.directory}: there is no {wanted} to go back to")
            with write_errors(self.directory):
                segments = self._files.open_segments(found[0].segments)
            for segment in segments:
                segment.verify()
            others = tuple(item for item in manifest.previous if item != found[0])
            # Whoever goes back looks after the hash set: its old age should not fail every check from here on.
            changed = (
                manifest.model_copy(update={"previous": others})
                .next(found[0].segments, keep_previous=max(1, self._keep_previous))
                .confirm({record.metadata.list_name for record in found[0].segments})
            )
            self._files.write(changed, after=stamp)
            return changed.generation

    def compact(
        self, *, keep_previous: bool = False, compiling: Callable[[str, int, int], None] | None = None
    ) -> Compaction:
        """Merge each list into one segment without dead entries, and drop the previous generations.

        After that nothing that was removed is on the disk any more, and all is encrypted with the key to write with, or
        plain if there is none: a list is rewritten for that alone too. ``keep_previous`` leaves the previous
        generations, with all their files as they are. Memory: see :mod:`uploadguard.hashset.merge`. Readers are not
        disturbed, and other writers wait at the start and the end of each list only. Raises what :func:`compact_list`
        raises.
        """
        before_bytes = self._size_bytes()
        merged: list[ListInfo] = []
        for info in self.lists():
            told = partial(compiling, info.name) if compiling is not None else None
            if (found := compact_list(self._files, info.name, told)) is not None:
                merged.append(found)
        with self._files.writing() as (manifest, stamp):
            dropped = manifest if keep_previous else manifest.model_copy(update={"previous": ()})
            if dropped != manifest or not self._files.manifest_is_as_configured():
                self._files.write(dropped.compacted(manifest.segments), after=stamp)
        return Compaction(
            generation=self.generation,
            lists=len(merged),
            dead_entries=sum(info.dead_entries for info in merged),
            before_bytes=before_bytes,
            after_bytes=self._size_bytes(),
            kept_previous=keep_previous,
        )

    def verify(self) -> Verification:
        """Read every file of the generation in force and of the previous ones, and say what is wrong."""
        return verify_files(self._files)

    def stats(self) -> HashSetStats:
        """What the hash set holds, and how evenly its hashes are spread. Reads all perceptual hashes."""
        return stats_of(self._files, self.load(verify=False))

    def encrypted_files(self) -> EncryptedFiles:
        """How many of the files are encrypted, those of previous generations included."""
        return self._files.encrypted_files()

    def _next(self, manifest: Manifest, segments: Iterable[SegmentRecord], *, undoable: bool) -> Manifest:
        return manifest.next(segments, keep_previous=self._keep_previous) if undoable else manifest.compacted(segments)

    def _size_bytes(self) -> int:
        return sum(record.size_bytes for record in self._files.read().files().values())

    def _merge_tail(
        self,
        manifest: Manifest,
        present: tuple[SegmentRecord, ...],
        segments: list[Segment],
        latest: SegmentRecord,
    ) -> list[SegmentRecord]:
        """The list's segments with ``latest``, the last of them merged if it is time for it."""
        records = [*present, latest]
        taken = tail_to_merge([record.metadata for record in records])
        if not taken:
            return records
        with self._files.try_compacting() as free:
            if not free:
                return records  # a compaction copies these very segments
            path = self._files.new_segment_path(manifest)
            with self._files.new_segment(path) as output, Spools(self._files.spool_directory) as spools:
                merge_segments(output, [*segments, *self._files.open_segments([latest])][-taken:], spools=spools)
        return [*records[:-taken], self._files.record(path)]

    def _compact_beside(self, name: str) -> None:
        """Merge the list on a thread, if it is still time for it then and nobody else does."""
        if not self._compacting.acquire(blocking=False):
            return

        def run() -> None:
            try:
                compact_if_due(self._files, name)
            except HashSetError as error:
                log.warning("a list could not be compacted, and will be with a later change: %s", error)
            finally:
                self._compacting.release()

        threading.Thread(target=run, name="uploadguard-compaction").start()


def _check_stored_alike(present: tuple[SegmentRecord, ...], signal_types: SignalTypes) -> None:
    """Raise :class:`ListError` if hashes of a signal type would be stored in two ways in one list."""
    for record in present:
        for name, info in record.metadata.signals.items():
            length_bytes, max_distance_bits = signal_types.get(name, (info.length_bytes, int(info.kind == "hamming")))
            if (info.length_bytes, info.kind) != (length_bytes, kind_of(max_distance_bits)):
                raise ListError(f"the list's {name} hashes were stored for another kind of look-up; use replace")


def _info(records: Iterable[SegmentRecord]) -> ListInfo:
    (info,) = summarise(record.metadata for record in records)
    return info
