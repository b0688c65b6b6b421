"""Tables: CSV and TSV with a header, or without one and a mapping by column number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.columns import (
    Layout,
    is_header,
    is_heading,
    plan,
    plan_by_number,
    sniff_delimiter,
    sniff_delimiter_by_number,
)
from uploadguard.lists.lines import head_lines, read_lines
from uploadguard.lists.parsing import EntryBuilder
from uploadguard.lists.records import DELIMITERS, Records, cells_of

__all__ = ["CsvReader", "checked_delimiter", "first_record", "read_records", "skip_preamble"]

_Item = tuple[int, str] | BadLine
_PREVIEW_LINES = 20
_DELIMITER_HINT = "sep="


class CsvReader:
    """Reads tables, one medium a row with a column for each signal type, or one hash a row in the long form.

    Columns called after a signal type (``SHA-1``, ``sha_256``), an id or a category are recognised, and so is the long
    form's ``signal_type`` with ``hash`` or ``value``; ``options.columns`` goes before. If it maps by number alone, the
    file needs no header. All else becomes fields, without empty cells. Delimiter: comma, semicolon, tab or bar, unless
    ``options.delimiter`` says. Lines before the first record that start with ``#`` are comments.
    """

    name = "csv"

    def probe(self, head: bytes, filename: str) -> int:
        """Sure of a header that names a signal type; takes any ``.csv`` or ``.tsv`` for want of better."""
        named = filename.lower().endswith((".csv", ".tsv", ".tab"))
        first_item = next(skip_preamble(iter(enumerate(head_lines(head), 1)))[0], None)
        if first_item is None or isinstance(first_item, BadLine):
            return 10 if named else 0
        first = first_item[1]
        builder = EntryBuilder(ReadOptions(signal_types={}))
        cells = cells_of(first, sniff_delimiter(first, builder, {}))
        if cells is not None and not first.startswith(("{", "[")) and is_header(cells, builder):
            return 80 if named else 75
        return 50 if named else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where the header is damaged or names no signal type, or the
        mapping does not fit.
        """
        builder = EntryBuilder(options)
        lines, hint = skip_preamble(read_lines(stream))
        delimiter = checked_delimiter(options.delimiter) or hint
        layout = plan_by_number(options, builder)
        if layout is not None:
            preview = list(itertools.islice(lines, _PREVIEW_LINES))
            texts = [item[1] for item in preview if not isinstance(item, BadLine)]
            delimiter = delimiter or sniff_delimiter_by_number(texts, builder, layout)
            rows = [cells for text in texts if (cells := cells_of(text, delimiter)) is not None]
            lines = itertools.chain(preview, lines)
            headed = rows and (is_header(rows[0], builder) or is_heading(rows[0], layout))
            if not headed or layout.is_entry(rows[0], builder):
                layout = plan_by_number(options, builder, width=max(map(len, rows), default=None)) or layout
                yield from read_records(Records(lines, delimiter), layout, builder)
                return
        records, number, header = first_record(lines, options, builder, delimiter)
        yield from read_records(records, plan(header, options, builder, number), builder)


def skip_preamble(lines: Iterator[_Item]) -> tuple[Iterator[_Item], str | None]:
    """The lines from the first that is neither blank nor a comment, and the delimiter that a ``sep=`` line gives."""
    delimiter = None
    for item in lines:
        if isinstance(item, BadLine):
            return itertools.chain([item], lines), delimiter
        text = item[1]
        if text.lower().startswith(_DELIMITER_HINT) and len(text) == len(_DELIMITER_HINT) + 1:
            delimiter = checked_delimiter(text[-1])
        elif text.strip(" " + DELIMITERS) and (not text.startswith("#") or (len(text) > 1 and text[1] in DELIMITERS)):
            return itertools.chain([item], lines), delimiter
    return iter(()), delimiter


def first_record(
    lines: Iterator[_Item], options: ReadOptions, builder: EntryBuilder, delimiter: str | None
) -> tuple[Records, int, list[str]]:
    """The header's line and cells, and the records after it, which are to be as wide. A delimiter of None is sniffed.

    Raises :class:`~uploadguard.errors.ListFormatError` if there is no header, or it is damaged.
    """
    preview = list(itertools.islice(lines, 1))
    if delimiter is None and preview and not isinstance(preview[0], BadLine):
        delimiter = sniff_delimiter(preview[0][1], builder, options.columns)
    records = Records(itertools.chain(preview, lines), delimiter or DELIMITERS[0])
    first = next(iter(records), None)
    if first is None:
        raise ListFormatError("no header: the file is empty", line=1)
    if isinstance(first, BadLine):
        raise ListFormatError(f"the header cannot be read: {first.reason}", line=first.line)
    number, header = first
    records.width = len(header)
    return records, number, header


def read_records(records: Records, layout: Layout, builder: EntryBuilder) -> Iterator[ListEntry | BadLine]:
    """Yield the entries and bad lines of all further records."""
    for record in records:
        if isinstance(record, BadLine):
            yield record
        else:
            yield from layout.read(*record, builder)


def checked_delimiter(delimiter: str | None) -> str | None:
    """The delimiter, if it can be one. Raises :class:`~uploadguard.errors.ListFormatError`."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
        raise ListFormatError("a delimiter is one character, and not a quote or a line end")
    return delimiter
