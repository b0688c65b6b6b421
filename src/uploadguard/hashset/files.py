"""Files that appear whole or not at all, and the lock that lets one process write at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from uploadguard.errors import HashSetBusyError, HashSetWriteError
from uploadguard.storage.files import TEMPORARY_SUFFIX, sync_directory

__all__ = ["AtomicFile", "atomic_file", "try_lock", "write_errors", "write_lock"]

_BUFFER_BYTES = 1 << 20
_LOCK_POLL_S = 0.02


class AtomicFile:
    """A file whose every failure is a :class:`HashSetWriteError` that names ``path``, where it will stand."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of ``data``."""
        with write_errors(self._path):
            self._file.write(data)

    def seek(self, offset: int, /) -> None:
        """Go to ``offset`` from the start."""
        with write_errors(self._path):
            self._file.seek(offset)

    def sync(self) -> None:
        """Bring what was written so far to the disk."""
        with write_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside into a :class:`HashSetWriteError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise HashSetWriteError(
            f"{path}: cannot be written ({error.strerror or error}); the hash set is unchanged. "
            "Check free space, quota and permissions, and try again"
        ) from error


@contextlib.contextmanager
def atomic_file(path: Path, *, newer_than_ns: int = 0, prefix: str = ".") -> Iterator[AtomicFile]:
    """Write a new file, mode 0600, that replaces ``path`` in one step, on the disk, when the block ends well.

    Its time of modification will be above ``newer_than_ns``, whatever the clock's steps. If the block raises, or the
    disk refuses (:class:`HashSetWriteError`), ``path`` stays as it was and nothing is left beside it. ``prefix`` begins
    the name that the file has until then.
    """
    temporary = path.parent / f"{prefix}{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"
    with write_errors(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "wb", _BUFFER_BYTES)
    try:
        yield AtomicFile(file, path)
        with write_errors(path):
            file.flush()
            modified_ns = os.fstat(descriptor).st_mtime_ns
            if modified_ns <= newer_than_ns:
                os.utime(descriptor, ns=(newer_than_ns + 1, newer_than_ns + 1))
            os.fsync(descriptor)
            file.close()
            temporary.replace(path)
    except BaseException:
        # Closing flushes, which may fail once more, but the descriptor is closed all the same.
        with contextlib.suppress(OSError):
            file.close()
        # What cannot be removed here is removed by the next writer.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise HashSetWriteError(
            f"{path}: the disk did not confirm it ({error.strerror or error}), so it may not outlast a power failure. "
            "Check the disk, and try again"
        ) from error


@contextlib.contextmanager
def write_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock on ``path`` inside the block; it ends with its process, however that ends.

    Raises :class:`HashSetBusyError` after ``timeout_s``.
    """
    with write_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path, timeout_s)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile would keep the lock of a mere close
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock on ``path`` inside the block if nobody else does; gives whether so."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(write_lock(path, 0))
        except HashSetBusyError:
            free = False
        else:
            free = True
        yield free


def _lock(descriptor: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with contextlib.suppress(InterruptedError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise HashSetBusyError(
                    f"{path}: another process has been changing the hash set for over {timeout_s:g} s; "
                    "wait for it to end and try again"
                ) from None
        time.sleep(_LOCK_POLL_S)
