"""Reports and callbacks as JSON lines in a file, for whatever the host has that reads files.

A line stands in the file whole or not at all, as readers see it: what a crash left of one is closed by a line end, and
:func:`read_records` passes it over. What was appended since the first attempt began is searched for the task's key, so
a record is not written twice, as long as its file stays where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from uploadguard.actions import Journal, Receipt, Task
from uploadguard.config_types import Flag, Whole
from uploadguard.destinations.body import task_json
from uploadguard.destinations.options import (
    Destination,
    DestinationOptions,
    OptionsError,
    plain_error,
    read_options,
)
from uploadguard.errors import PostponedError
from uploadguard.storage.files import sync_directory

__all__ = ["FileDrop", "FileDropOptions", "read_records", "rotated"]

_MODE = 0o600
_NOTE = "file"


class FileDropOptions(DestinationOptions):
    """``path`` is the file, ``max_bytes`` its size from which on the next record goes into a new one; 0 is any."""

    kind: Literal["file"]
    path: Path
    max_bytes: Annotated[Whole, Field(ge=0)] = 0
    hashes: Flag = False


class FileDrop(Destination):
    """Appends each task to a file as one line, ``fsync``-ed before it counts as done. Several processes may do so.

    A full file is renamed: to its name with ``.1`` behind it, the next one with ``.2``, and so on.
    """

    def __init__(self, name: str, table: Mapping[str, Any], error: OptionsError = plain_error) -> None:
        options = read_options(FileDropOptions, name, table, error)
        super().__init__(name, options)
        self._path = options.path
        self._max_bytes = options.max_bytes
        self._hashes = options.hashes

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        """Append the task, unless an earlier attempt did. Raises ``PostponedError`` where the disk refuses."""
        if task.cancelled:
            return Receipt(facts={"written": False})
        line = task_json(task, hashes=self._hashes) + b"\n"
        before = task.notes.get(_NOTE)
        try:
            if before is None:
                with _locked(self._path) as descriptor:
                    before = _end_of(descriptor)
                journal.note(**{_NOTE: before})
            with _locked(self._path) as descriptor:
                _close_torn_line(descriptor)
                # Even in a first attempt: it may have been so slow that another worker took over.
                found = self._find(task.key, before)
                if found is not None:
                    _sync(found)
                else:
                    self._append(descriptor, line)
            sync_directory(self._path.parent)
        except OSError as error:
            reason = f"{self._path}: cannot be written ({error.strerror or error})"
            raise PostponedError(reason, outage=True) from None
        return Receipt(facts={"written": True})

    def _append(self, descriptor: int, line: bytes) -> None:
        size_bytes = os.fstat(descriptor).st_size
        if self._max_bytes and size_bytes and size_bytes + len(line) > self._max_bytes:
            self._path.rename(_next_name(self._path))
            sync_directory(self._path.parent)
            # Others wait for the lock of the file that was just renamed, and look again then.
            with _locked(self._path) as fresh:
                _close_torn_line(fresh)
                _write(fresh, line)
        else:
            _write(descriptor, line)

    def _find(self, key: str, before: Mapping[str, int]) -> Path | None:
        """The file with a record of this key, searched from where the file ended before the first attempt."""
        files = [*rotated(self._path), self._path]
        started = next((at for at, file in enumerate(files) if file.stat().st_ino == before["inode"]), None)
        for at, file in enumerate(files[started or 0 :]):
            offset = before["size_bytes"] if started is not None and at == 0 else 0
            if any(record["data"]["key"] == key for record in read_records(file, offset=offset)):
                return file
        return None


def read_records(path: Path, *, offset: int = 0) -> Iterator[dict[str, Any]]:
    """The records in a file, from its byte ``offset`` on; two of the same ``data.key`` are the same report.

    Passes over what a crash left of a line, and over the last line as long as it has no end. Raises ``OSError``.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and isinstance(record.get("data"), dict) and "key" in record["data"]:
                    yield record


def rotated(path: Path) -> list[Path]:
    """The full files that were renamed, the oldest first. Raises ``OSError``."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]*)")
    found = [(match, entry) for entry in path.parent.iterdir() if (match := pattern.fullmatch(entry.name))]
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in found)]


def _next_name(path: Path) -> Path:
    last = max((int(one.name.rpartition(".")[2]) for one in rotated(path)), default=0)
    return path.with_name(f"{path.name}.{last + 1}")


def _end_of(descriptor: int) -> dict[str, int]:
    """Which file it is and how long: where to search for a record that is written from now on."""
    found = os.fstat(descriptor)
    return {"inode": found.st_ino, "size_bytes": found.st_size}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made if there is none, held against other writers."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("not a regular file")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if _is_still(path, found.st_ino):
                    yield descriptor
                    return
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile would keep the lock of a mere close
        finally:
            os.close(descriptor)


def _is_still(path: Path, inode: int) -> bool:
    """Whether nobody renamed the file while its lock was waited for."""
    try:
        return path.stat().st_ino == inode
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    """What an attempt wrote that died before it could say so may not be on the disk yet."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close_torn_line(descriptor: int) -> None:
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
        _write(descriptor, b"\n")


def _write(descriptor: int, data: bytes) -> None:
    """Append all of it, on the disk; on an error the file is as before, as far as the disk allows."""
    size_bytes = os.fstat(descriptor).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        # Pages that could not be written may count as written from now on: whoever tries again must write them anew.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size_bytes)
        raise
