"""The hash set: one writer at a time, any number of readers, one generation after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.errors import HashSetError, SegmentError, UnknownListError
from uploadguard.hashset.changes import (
    Compilation,
    ListUpdate,
    apply_change,
    compile_list,
    compile_update,
    of_list,
)
from uploadguard.hashset.compaction import Compaction, compact_if_due, compact_list, is_due, rewrite_staged
from uploadguard.hashset.directory import Directory, EncryptedFiles
from uploadguard.hashset.files import write_errors
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.inspection import HashSetStats, Verification, stats_of, verify_files
from uploadguard.hashset.manifest import Manifest
from uploadguard.hashset.metadata import ListInfo, Role
from uploadguard.hashset.rollback import ListRollback, find_list, roll_back, roll_back_list
from uploadguard.hashset.segment_writer import Compiling, Progress, SignalTypes
from uploadguard.hashset.staging import Staging
from uploadguard.logs import log
from uploadguard.storage.keys import Keys

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["HashSet", "ListUpdate"]

_LOAD_ATTEMPTS = 10


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
        self.staging = Staging(self._files, keep_previous, self._compact_beside)
        """Changes that are compiled and not in force."""

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
        how = Compilation(signal_types, source, progress, compiling)
        with self._files.writing() as (manifest, stamp):
            change = compile_list(self._files, manifest, name, entries, how, role=role, replace=replace, append=append)
            changed = apply_change(self._files, manifest, change, keep_previous=self._kept(undoable=undoable))
            self._files.write(changed, after=stamp)
            return of_list(changed.of_list(name))

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
        how = Compilation(signal_types, source, progress, compiling)
        with self._files.writing() as (manifest, stamp):
            change = compile_update(self._files, manifest, name, added, removed, how)
            if change is None:
                changed = manifest.confirm([name]).compacted(manifest.segments)
            else:
                changed = apply_change(self._files, manifest, change, keep_previous=self._kept(undoable=undoable))
            self._files.write(changed, after=stamp)
            (info,) = (info for info in changed.lists() if info.name == name)
        if change is None:
            return ListUpdate(info, changed.generation, 0, 0)
        if is_due(info):
            self._compact_beside(name)
        return ListUpdate(info, changed.generation, change.added, change.removed)

    def remove_list(self, name: str, *, purge: bool = False) -> None:
        """Take the list ``name`` out and put the new generation in force. Readers that still map it go on.

        Its files stay as long as a previous generation has them; ``purge`` drops all previous generations, and with
        them the files. What is staged for it goes with it. Raises :class:`UnknownListError`,
        :class:`~uploadguard.errors.HashSetBusyError`, :class:`~uploadguard.errors.HashSetWriteError`.
        """
        with self._files.writing() as (manifest, stamp):
            removed = manifest.of_list(name)
            if not removed:
                raise UnknownListError("there is no list of that name in the hash set")
            kept = [record for record in manifest.segments if record not in removed]
            changed = manifest.unstage(name).next(kept, keep_previous=0 if purge else self._keep_previous)
            self._files.write(changed, after=stamp)

    def rollback(self, generation: int | None = None) -> int:
        """Put a previous generation's lists in force again, by default the latest's. Returns the new generation.

        The generation in force until then becomes a previous one, so that a rollback can be taken back. Raises
        :class:`HashSetError` if there is no such generation, and :class:`SegmentError` if one of its files is damaged.
        """
        return roll_back(self._files, generation, self._keep_previous)

    def rollback_list(self, name: str, generation: int | None = None) -> ListRollback:
        """Put one list in force again as it is in a previous generation; all others stay as they are.

        By default that is the latest one in which it holds something else. A list that is not in force any more comes
        back. Raises :class:`HashSetError` if there is no such generation, and :class:`SegmentError` if one of its files
        is damaged.
        """
        return roll_back_list(self._files, name, generation, self._keep_previous)

    def find_rollback(self, name: str, generation: int | None = None) -> ListRollback:
        """What :meth:`rollback_list` would do now. Raises as it does."""
        return find_list(self._files, name, generation)

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
        rewrite_staged(self._files)
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

    def _kept(self, *, undoable: bool) -> int | None:
        """How many generations a change leaves to go back to; None: those that are there."""
        return self._keep_previous if undoable else None

    def _size_bytes(self) -> int:
        return sum(record.size_bytes for record in self._files.read().files().values())

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
