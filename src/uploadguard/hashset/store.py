"""The hash set's directory: one writer at a time, any number of readers, one generation after the other."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.errors import HashSetError, ListError, ManifestError, SegmentError, UnknownListError
from uploadguard.hashset.files import TEMPORARY_SUFFIX, atomic_file, sync_directory, write_errors, write_lock
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.manifest import (
    MANIFEST_NAME,
    SEGMENT_PATTERN,
    FileStamp,
    Manifest,
    SegmentRecord,
    read_manifest,
    write_manifest,
)
from uploadguard.hashset.metadata import ListInfo, Role, check_list_name, summarise
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import Progress, SignalTypes, write_segment

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["HashSet"]

_LOCK_NAME = "write.lock"
_LOAD_ATTEMPTS = 10


class HashSet:
    """A directory of immutable segments and a manifest that names those in force.

    Every change writes new segments and then replaces the manifest in one step, so that a reader, or a crash at any
    moment, finds the old generation or the new one. Safe to share between threads and between processes.
    """

    def __init__(self, directory: Path, *, lock_timeout_s: float = 30.0) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.directory = directory
        self._lock_timeout_s = lock_timeout_s
        self._current: tuple[Manifest, FileStamp] | None = None

    @classmethod
    def create(cls, directory: Path | str, *, lock_timeout_s: float = 30.0) -> HashSet:
        """Create an empty hash set in ``directory``, which is made with mode 0700 or is empty.

        Raises :class:`HashSetError` if it holds anything, and :class:`HashSetWriteError`.
        """
        directory = Path(directory)
        with write_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        hash_set = cls(directory, lock_timeout_s=lock_timeout_s)
        if (directory / MANIFEST_NAME).exists():
            raise HashSetError(f"{directory}: there is a hash set already; open it")
        with write_errors(directory):
            # A creation that was cut short may have left these.
            if any(path.name != _LOCK_NAME and not _is_temporary(path.name) for path in directory.iterdir()):
                raise HashSetError(f"{directory}: is not empty; choose a directory of its own for the hash set")
            directory.chmod(0o700)
        with write_lock(directory / _LOCK_NAME, lock_timeout_s):
            if (directory / MANIFEST_NAME).exists():
                raise HashSetError(f"{directory}: another process has just created the hash set; open it")
            write_manifest(directory, Manifest(generation=0, segments=()))
        return hash_set

    @classmethod
    def open(cls, directory: Path | str, *, lock_timeout_s: float = 30.0) -> HashSet:
        """The hash set in ``directory``. Raises :class:`ManifestError` if there is none or it is damaged.

        ``lock_timeout_s`` is how long a change waits for another process's.
        """
        hash_set = cls(Path(directory), lock_timeout_s=lock_timeout_s)
        hash_set._read()
        return hash_set

    def __repr__(self) -> str:
        return f"HashSet({str(self.directory)!r})"

    @property
    def generation(self) -> int:
        """The number of the generation on disk; 0 has no lists. Raises :class:`ManifestError`."""
        return self._read().generation

    def changed_since(self, generation: int) -> bool:
        """Whether the generation on disk is another than this. One ``stat`` where nothing has changed."""
        return self.generation != generation

    def lists(self) -> tuple[ListInfo, ...]:
        """The lists on disk, in the order in which they were added. Raises :class:`ManifestError`."""
        return self._read().lists()

    def load(self, *, verify: bool = True, previous: Generation | None = None) -> Generation:
        """Open the generation on disk.

        ``verify`` reads every byte and compares checksums; segments that ``previous`` has open are taken from there,
        and are not read again if they were verified. Raises :class:`ManifestError` and :class:`SegmentError`.
        """
        known = {segment.checksum: segment for segment in previous.segments} if previous is not None else {}
        for _ in range(_LOAD_ATTEMPTS):
            manifest = self._read()
            try:
                segments = [self._open_segment(record, known) for record in manifest.segments]
            except FileNotFoundError as error:
                # A writer may have removed it since the manifest was read; if not, it is lost.
                if self._read().generation == manifest.generation:
                    raise SegmentError("is missing; import the list again", path=Path(error.filename)) from None
                continue
            for segment in segments if verify else ():
                segment.verify()
            return Generation.of(segments, number=manifest.generation)
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
        progress: Progress | None = None,
    ) -> ListInfo:
        """Import ``entries`` as the list ``name`` and put the new generation in force.

        A list of that name may be there only with ``replace``, which puts the entries in place of its own, or
        ``append``, which adds them. ``signal_types`` gives length_bytes and max_distance_bits by name. Other writers
        wait while ``entries`` are read.

        Raises :class:`ListError` for a name that is taken or not one, :class:`EmptyListError`,
        :class:`ListFormatError`, :class:`HashSetBusyError`, :class:`HashSetWriteError`, and whatever ``entries``
        raises; in all these cases nothing is changed.
        """
        check_list_name(name)
        if replace and append:
            raise ValueError("replace or append, not both")
        with self._writing() as (manifest, stamp):
            present = manifest.of_list(name)
            if present and not (replace or append):
                raise ListError("there is a list of that name; use replace to put this in its place, or append to it")
            if present and append and present[0].metadata.role != role:
                raise ListError(f"the list is of the role {present[0].metadata.role!r}, not {role!r}; use replace")
            path = self.directory / f"segment-{manifest.generation + 1}-{secrets.token_hex(8)}.ugs"
            with atomic_file(path) as output:
                write_segment(
                    output, entries, signal_types, list_name=name, role=role, source=source, progress=progress
                )
            kept = [record for record in manifest.segments if not replace or record not in present]
            with write_errors(path):
                added = _record_of(Segment.open(path))
            write_manifest(self.directory, manifest.next([*kept, added]), after=stamp)
            mine = [record.metadata for record in (*kept, added) if record.metadata.list_name == name]
            return summarise(mine)[0]

    def remove_list(self, name: str) -> None:
        """Take the list ``name`` out and put the new generation in force. Readers that still map it go on.

        Raises :class:`UnknownListError`, :class:`HashSetBusyError`, :class:`HashSetWriteError`.
        """
        with self._writing() as (manifest, stamp):
            removed = manifest.of_list(name)
            if not removed:
                raise UnknownListError("there is no list of that name in the hash set")
            kept = [record for record in manifest.segments if record not in removed]
            write_manifest(self.directory, manifest.next(kept), after=stamp)

    def _read(self) -> Manifest:
        """The manifest on disk, parsed only if the file is another than last time."""
        current = self._current
        if current is not None:
            with contextlib.suppress(OSError):  # reading it says what is wrong
                if FileStamp.of((self.directory / MANIFEST_NAME).stat()) == current[1]:
                    return current[0]
        self._current = current = read_manifest(self.directory)
        return current[0]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Manifest, FileStamp]]:
        """Hold the write lock; before and after, remove files that no generation in force names."""
        with write_lock(self.directory / _LOCK_NAME, self._lock_timeout_s):
            manifest, stamp = read_manifest(self.directory)
            self._remove_leftovers()
            try:
                yield manifest, stamp
            finally:
                self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove temporary files, which are of dead writers since the lock is held, and segments out of use.

        Cleaning up never fails a change that is done: what cannot be removed now is left to the next writer.
        """
        with contextlib.suppress(OSError, ManifestError):
            # Which manifest a power failure would leave must be settled before the other one's segments go.
            sync_directory(self.directory)
            in_use = {record.file for record in read_manifest(self.directory)[0].segments}
            for path in self.directory.iterdir():
                if _is_temporary(path.name) or (_is_segment(path.name) and path.name not in in_use):
                    path.unlink()

    def _open_segment(self, record: SegmentRecord, known: dict[str, Segment]) -> Segment:
        segment = known.get(record.checksum)
        if segment is not None:
            return segment
        path = self.directory / record.file
        try:
            segment = Segment.open(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SegmentError(
                f"cannot be read ({error.strerror or error}); check its permissions", path=path
            ) from error
        if _record_of(segment) != record:
            raise SegmentError("is not the file that the manifest names; import the list again", path=path)
        return segment


def _record_of(segment: Segment) -> SegmentRecord:
    assert segment.path is not None
    return SegmentRecord(
        file=segment.path.name,
        size_bytes=segment.size_bytes,
        checksum=segment.checksum,
        metadata=segment.metadata,
    )


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _is_segment(name: str) -> bool:
    return re.fullmatch(SEGMENT_PATTERN, name) is not None
