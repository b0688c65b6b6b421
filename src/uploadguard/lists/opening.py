"""List files: opening them, unpacking gzip, and finding the reader."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import ListReader
from uploadguard.lists.lines import HEAD_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["MAX_UNPACK_RATIO", "choose_reader", "open_list"]

MAX_UNPACK_RATIO = 200
"""How many times its packed size a gzip file may unpack to. Hash lists pack to a half; VICS JSON to a fifth."""

_GZIP_MAGIC = b"\x1f\x8b"
_RATIO_FREE_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 16


def open_list(
    source: str | Path | BinaryIO,
    *,
    max_unpack_ratio: int = MAX_UNPACK_RATIO,
    on_read: Callable[[int], None] | None = None,
) -> io.BufferedReader:
    """Open a list file to read; one whose content is gzip is unpacked on the way.

    ``source`` is a path, or a binary file object, which is read from where it stands and stays open. ``on_read`` is
    told how many bytes were read so far, packed ones where they are. ``peek(HEAD_BYTES)`` gives the head for
    :func:`choose_reader`. Raises :class:`~uploadguard.errors.ListFormatError` with the path for a directory and for a
    file that is missing or cannot be opened; reads raise it too, where the gzip data is damaged or unpacks to more
    than ``max_unpack_ratio`` times its size.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    try:
        file = path.open("rb", buffering=0) if path is not None else source
    except IsADirectoryError:
        raise ListFormatError("is a directory, not a list file", path=path) from None
    except FileNotFoundError:
        raise ListFormatError("there is no such file", path=path) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ListFormatError(f"cannot be opened: {reason}", path=path) from None
    packed: io.BufferedReader = io.BufferedReader(
        _Counted(cast(BinaryIO, file), on_read, owned=path is not None), HEAD_BYTES
    )
    try:
        if not packed.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            return packed
        return io.BufferedReader(_Unpacked(packed, path, max_unpack_ratio), HEAD_BYTES)
    except OSError as error:
        packed.close()
        raise ListFormatError(f"cannot be read: {error.strerror}", path=path) from None


def choose_reader(readers: Sequence[ListReader], head: bytes, filename: str, name: str | None = None) -> ListReader:
    """The reader of that name, or the one that is the surest of the file; of equals the first.

    ``head`` is the first 64 KiB. Raises :class:`~uploadguard.errors.ListFormatError`, which lists the formats, where
    there is none.
    """
    formats = ", ".join(reader.name for reader in readers) or "none"
    if name is not None:
        for reader in readers:
            if reader.name == name:
                return reader
        raise ListFormatError(f"there is no list format {name!r}; there are: {formats}")
    unpacked_name = filename.removesuffix(".gz").removesuffix(".GZ")
    sureness = [reader.probe(head[:HEAD_BYTES], unpacked_name) for reader in readers]
    best = max(sureness, default=0)
    if best <= 0 and not head:
        raise ListFormatError("the file is empty")
    if best <= 0:
        raise ListFormatError(f"the file looks like none of the list formats: {formats}")
    return readers[sureness.index(best)]


class _Counted(io.RawIOBase):
    """A file that says how far it was read. Fills buffers whole, so that a pipe's first block is a whole head."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None] | None, *, owned: bool) -> None:
        self._file = file
        self._on_read = on_read
        self._owned = owned
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as the file reaches."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (block := self._file.read(len(view) - filled)):
            view[filled : filled + len(block)] = block
            filled += len(block)
        self._read_bytes += filled
        if self._on_read is not None:
            self._on_read(self._read_bytes)
        return filled

    def tell(self) -> int:
        """How much was read."""
        return self._read_bytes

    def close(self) -> None:
        if self._owned and not self.closed:
            self._file.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, as far as its size is in proportion."""

    def __init__(self, packed: BinaryIO, path: Path | None, max_ratio: int) -> None:
        self._packed = packed
        self._path = path
        self._max_ratio = max_ratio
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._unpacked_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there is content."""
        view = memoryview(buffer).cast("B")
        filled = 0
        try:
            while filled < len(view) and (block := self._gzip.read(min(_BLOCK_BYTES, len(view) - filled))):
                view[filled : filled + len(block)] = block
                filled += len(block)
        except (OSError, EOFError, zlib.error):
            raise ListFormatError("the gzip data is damaged or broken off", path=self._path) from None
        self._unpacked_bytes += filled
        if self._unpacked_bytes > max(_RATIO_FREE_BYTES, self._max_ratio * self._packed.tell()):
            raise ListFormatError(
                f"unpacks to more than {self._max_ratio} times its size: a decompression bomb", path=self._path
            )
        return filled

    def close(self) -> None:
        if not self.closed:
            self._gzip.close()
            self._packed.close()
        super().close()
