"""Spools: what is collected on the way to a segment and read back once, kept out of the process's own memory."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from uploadguard.hashset.files import write_errors
from uploadguard.storage.files import TEMPORARY_SUFFIX

__all__ = ["PART_BYTES", "Spool", "Spools", "bytes_of", "parts_of"]

PART_BYTES = 1 << 20
"""What is taken from a spool, or an array, at a time."""

_WAITING_BYTES = 1 << 16
"""How much of a spool may be in memory; a small change needs no file."""

_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}
"""What ``open`` says where the system, or the file system, has no files without a name."""


class Spools:
    """Makes spools in one place, and closes them at the end of its block; maps of them live on.

    In a directory they are files without a name, mode 0600, that are gone with the process, however that ends. With
    None they are in memory: for what must not lie on a disk in clear.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.close()

    def new(self) -> Spool:
        """An empty spool."""
        if self._directory is None:
            return _MemorySpool()
        spool = _FileSpool(self._directory)
        self._closing.callback(spool.close)
        return spool


class Spool(ABC):
    """Bytes that are appended and then read by :meth:`map`. For one thread at a time."""

    size_bytes = 0

    @abstractmethod
    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` behind what is there. Raises :class:`~uploadguard.errors.HashSetWriteError`."""

    @abstractmethod
    def map(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """What was appended, one-dimensional and read-only. Nothing may be appended after that."""

    def close(self) -> None:  # noqa: B027 - what lies in memory needs none
        """Let go of it; what :meth:`map` gave stays."""


class _MemorySpool(Spool):
    def __init__(self) -> None:
        self._data = bytearray()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data
        self.size_bytes = len(self._data)

    def map(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        values = np.frombuffer(self._data, dtype)
        values.flags.writeable = False
        return values


class _FileSpool(Spool):
    """Has a file once there is more than a little."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._waiting = bytearray()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._waiting += data
        self.size_bytes += len(data)
        if len(self._waiting) > _WAITING_BYTES:
            self._write()

    def map(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        if self._descriptor < 0:
            return np.frombuffer(bytes(self._waiting), dtype)
        self._write()
        with write_errors(self._directory):
            mapped = mmap.mmap(self._descriptor, self.size_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype)

    def close(self) -> None:
        self._waiting = bytearray()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self) -> None:
        with write_errors(self._directory):
            if self._descriptor < 0:
                self._descriptor = _unnamed_file(self._directory)
            view = memoryview(self._waiting)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._waiting = bytearray()


def _unnamed_file(directory: Path) -> int:
    """A new file, mode 0600, that no name leads to. Raises ``OSError``."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
    path = directory / f".spool.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        path.unlink(missing_ok=True)  # another writer may have taken it for a dead one's
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def bytes_of(values: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array, copied only if it is not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def parts_of(values: npt.NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of a contiguous array, a part at a time."""
    data = bytes_of(values)
    for start in range(0, len(data), PART_BYTES):
        yield data[start : start + PART_BYTES]
