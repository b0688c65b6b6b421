"""What a list reader is, and what it yields.

Readers stream: they hold one entry at a time, whatever the file's size, and a bad line is a value they yield, so that
one of them never stops the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

from uploadguard.signals.base import SignalType

__all__ = ["BadLine", "ListEntry", "ListReader", "ReadOptions"]


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One entry of a hash list: the hashes of one medium, with what the list says of it.

    ``hashes`` pairs signal type names with values. ``fields`` are JSON types. ``line`` counts from 1: the line in the
    file, or the item in formats without lines. ``numbered`` says that the list gives no id, and that the line's number
    stands in its place: nothing that tells this entry from another file's.
    """

    entry_id: str
    hashes: tuple[tuple[str, bytes], ...]
    category: str | None = None
    fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    line: int = 0
    numbered: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        return f"ListEntry(line={self.line}, hashes={len(self.hashes)})"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, or item, or one hash in it, that could not be used. ``reason`` never repeats a hash.

    ``line`` counts from 1; in a format without lines it counts items, and ``unit`` says so. ``ignored`` tells a hash
    that is fine but of a signal type that is not registered (PhotoDNA, say) from an error.
    """

    line: int
    reason: str
    ignored: bool = False
    unit: Literal["line", "item"] = "line"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a list file.

    ``signal_types`` are those registered, by name. ``signal_type`` names the kind of hash in files that hold bare
    hashes. ``columns`` maps what an entry has (a signal type's name, ``id``, ``category``) to a column's name or its
    number from 1, or to a key of JSON objects. ``delimiter`` is one character; None lets the reader find out.
    """

    signal_types: Mapping[str, SignalType]
    signal_type: str | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    delimiter: str | None = None


@runtime_checkable
class ListReader(Protocol):
    """Reads one format of hash list."""

    @property
    def name(self) -> str:
        """As ``--format`` takes it: ``txt``, ``csv``, ``vics``."""

    def probe(self, head: bytes, filename: str) -> int:
        """How sure the reader is that the file is its own, 0 (not at all) to 100, by its first 64 KiB and its name."""

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where the file as a whole cannot be read so.
        """
