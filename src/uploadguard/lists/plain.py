"""Text lists: one hash a line, or a signal type and a hash."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.lines import head_lines, read_lines
from uploadguard.lists.parsing import EntryBuilder, UnregisteredError, ambiguous, as_text, looks_like_hash

__all__ = ["TxtReader"]

_SEPARATOR = re.compile(r"[\s,;:]+")
_PREVIEW_LINES = 1000
_PROBE_LINES = 20
_BARE = re.compile(r"[0-9a-fA-F]{16,288}")
_PAIR = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,23}[\s,;:]+(?:[0-9a-fA-F]{16,288}|[A-Za-z0-9+/]{192})(?:[\s,;:].*)?")


class TxtReader:
    """Reads ``hash``, ``signal_type hash``, and either with an id after it, a line each.

    Parts are separated by blanks, tabs, commas, semicolons or colons; ``#`` starts a comment. Bare hashes are of
    ``options.signal_type``, else of the one registered signal type of their length. The entry id is the line number
    unless the line gives one, as the output of ``md5sum`` does.
    """

    name = "txt"

    def probe(self, head: bytes, filename: str) -> int:
        """Sure of lines that hold hashes or pairs; takes any ``.txt`` for want of better."""
        lines = [line for text in head_lines(head) if (line := _strip(text))][:_PROBE_LINES]
        named = filename.lower().endswith((".txt", ".lst", ".hashes"))
        if not lines:
            return 10 if named else 0
        pairs = sum(_PAIR.fullmatch(line) is not None for line in lines)
        bare = sum(_BARE.match(line) is not None for line in lines)
        if _PAIR.fullmatch(lines[0]) and 2 * pairs > len(lines):
            return 85
        if 2 * bare > len(lines):
            alone = sum(_BARE.fullmatch(line) is not None for line in lines)
            return 70 if named or 2 * alone > len(lines) else 40
        return 30 if named else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError`, before the first entry, if most of the bare hashes in the
        first 1,000 lines are of a length that several registered signal types have, or if columns are mapped.
        """
        if options.columns:
            raise ListFormatError("a text list has no columns to map; if it is a table, say so with --format csv")
        builder = EntryBuilder(options)
        lines = read_lines(stream)
        preview = list(itertools.islice(lines, _PREVIEW_LINES))
        _refuse_ambiguous(preview, builder)
        for item in itertools.chain(preview, lines):
            if isinstance(item, BadLine):
                yield item
            elif line := _strip(item[1]):
                yield _read_line(item[0], line, builder)


def _strip(text: str) -> str:
    if "#" in text:
        text = text.partition("#")[0]
    return text.strip(" \t\v\f\xa0,;")


def _refuse_ambiguous(preview: list[tuple[int, str] | BadLine], builder: EntryBuilder) -> None:
    """Raise if most bare hashes may be of several signal types.

    Not at the first one: two MD5 lines that lost the line end between them look like one SHA-256 too.
    """
    seen: Counter[tuple[int, tuple[str, ...]]] = Counter()
    first_line: dict[int, int] = {}
    for item in preview:
        if not isinstance(item, BadLine):
            text = _strip(item[1])
            if names := builder.candidates(text):
                seen[len(text), names] += 1
                first_line.setdefault(len(text), item[0])
    doubtful = sum(count for (_, names), count in seen.items() if len(names) > 1)
    if 2 * doubtful > seen.total():
        digits, names = max((key for key in seen if len(key[1]) > 1), key=lambda key: seen[key])
        raise ListFormatError(ambiguous(digits, names), line=first_line[digits])


def _read_line(number: int, line: str, builder: EntryBuilder) -> ListEntry | BadLine:
    try:
        if line.isalnum():
            name = builder.infer(line)
            return ListEntry(str(number), ((name, builder.parse(name, line)),), line=number, numbered=True)
        first, *others = _SEPARATOR.split(line, maxsplit=1)
        signal_type = builder.resolve(first)
        if signal_type is not None and others:
            first, *others = _SEPARATOR.split(others[0], maxsplit=1)
        else:
            signal_type = builder.infer(first)
        value = builder.parse(signal_type, first)
        rest = others[0] if others else ""
        if any(looks_like_hash(part) for part in _SEPARATOR.split(rest)):
            raise ValueError("more than one hash")
        entry_id = as_text(rest)
        return ListEntry(entry_id or str(number), ((signal_type, value),), line=number, numbered=not entry_id)
    except UnregisteredError as error:
        return BadLine(number, str(error), ignored=True)
    except ValueError as error:
        return BadLine(number, str(error))
