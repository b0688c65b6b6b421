"""A request's body, written anew from the parts that were read and checked, for the application behind a middleware.

Nothing that the form's reader skipped comes through, and names are written as all readers read them, so no application
can find in it what was not checked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, BinaryIO, TypeAlias

from uploadguard.web.arriving import IN_MEMORY_BYTES
from uploadguard.web.multipart import Part, ReceivedForm

__all__ = ["Replay"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]

_CHUNK_BYTES = 256 * 1024
_OWN_HEADERS = (b"content-disposition", b"content-length")
_QUOTED = str.maketrans({char: f"%{ord(char):02X}" for char in '\\"\r\n\0'})


class Replay:
    """The body of a received form, or of a file that was the whole body. Its files are read as the body is.

    ``headers`` are the request's, with those changed that tell of the body.
    """

    def __init__(self, received: ReceivedForm, headers: list[tuple[bytes, bytes]]) -> None:
        self._parts = received.parts
        self._boundary = b"--" + secrets.token_hex(16).encode()
        self._is_file = len(self._parts) == 1 and self._parts[0].filename is None and self._parts[0].arrived is not None
        self.headers = [
            (name, value)
            for name, value in headers
            if name.lower() not in (b"content-length", b"transfer-encoding")
            and (self._is_file or name.lower() != b"content-type")
        ]
        self.headers.append((b"content-length", str(self._size_bytes()).encode()))
        if not self._is_file:
            self.headers.append((b"content-type", b"multipart/form-data; boundary=" + self._boundary[2:]))

    def receive_before(self, receive: _Receive) -> _Receive:
        """The application's ``receive``: the body, and then what the server's tells."""
        chunks = self._chunks()
        ended = False

        async def replay() -> _Message:
            nonlocal ended
            if ended:
                return await receive()
            chunk = await anext(chunks, b"")
            ended = not chunk
            return {"type": "http.request", "body": chunk, "more_body": not ended}

        return replay

    async def _chunks(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if not self._is_file:
                yield self._head(part)
            if part.checked is None:
                if part.value:
                    yield bytes(part.value)
                continue
            while chunk := await _read(part.checked.file, part.checked.size_bytes):
                yield chunk
        if not self._is_file:
            yield self._tail()

    def _head(self, part: Part) -> bytes:
        lines = [self._boundary if part is self._parts[0] else b"\r\n" + self._boundary]
        disposition = b'content-disposition: form-data; name="%s"' % _quotable(part.name)
        if part.filename is not None:
            disposition += b'; filename="%s"' % _quotable(part.filename)
        lines.append(disposition)
        lines += [name + b": " + value for name, value in part.headers.items() if name not in _OWN_HEADERS]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _tail(self) -> bytes:
        return (b"\r\n" if self._parts else b"") + self._boundary + b"--\r\n"

    def _size_bytes(self) -> int:
        content = sum(p.checked.size_bytes if p.checked is not None else len(p.value) for p in self._parts)
        return content if self._is_file else content + sum(map(len, map(self._head, self._parts))) + len(self._tail())


def _quotable(name: str) -> bytes:
    """A name as browsers write it, and a backslash so too: readers differ in what one means before a quote. A line's
    end in it, where the parser has decoded one, would begin another header, or the content."""
    return name.translate(_QUOTED).encode()


async def _read(file: BinaryIO, size_bytes: int) -> bytes:
    """The next chunk; of a file that is on disk on a thread."""
    if size_bytes <= IN_MEMORY_BYTES:
        return file.read(_CHUNK_BYTES)
    return await asyncio.to_thread(file.read, _CHUNK_BYTES)
