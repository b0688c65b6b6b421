"""Where decisions wait while the database is down: files that are only appended to.

A record is on the disk before it is acknowledged. A file is written by one process, which holds a lock on it
(``flock``) as long as it does, and drained by whoever gets that lock. A record is a frame: its length, the CRC-32 of
that and of the rest, and JSON. A frame that ends early was never acknowledged. Where a whole frame is damaged, the disk
lost something: the file is kept, under another name, for a person to look at.

Draining hands records over and then removes the file. Killed in between, it hands them over again: whoever takes them
must not mind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from uploadguard.errors import LedgerDownError, LedgerError, NotRecordedError
from uploadguard.logs import log
from uploadguard.storage.files import sync_directory

__all__ = ["Spool", "SpoolStatus"]

_HEADER: Final = struct.Struct(">III")
_MAX_FILE_BYTES: Final = 64 << 20
"""A writer goes on in a new file beyond this, so that draining goes in steps."""
_BATCH: Final = 64
_SUFFIX: Final = ".spool"
_DAMAGED: Final = ".damaged"
_REFUSED: Final = ".refused"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """What waits. ``oldest_at`` is when the oldest file was begun, in seconds since 1970.

    ``damaged`` counts the files that a person must look at: those that the disk damaged, and those with records that
    the database will not take.
    """

    files: int
    size_bytes: int
    oldest_at: float | None
    damaged: int


class Spool:
    """The spool in ``directory``, which is made when it is first needed. Shared between threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path: Path | None = None
        self._end = 0
        self._process = os.getpid()
        self._closed = False

    def __del__(self) -> None:
        # One that was forgotten must not keep others from draining its file.
        self._let_go()

    def append(self, record: Record) -> None:
        """Keep a record: it is on the disk when this returns.

        Raises :class:`~uploadguard.errors.NotRecordedError` where the disk does not take it; then it is not, or not
        certainly, there.
        """
        payload = json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii")
        frame = _HEADER.pack(len(payload), _length_checksum(len(payload)), zlib.crc32(payload)) + payload
        try:
            with self._lock:
                self._append(frame)
                if self._closed:
                    self._let_go()
        except OSError as error:
            raise NotRecordedError(
                f"{self._directory}: the spool cannot be written ({error.strerror or type(error).__name__}): "
                "check free space, quota and permissions"
            ) from error

    def probe(self) -> None:
        """Find out whether the disk takes writes again. Raises :class:`~uploadguard.errors.NotRecordedError`."""
        path = self._directory / f"{secrets.token_hex(8)}.probe"
        try:
            self._make_directory()
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, bytes(4096))
                os.fsync(fd)
            finally:
                os.close(fd)
                path.unlink()
        except OSError as error:
            raise NotRecordedError(
                f"{self._directory}: the spool cannot be written ({error.strerror or type(error).__name__})"
            ) from error

    def status(self) -> SpoolStatus:
        """What waits, of all processes."""
        files = size_bytes = damaged = 0
        oldest: float | None = None
        with suppress(OSError), os.scandir(self._directory) as found:
            for item in found:
                if item.name.endswith((_DAMAGED, _REFUSED)):
                    damaged += 1
                elif item.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):
                        size = item.stat().st_size
                        files += size > 0
                        size_bytes += size
                        if size:
                            begun = float(item.name.partition("-")[0]) / 1e3
                            oldest = begun if oldest is None else min(oldest, begun)
        return SpoolStatus(files, size_bytes, oldest, damaged)

    def drain(self, take: Callable[[Sequence[Record]], None]) -> int:
        """Hand what waits to ``take``, some dozens at a time, and remove it; returns how many records.

        ``take`` raises :class:`~uploadguard.errors.LedgerDownError` where there is no use in going on, which passes
        through; what it raises else is the record's fault: that record is set aside in a file of its own, and logged.
        Raises :class:`~uploadguard.errors.LedgerError` where a file cannot be read or removed.
        """
        with self._lock:
            self._let_go()
        drained = 0
        failed: LedgerError | None = None
        for path in self._waiting():
            try:
                drained += self._drain_file(path, take)
            except OSError as error:  # the others are not to wait for this one
                failed = LedgerError(f"{path}: cannot be drained: {error.strerror}")
        if failed is not None:
            raise failed
        return drained

    def readmit(self, take: Callable[[Sequence[Record]], None]) -> Iterator[tuple[Path, Exception | None]]:
        """Try once more what was set aside: each file, and why the database still will not take it, if so.

        Raises :class:`~uploadguard.errors.LedgerDownError`. What the disk damaged is not among it.
        """
        for path in sorted(self._directory.glob(f"*{_REFUSED}")):
            try:
                take([json.loads(path.read_bytes())])
                path.unlink()
            except LedgerDownError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the record stays where it is
                yield path, error
            else:
                yield path, None

    def close(self) -> None:
        """Let go of the file, so that others can drain it. What is appended after that is let go of at once."""
        with self._lock:
            self._closed = True
            self._let_go()

    def after_fork(self) -> None:
        """In a forked child: the file, and the lock on it, are the parent's."""
        self._lock = threading.Lock()
        self._let_go()
        self._process = os.getpid()

    def _append(self, frame: bytes) -> None:
        is_gone = self._path is not None and not self._path.exists()  # what is appended to it nobody would find
        if self._fd is None or self._end > _MAX_FILE_BYTES or is_gone:
            self._let_go()
            self._begin()
        assert self._fd is not None
        try:
            written = 0
            while written < len(frame):
                written += os.write(self._fd, frame[written:])
            os.fdatasync(self._fd)
        except OSError:
            # After a failed write the rest may or may not be there; after a failed sync nothing is known of what is.
            # What can be cut off is; in any case nothing is ever appended behind it.
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
                os.fdatasync(self._fd)
            self._let_go()
            raise
        self._end += len(frame)

    def _begin(self) -> None:
        """Begin a new file."""
        self._make_directory()
        while True:
            name = f"{time.time_ns() // 1_000_000}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            path = self._directory / name
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                # Whoever drains may have been faster, and found an empty file.
                if _try_lock(fd) and os.fstat(fd).st_nlink:
                    sync_directory(self._directory)
                    self._fd, self._path, self._end = fd, path, 0
                    return
            except OSError:
                os.close(fd)
                with suppress(OSError):
                    path.unlink()
                raise
            os.close(fd)

    def _make_directory(self) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory.parent)

    def _let_go(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            if self._process == os.getpid():
                if self._end == 0 and self._path is not None:
                    with suppress(OSError):
                        self._path.unlink()
                _unlock(fd)
            with suppress(OSError):
                os.close(fd)
        self._path = None

    def _waiting(self) -> list[Path]:
        try:
            return sorted(path for path in self._directory.iterdir() if path.name.endswith(_SUFFIX))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LedgerError(f"{self._directory}: the spool cannot be read: {error.strerror}") from error

    def _drain_file(self, path: Path, take: Callable[[Sequence[Record]], None]) -> int:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        with os.fdopen(fd, "rb") as file:
            if not _try_lock(fd):
                return 0  # another process writes or drains it
            try:
                return self._drain_locked(path, file, take) if os.fstat(fd).st_nlink else 0
            finally:
                _unlock(fd)

    def _drain_locked(self, path: Path, file: BinaryIO, take: Callable[[Sequence[Record]], None]) -> int:
        frames = _Frames(file)
        done = 0
        batch: list[Record] = []
        for record in frames:
            batch.append(record)
            if len(batch) == _BATCH:
                done += self._hand_over(batch, take)
                batch = []
        if batch:
            done += self._hand_over(batch, take)
        if frames.damaged:
            log.error("%s: is damaged: what is behind byte %d could not be read; it is kept", path, frames.sound)
            path.rename(path.with_name(path.name + _DAMAGED))
        else:
            path.unlink()
        sync_directory(self._directory)
        return done

    def _hand_over(self, batch: list[Record], take: Callable[[Sequence[Record]], None]) -> int:
        try:
            take(batch)
            return len(batch)
        except LedgerDownError:
            raise
        except Exception:  # noqa: BLE001 - one of them is at fault; which?
            if len(batch) > 1:
                return sum(self._hand_over([one], take) for one in batch)
            self._set_aside(batch[0])
            return 0

    def _set_aside(self, record: Record) -> None:
        """Keep a record that the database will not take, where a person can look; once, however often it comes."""
        payload = json.dumps(record).encode("ascii")
        path = self._directory / f"{hashlib.sha256(payload).hexdigest()[:32]}{_REFUSED}"
        if path.exists():
            return
        unfinished = path.with_suffix(f".{secrets.token_hex(4)}.probe")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(fd)
            unfinished.rename(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise
        sync_directory(self._directory)
        log.error("%s: a decision that the database will not take was set aside here", path)


class _Frames:
    """The records of a file, up to the end or to what is damaged.

    ``sound`` is how many bytes were read as whole frames. A file may end within a frame that was never acknowledged.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.damaged = False
        self.sound = 0

    def __iter__(self) -> Iterator[Record]:
        while True:
            header = self._file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return
            length, length_checksum, checksum = _HEADER.unpack(header)
            if length_checksum != _length_checksum(length):
                # Zeros are what a power failure leaves of a file that had grown but was not written.
                self.damaged = any(header) or any(self._file.read(_MAX_FILE_BYTES))
                return
            payload = self._file.read(length)
            if len(payload) < length:
                return
            if zlib.crc32(payload) != checksum:
                self.damaged = True
                return
            self.sound += _HEADER.size + length
            yield json.loads(payload)


def _length_checksum(length: int) -> int:
    return zlib.crc32(length.to_bytes(4))


def _unlock(fd: int) -> None:
    """Give the lock up, and not only by closing: a child that was forked meanwhile may have the file open too."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
