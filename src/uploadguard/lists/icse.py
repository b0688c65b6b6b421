"""The ICSE baseline list: a table with fixed, semicolon-separated columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.columns import plan
from uploadguard.lists.lines import head_lines, read_lines
from uploadguard.lists.parsing import EntryBuilder, normalise
from uploadguard.lists.records import cells_of
from uploadguard.lists.tabular import checked_delimiter, first_record, read_records, skip_preamble

__all__ = ["IcseReader"]

_DELIMITER = ";"
_REQUIRED = frozenset({"md5", "imageid", "baseline"})
_COLUMNS = {"id": "image_id", "category": "baseline"}


class IcseReader:
    """Reads ``MD5;SHA1;PhotoDNA;Image ID;...;Baseline``, the columns in any order.

    The entry id is the image id, the category what stands under Baseline; the other columns are fields in snake case
    (``is_distributed``, ``number_of_submissions``).
    """

    name = "icse"

    def probe(self, head: bytes, filename: str) -> int:  # noqa: ARG002
        """Sure of the header, whatever the file is called."""
        first = next(iter(head_lines(head)), "")
        cells = cells_of(first, _DELIMITER) or []
        return 98 if _REQUIRED.issubset(map(normalise, cells)) else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where the header is not that of the ICSE baseline.
        """
        builder = EntryBuilder(options)
        lines, hint = skip_preamble(read_lines(stream))
        delimiter = checked_delimiter(options.delimiter) or hint or _DELIMITER
        records, number, header = first_record(lines, options, builder, delimiter)
        if not _REQUIRED.issubset(map(normalise, header)):
            raise ListFormatError("not the header of an ICSE baseline list", line=number)
        named = ["_".join(cell.lower().split()) for cell in header]
        columns = {**_COLUMNS, **options.columns}
        yield from read_records(records, plan(named, replace(options, columns=columns), builder, number), builder)
