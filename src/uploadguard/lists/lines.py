"""Bytes to numbered lines of text, in bounded memory: encodings, line ends, over-long and undecodable lines."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import Protocol

from uploadguard.lists.base import BadLine

__all__ = ["HEAD_BYTES", "MAX_LINE_BYTES", "Readable", "head_lines", "read_lines", "utf8_head", "utf8_stream"]

HEAD_BYTES = 1 << 16
"""How much of a file readers are shown to probe."""

MAX_LINE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18
# After a byte that UTF-8 never holds, whatever decodes next reports the place.
_NEVER_UTF8 = b"\xff"


class Readable(Protocol):
    """The part of a binary stream that readers use."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; empty only at the end."""


def utf8_stream(stream: Readable, *, repair: bool = False) -> Readable:
    """The stream as UTF-8 without a byte order mark, which alone tells UTF-16 apart.

    What does not decode stays invalid UTF-8 in the result; with ``repair`` it becomes U+FFFD.
    """
    head = b""
    while len(head) < len(codecs.BOM_UTF8) and (more := stream.read(len(codecs.BOM_UTF8) - len(head))):
        head += more
    if head.startswith(codecs.BOM_UTF16_LE):
        return _Recoded(head[2:], stream, "utf-16-le", "replace" if repair else "surrogatepass")
    if head.startswith(codecs.BOM_UTF16_BE):
        return _Recoded(head[2:], stream, "utf-16-be", "replace" if repair else "surrogatepass")
    head = head.removeprefix(codecs.BOM_UTF8)
    return _Recoded(head, stream, "utf-8", "replace") if repair else _Prefixed(head, stream)


class _Prefixed:
    """A stream with a few bytes put back before it."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._stream.read(size)
        taken = len(self._head) if size < 0 else size
        head, self._head = self._head[:taken], self._head[taken:]
        return head


class _Recoded:
    """A stream decoded from one encoding and encoded as UTF-8 again."""

    def __init__(self, head: bytes, stream: Readable, encoding: str, errors: str) -> None:
        self._source = _Prefixed(head, stream)
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._at_end = False

    def read(self, size: int = -1, /) -> bytes:
        """Not at the end as long as there is text; may give a few bytes more than ``size``."""
        while size != 0 and not self._at_end:
            block = self._source.read(size)
            self._at_end = not block
            try:
                text = self._decoder.decode(block, self._at_end)
            except UnicodeDecodeError:  # half a UTF-16 code unit at the very end
                return _NEVER_UTF8
            if text:
                return text.encode("utf-8", "surrogatepass")
        return b""


def read_lines(stream: Readable) -> Iterator[tuple[int, str] | BadLine]:
    """Yield ``(number, text)`` for each line, without its end, or a bad line. Numbers count from 1.

    Lines end at LF, CR LF or CR. A line over :data:`MAX_LINE_BYTES`, with a NUL, or that is not valid in the file's
    encoding is a bad line. Memory stays below three times :data:`MAX_LINE_BYTES`.
    """
    source = utf8_stream(stream)
    number = 0  # lines yielded so far
    rest = b""  # the line that the last block broke off in
    skipping = False  # inside a line that was reported as over-long
    while block := source.read(_BLOCK_BYTES):
        data = rest + block
        if b"\r" in data:
            held = data[-1:] == b"\r"  # perhaps half of a CR LF
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            data += b"\r" if held else b""
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            if skipping:
                _, newline, whole = whole.partition(b"\n")
                skipping = False
            if newline:
                yield from _decode(number, whole)
                number += whole.count(b"\n") + 1
        if skipping:
            rest = rest[-1:] if rest.endswith(b"\r") else b""
        elif len(rest.removesuffix(b"\r")) > MAX_LINE_BYTES:
            number += 1
            yield _over_long(number)
            rest = rest[-1:] if rest.endswith(b"\r") else b""
            skipping = True
    if rest and not skipping:
        yield from _decode(number, rest.removesuffix(b"\r"))


def utf8_head(head: bytes) -> bytes:
    """A file's head as UTF-8; what does not decode becomes U+FFFD."""
    source = utf8_stream(io.BytesIO(head), repair=True)
    return b"".join(iter(lambda: source.read(HEAD_BYTES), b""))


def head_lines(head: bytes) -> list[str]:
    """The good lines that are whole in a file's first :data:`HEAD_BYTES`, without blanks around them or blank ones."""
    lines = list(read_lines(io.BytesIO(head)))
    if len(lines) > 1 and len(head) >= HEAD_BYTES:
        lines.pop()
    return [text for item in lines if not isinstance(item, BadLine) and (text := item[1].strip())]


def _decode(number: int, data: bytes) -> Iterator[tuple[int, str] | BadLine]:
    """The lines of ``data``, the first of which is ``number + 1``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text and len(data) <= MAX_LINE_BYTES:
        yield from enumerate(text.split("\n"), number + 1)
        return
    for line_number, line in enumerate(data.split(b"\n"), number + 1):
        if len(line) > MAX_LINE_BYTES:
            yield _over_long(line_number)
        elif b"\0" in line:
            yield BadLine(line_number, "holds a NUL byte (UTF-16 without a byte order mark?)")
        else:
            try:
                yield line_number, line.decode()
            except UnicodeDecodeError:
                yield BadLine(line_number, "not valid in the file's encoding (UTF-8, or UTF-16 with a byte order mark)")


def _over_long(number: int) -> BadLine:
    return BadLine(number, f"longer than {MAX_LINE_BYTES} bytes")
