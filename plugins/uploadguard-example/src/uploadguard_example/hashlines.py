"""Hash lines, a made-up list format: ``type:hash`` and ``key=value`` parts, an entry a line.

::

    #hashlines 1
    md5:9e107d9d372bb6826bd81d3542a419d6 blockmean:00ff00ff00ff00ff id=17 category=spam
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.lines import head_lines, read_lines
from uploadguard.lists.parsing import EntryBuilder, provenance

__all__ = ["HashLinesReader"]

_FIRST_LINE = "#hashlines 1"


class HashLinesReader:
    """Reads hash lines. ``id`` and ``category`` are the entry's; other keys become fields; ``#`` starts a comment."""

    name = "hashlines"

    def probe(self, head: bytes, filename: str) -> int:
        """Sure of the first line, whatever the file is called."""
        if head_lines(head)[:1] == [_FIRST_LINE]:
            return 99
        return 20 if filename.lower().endswith(".hashlines") else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where the first line is not that of the format.
        """
        builder = EntryBuilder(options)
        lines = read_lines(stream)
        first = next(lines, None)
        if first is None or isinstance(first, BadLine) or first[1].strip() != _FIRST_LINE:
            raise ListFormatError(f"the first line is not {_FIRST_LINE!r}", line=1)
        for item in lines:
            if isinstance(item, BadLine):
                yield item
            elif text := item[1].partition("#")[0]:
                yield from _read_line(item[0], text, builder)


def _read_line(number: int, text: str, builder: EntryBuilder) -> Iterator[ListEntry | BadLine]:
    written, values = [], {}
    for part in text.split():
        key, mark, value = part.partition("=")
        if mark:
            values[key] = value
            continue
        name, mark, value = part.partition(":")
        if not mark:
            yield BadLine(number, "a part is neither type:hash nor key=value")
            continue
        written.append((builder.resolve(name) or name, value))
    if written or values:
        entry_id, category = values.pop("id", None), values.pop("category", None)
        yield from builder.build(number, written, entry_id, category, provenance(values.items()))
