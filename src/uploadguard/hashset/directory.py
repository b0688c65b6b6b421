"""The files of a hash set's directory: the manifest, the segments, the locks, and what dead writers left."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uploadguard.errors import ManifestError, SegmentError
from uploadguard.hashset.files import (
    AtomicFile,
    atomic_file,
    try_lock,
    write_errors,
    write_lock,
)
from uploadguard.hashset.layout import HEADER_BYTES
from uploadguard.hashset.manifest import (
    MANIFEST_NAME,
    SEGMENT_PATTERN,
    FileStamp,
    Manifest,
    ManifestFile,
    SegmentRecord,
    read_manifest,
    write_manifest,
)
from uploadguard.hashset.segment import Segment
from uploadguard.storage.encryption import Encryptor, key_id_of
from uploadguard.storage.files import TEMPORARY_SUFFIX, Output, sync_directory
from uploadguard.storage.keys import Keys

__all__ = ["COMPACTION_PREFIX", "Directory", "EncryptedFiles", "is_leftover"]

COMPACTION_PREFIX = ".compaction."
"""Begins the name of a segment that a compaction writes while it holds no write lock."""

_WRITE_LOCK = "write.lock"
_COMPACTION_LOCK = "compaction.lock"


class Directory:
    """One hash set's directory. Safe to share between threads and between processes."""

    def __init__(self, path: Path, lock_timeout_s: float, keys: Keys | None = None) -> None:
        self.path = path
        self.keys = keys
        self._lock_timeout_s = lock_timeout_s
        self._current: ManifestFile | None = None

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
                if FileStamp.of(self.manifest_path.stat()) == current.stamp:
                    return current.manifest
        self._current = current = read_manifest(self.path, self.keys)
        return current.manifest

    def write(self, manifest: Manifest, *, after: FileStamp | None = None) -> None:
        """Put ``manifest`` in force after the one of that stamp; see :func:`write_manifest`."""
        write_manifest(self.path, manifest, after=after, keys=self.keys)

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
            manifest, stamp, _ = read_manifest(self.path, self.keys)
            self._remove_leftovers()
            try:
                yield manifest, stamp
            finally:
                self._remove_leftovers()

    def new_segment_path(self, manifest: Manifest) -> Path:
        """Where a segment of the generation after ``manifest`` is to stand."""
        return self.path / f"segment-{manifest.generation + 1}-{secrets.token_hex(8)}.ugs"

    @contextlib.contextmanager
    def new_segment(self, path: Path, *, prefix: str = ".") -> Iterator[NewSegment]:
        """Write a segment, encrypted if there is a key for it; see :func:`~uploadguard.hashset.files.atomic_file`."""
        with atomic_file(path, prefix=prefix) as file:
            key = self.keys.writing if self.keys is not None else None
            encryptor = Encryptor(file, key, "segment") if key is not None else None
            yield NewSegment(file, encryptor)
            if encryptor is not None:
                encryptor.finish()

    def record(self, path: Path) -> SegmentRecord:
        """What a manifest says of the segment that was written to ``path``."""
        with write_errors(path):
            return _record_of(Segment.open(path, keys=self.keys))

    def is_as_configured(self, record: SegmentRecord) -> bool:
        """Whether a segment is encrypted with the key to write with, or plain if there is none."""
        try:
            return self._key_id(record) == self._writing_id
        except OSError:
            return True  # opening it says what is wrong

    def manifest_is_as_configured(self) -> bool:
        """The same of the manifest. Raises :class:`ManifestError`."""
        return read_manifest(self.path, self.keys).key_id == self._writing_id

    def encrypted_files(self) -> EncryptedFiles:
        """Count the files that are encrypted. Raises :class:`ManifestError`."""
        manifest, _, key_id = read_manifest(self.path, self.keys)
        found = [key_id]
        for record in manifest.files().values():
            with contextlib.suppress(OSError):  # removed meanwhile, or verifying says what is wrong
                found.append(self._key_id(record))
        return EncryptedFiles(
            len(found), sum(item is not None for item in found), sum(item == self._writing_id for item in found)
        )

    def _key_id(self, record: SegmentRecord) -> bytes | None:
        with (self.path / record.file).open("rb") as file:
            return key_id_of(file.read(HEADER_BYTES))

    @property
    def spool_directory(self) -> Path | None:
        """Where a writer may put files without a name on its way to a segment; None: nowhere, they would be plain."""
        return self.path if self._writing_id is None else None

    @property
    def _writing_id(self) -> bytes | None:
        return self.keys.writing.id if self.keys is not None and self.keys.writing is not None else None

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
            in_use = read_manifest(self.path, self.keys).manifest.files()
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
            segment = Segment.open(path, keys=self.keys)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SegmentError(
                f"cannot be read ({error.strerror or error}); check its permissions", path=path
            ) from error
        if _record_of(segment) != record:
            raise SegmentError("is not the file that the manifest names; import the list again", path=path)
        return segment


@dataclass(frozen=True, slots=True)
class EncryptedFiles:
    """Of the manifest and all segments that are kept: how many there are, are encrypted, and are so as configured."""

    files: int
    encrypted: int
    as_configured: int


class NewSegment:
    """A segment while it is written: an :class:`~uploadguard.storage.files.Output`."""

    def __init__(self, file: AtomicFile, encryptor: Encryptor | None) -> None:
        self._file = file
        self._output: Output = encryptor if encryptor is not None else file

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of ``data``."""
        self._output.write(data)

    def seek(self, offset: int, /) -> None:
        """Go to ``offset`` from the start."""
        self._output.seek(offset)

    def sync(self) -> None:
        """Bring what was written so far to the disk, but for two chunks at most of an encrypted one."""
        self._file.sync()


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
