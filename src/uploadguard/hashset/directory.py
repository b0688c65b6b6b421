"""The files of a hash set's directory: the manifest, the segments, the locks, and what dead writers left."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from uploadguard.errors import ManifestError, SegmentError
from uploadguard.hashset.files import TEMPORARY_SUFFIX, sync_directory, try_lock, write_errors, write_lock
from uploadguard.hashset.manifest import (
    MANIFEST_NAME,
    SEGMENT_PATTERN,
    FileStamp,
    Manifest,
    SegmentRecord,
    read_manifest,
)
from uploadguard.hashset.segment import Segment

__all__ = ["COMPACTION_PREFIX", "Directory", "is_leftover"]

COMPACTION_PREFIX = ".compaction."
"""Begins the name of a segment that a compaction writes while it holds no write lock."""

_WRITE_LOCK = "write.lock"
_COMPACTION_LOCK = "compaction.lock"


class Directory:
    """One hash set's directory. Safe to share between threads and between processes."""

    def __init__(self, path: Path, lock_timeout_s: float) -> None:
        self.path = path
        self._lock_timeout_s = lock_timeout_s
        self._current: tuple[Manifest, FileStamp] | None = None

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is."""
        return self.path / MANIFEST_NAME

    def may_become_one(self) -> bool:
        """Whether the directory holds nothing but what a creation that was cut short may have left."""
        return all(path.name == _WRITE_LOCK or _is_temporary(path.name) for path in self.path.iterdir())

    def read(self) -> Manifest:
        """The manifest, parsed only if the file is another than last time. Raises :class:`ManifestError`."""
        current = self._current
        if current is not None:
            with contextlib.suppress(OSError):  # reading it says what is wrong
                if FileStamp.of(self.manifest_path.stat()) == current[1]:
                    return current[0]
        self._current = current = read_manifest(self.path)
        return current[0]

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the write lock. Raises :class:`~uploadguard.errors.HashSetBusyError`."""
        return write_lock(self.path / _WRITE_LOCK, self._lock_timeout_s)

    def compacting(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of compactions. Raises :class:`~uploadguard.errors.HashSetBusyError`."""
        return write_lock(self.path / _COMPACTION_LOCK, self._lock_timeout_s)

    def try_compacting(self) -> contextlib.AbstractContextManager[bool]:
        """Hold the lock of compactions if nobody else does; gives whether so."""
        return try_lock(self.path / _COMPACTION_LOCK)

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Manifest, FileStamp]]:
        """Hold the write lock; before and after, remove files that no generation names."""
        with self.locked():
            manifest, stamp = read_manifest(self.path)
            self._remove_leftovers()
            try:
                yield manifest, stamp
            finally:
                self._remove_leftovers()

    def new_segment_path(self, manifest: Manifest) -> Path:
        """Where a segment of the generation after ``manifest`` is to stand."""
        return self.path / f"segment-{manifest.generation + 1}-{secrets.token_hex(8)}.ugs"

    def record(self, path: Path) -> SegmentRecord:
        """What a manifest says of the segment that was written to ``path``."""
        with write_errors(path):
            return _record_of(Segment.open(path))

    def open_segments(
        self, records: Iterable[SegmentRecord], known: Mapping[str, Segment] | None = None
    ) -> list[Segment]:
        """Map these segments, or take them from ``known``, which is by checksum.

        Raises :class:`SegmentError`, and ``FileNotFoundError`` for a file that is not there.
        """
        return [self._open_segment(record, known if known is not None else {}) for record in records]

    def leftovers(self) -> list[Path]:
        """Files that no generation names: of a writer at work, or of a dead one. Raises ``OSError``."""
        in_use = self.read().files()
        return [path for path in self.path.iterdir() if is_leftover(path.name) and path.name not in in_use]

    def _remove_leftovers(self) -> None:
        """Remove temporary files, which are of dead writers since the lock is held, and segments out of use.

        Cleaning up never fails a change that is done: what cannot be removed now is left to the next writer.
        """
        with contextlib.suppress(OSError, ManifestError):
            # Which manifest a power failure would leave must be settled before the other one's segments go.
            sync_directory(self.path)
            in_use = read_manifest(self.path)[0].files()
            unused = [path for path in self.path.iterdir() if is_leftover(path.name) and path.name not in in_use]
            for path in unused:
                if not path.name.startswith(COMPACTION_PREFIX):
                    path.unlink()
            if any(path.name.startswith(COMPACTION_PREFIX) for path in unused):
                with self.try_compacting() as nobody_compacts:
                    for path in unused if nobody_compacts else ():
                        path.unlink(missing_ok=True)

    def _open_segment(self, record: SegmentRecord, known: Mapping[str, Segment]) -> Segment:
        segment = known.get(record.checksum)
        if segment is not None:
            return segment
        path = self.path / record.file
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


def is_leftover(name: str) -> bool:
    """Whether a file of that name, unless a manifest names it, is of a dead writer or a generation gone by."""
    return _is_temporary(name) or re.fullmatch(SEGMENT_PATTERN, name) is not None


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _record_of(segment: Segment) -> SegmentRecord:
    assert segment.path is not None
    return SegmentRecord(
        file=segment.path.name,
        size_bytes=segment.size_bytes,
        checksum=segment.checksum,
        metadata=segment.metadata,
    )
