"""Reading an upload, whatever the host holds it in: bytes, a path or a binary file object.

The bytes are read once. Digests always cover all of them; they are kept for decoding only up to the size limit.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from uploadguard.errors import MediaReadError
from uploadguard.signals.digests import MultiDigest

__all__ = ["Data", "Upload", "UploadBuffer", "read_upload"]

Data: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""What a check takes: the bytes themselves, a path, or a binary file object."""

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """An upload that was read.

    ``content`` is None where the upload is over the size limit. ``digest`` has taken in all bytes, or none yet
    (``digested`` tells), if they are all in ``content``; none for good where an upload over the limit was not read.
    """

    size_bytes: int
    content: bytes | memoryview | None
    digest: MultiDigest
    digested: bool

    def __repr__(self) -> str:
        return f"Upload(<{self.size_bytes} bytes>)"


class UploadBuffer:
    """Takes an upload in as it arrives: digests run at once, the bytes are kept up to ``limit_bytes``."""

    def __init__(self, digest: MultiDigest, limit_bytes: int) -> None:
        self._digest = digest
        self._limit_bytes = limit_bytes
        self._kept: io.BytesIO | None = io.BytesIO()
        self._unread_bytes: int | None = None

    def leave_unread(self, size_bytes: int) -> None:
        """The upload has so many bytes, over the limit, and nobody reads them: there will be no digests.

        Raises ``ValueError`` for a size within the limit.
        """
        if size_bytes <= self._limit_bytes:
            raise ValueError("an upload within media.max_file_bytes must be read")
        self._kept, self._unread_bytes = None, size_bytes

    def write(self, chunk: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._digest.update(chunk)
        if self._kept is not None:
            if self._digest.size_bytes > self._limit_bytes:
                self._kept = None
            else:
                self._kept.write(chunk)

    def finish(self) -> Upload:
        """The upload; nothing may be written after this."""
        if self._unread_bytes is not None:
            return Upload(self._unread_bytes, None, MultiDigest(()), digested=False)
        content = self._kept.getbuffer() if self._kept is not None else None
        return Upload(self._digest.size_bytes, content, self._digest, digested=True)


def read_upload(data: Data, digest: MultiDigest, limit_bytes: int) -> Upload:
    """Read an upload.

    What fits the limit comes back in memory with its digests not yet computed, so that they can run beside decoding;
    larger ones are digested while they are read, and not kept. A file object is read from where it stands to its end
    and, if it can seek, put back there. Raises :class:`~uploadguard.errors.MediaReadError`.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        view = data if isinstance(data, bytes) else memoryview(data).cast("B")
        if len(view) <= limit_bytes:
            return Upload(len(view), view, digest, digested=False)
        digest.update(view)
        return Upload(len(view), None, digest, digested=True)
    if isinstance(data, (str, os.PathLike)):
        if not os.fspath(data):
            raise MediaReadError("the path is empty")
        path = Path(data)
        with _read_errors(path), open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MediaReadError("not a regular file", path=path)
            return _read_file(file, digest, limit_bytes)
    if not hasattr(data, "read") or hasattr(data, "encoding"):  # the latter is a file in text mode
        raise TypeError(f"data must be bytes, a path or a file object opened in binary mode, not {type(data).__name__}")
    with _read_errors(None):
        start = data.tell() if hasattr(data, "seekable") and data.seekable() else None
        try:
            return _read_file(data, digest, limit_bytes)
        finally:
            if start is not None:
                data.seek(start)


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would wait for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_file(file: BinaryIO | io.FileIO, digest: MultiDigest, limit_bytes: int) -> Upload:
    kept = bytearray()
    while len(kept) <= limit_bytes:
        chunk = file.read(min(_READ_BYTES, limit_bytes + 1 - len(kept)))
        if not isinstance(chunk, bytes):
            raise _not_bytes(chunk)
        if not chunk:
            return Upload(len(kept), memoryview(kept), digest, digested=False)
        kept += chunk
    digest.update(memoryview(kept))
    while chunk := file.read(_READ_BYTES):
        digest.update(chunk)
    if chunk is None:
        raise _not_bytes(chunk)
    return Upload(digest.size_bytes, None, digest, digested=True)


def _not_bytes(chunk: object) -> Exception:
    if chunk is None:
        return MediaReadError("the file object has no data yet: it does not wait for more (non-blocking)")
    return TypeError(f"data must be a file object opened in binary mode; its read() gave {type(chunk).__name__}")


@contextmanager
def _read_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise MediaReadError("no such file; it may have been moved or deleted", path=path) from error
        if error.errno == errno.EISDIR:
            raise MediaReadError("is a directory, not a file", path=path) from error
        raise MediaReadError(f"cannot be read: {error.strerror or type(error).__name__}", path=path) from error
    except ValueError as error:  # a closed file object, or a path with a NUL
        raise MediaReadError(f"cannot be read: {error}", path=path) from error
