"""Where the bytes of an open segment come from: a map or a buffer, or an encrypted file."""

from __future__ import annotations

from typing import Protocol

from uploadguard.storage.encryption import Decryptor, key_id_of
from uploadguard.storage.keys import Keys

__all__ = ["Bytes", "Mapped", "Source", "source_of"]


class Bytes(Protocol):
    """A run of bytes of which parts can be taken."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> memoryview: ...


class Source(Protocol):
    """The plain bytes of a segment."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    @property
    def stored_bytes(self) -> int:
        """The size of the file."""

    def read(self, start: int, end: int) -> memoryview:
        """Some of them."""


class Mapped:
    """Bytes that are there, in a map or in memory: reading them is free."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer

    @property
    def size_bytes(self) -> int:
        """How many there are."""
        return len(self._buffer)

    stored_bytes = size_bytes

    def read(self, start: int, end: int) -> memoryview:
        """Some of them, not copied."""
        return self._buffer[start:end]


def source_of(data: memoryview, keys: Keys | None) -> Mapped | Decryptor:
    """The plain bytes of a whole file. Raises :class:`~uploadguard.storage.encryption.DecryptionError`."""
    return Mapped(data) if key_id_of(data) is None else Decryptor(data, keys, "segment")
