"""Files as they are at their worst: without an end, slow, or failing half-way."""

from __future__ import annotations

import io
from collections.abc import Callable

__all__ = ["EndlessFile", "FailingFile", "ShortReads"]

_GIVE_UP_BYTES = 16 << 20


class EndlessFile(io.RawIOBase):
    """A list that goes on for ever, made as it is read. Raises ``AssertionError`` for whoever wants all of it."""

    def __init__(self, header: bytes, separator: bytes, entry: Callable[[int], bytes]) -> None:
        self._separator = separator
        self._entry = entry
        self._index = 0
        self._pending = header
        self.bytes_read = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer."""
        parts, length = [self._pending], len(self._pending)
        while length < len(buffer):
            part = self._entry(self._index) + self._separator
            self._index += 1
            parts.append(part)
            length += len(part)
        data = b"".join(parts)
        buffer[:], self._pending = data[: len(buffer)], data[len(buffer) :]
        self.bytes_read += len(buffer)
        if self.bytes_read > _GIVE_UP_BYTES:
            raise AssertionError("the reader wants the whole file before it yields entries")
        return len(buffer)


class ShortReads(io.BytesIO):
    """A file that gives at most ``size_bytes`` at a time, as a socket may."""

    def __init__(self, data: bytes, size_bytes: int) -> None:
        super().__init__(data)
        self._size_bytes = size_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size_bytes``."""
        return super().read(self._size_bytes if size is None or size < 0 else min(size, self._size_bytes))

    def read1(self, size: int | None = -1, /) -> bytes:
        """As :meth:`read`."""
        return self.read(size)


class FailingFile(io.BytesIO):
    """A file that cannot be read past its first bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The bytes there are; then raises ``OSError``."""
        return super().read(size) or self._fail()

    def read1(self, size: int | None = -1, /) -> bytes:
        """As :meth:`read`."""
        return self.read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As :meth:`read`."""
        return super().readline(size) or self._fail()

    def __next__(self) -> bytes:
        return self.readline()

    def _fail(self) -> bytes:
        raise OSError("the disk is gone")
