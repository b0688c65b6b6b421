"""How decoders read an upload from memory, can be stopped in the middle, and fail in one way only."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from uploadguard.media.base import DecodeError, Source

__all__ = ["BytesSource", "MemoryFile", "PartSource", "WatchedSource", "library_errors"]


class BytesSource:
    """An upload in memory that nobody interrupts."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data

    def check(self) -> None:
        """Nothing to wait for."""


class PartSource:
    """A part of another source, for a picture inside a file."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source = source
        self.data = memoryview(source.data)[start:stop]

    def check(self) -> None:
        """Ask the whole source."""
        self._source.check()


class WatchedSource:
    """A source that remembers what its ``check()`` raised, for libraries that swallow or wrap exceptions.

    ``data`` is a flat view of bytes. ``interrupted`` is the exception, None until there is one. ``picture_end`` is
    where the picture in it ends, for decoders that can make use of it; None where that is not known.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.data = memoryview(source.data).cast("B")
        self.interrupted: BaseException | None = None
        self.picture_end: int | None = None

    def check(self) -> None:
        """Ask the source; raises what it raises, and goes on raising it."""
        self.raise_interrupted()
        try:
            self._source.check()
        except BaseException as error:
            self.interrupted = error
            raise

    def raise_interrupted(self) -> None:
        """Raise again what ``check()`` has raised, if it has."""
        if self.interrupted is not None:
            raise self.interrupted


@contextmanager
def library_errors(source: WatchedSource, what: str) -> Iterator[None]:
    """Turn what a decoder library raises into a :class:`DecodeError` that names ``what`` and the exception's class.

    Only a ``MemoryError`` passes through. The library's own words are left out: they may quote the file.
    """
    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoder libraries raise anything
        source.raise_interrupted()
        raise DecodeError(f"{what} ({type(error).__name__})") from None
    source.raise_interrupted()


class MemoryFile:
    """A read-only binary file over a :class:`WatchedSource`: each read asks ``check()`` and copies one slice.

    ``data`` stands in for the source's own where a part of it is enough.
    """

    def __init__(self, source: WatchedSource, data: bytes | memoryview | None = None) -> None:
        self._source = source
        self._data = source.data if data is None else memoryview(data)
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next ``size`` bytes, fewer at the end; all that is left for a negative ``size``."""
        self._source.check()
        start = self._at
        stop = len(self._data) if size is None or size < 0 else min(start + size, len(self._data))
        if stop <= start:
            return b""
        self._at = stop
        return bytes(self._data[start:stop])

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place, which may lie behind the end; raises ``ValueError`` for one before the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError("negative file position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The current place."""
        return self._at

    def getvalue(self) -> memoryview:
        """The whole file without a copy; Pillow's libtiff reader asks for it."""
        self._source.check()
        return self._data

    def close(self) -> None:
        """Nothing is open."""
