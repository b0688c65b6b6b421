"""Lines to CSV records. A damaged line costs itself only: a quote that is never closed does not swallow the rest."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator

from uploadguard.lists.base import BadLine

__all__ = ["DELIMITERS", "Records", "cells_of"]

DELIMITERS = ",;\t|"

_Item = tuple[int, str] | BadLine
_MAX_RECORD_LINES = 1000
_MAX_RECORD_CHARS = 1 << 17  # csv's own limit for a cell


class Records:
    """Iterates over ``(number of the first line, cells)`` and bad lines; skips blank ones.

    Cells are as in RFC 4180: in double quotes where they hold the delimiter, quotes (doubled) or line ends. A quote
    inside a cell that is not quoted stands for itself. ``width``, once set, is the number of cells of every record,
    but for empty ones at its end; None takes any. A line that starts with ``#`` and has another number is a comment.
    """

    def __init__(self, lines: Iterator[_Item], delimiter: str) -> None:
        self.width: int | None = None
        self._lines = lines
        self._pending: deque[_Item] = deque()
        self._delimiter = delimiter
        other = f'[^"\\n{re.escape(delimiter)}]*+'
        cell = f'(?:"(?:[^"]|"")*+"|{other})'
        self._well_formed = re.compile(f"{cell}(?:{re.escape(delimiter)}{cell})*+")

    def __iter__(self) -> Iterator[tuple[int, list[str]] | BadLine]:
        pending, delimiter = self._pending, self._delimiter
        while item := pending.popleft() if pending else next(self._lines, None):
            if isinstance(item, BadLine):
                yield item
                continue
            number, text = item
            if not text or text.isspace():
                continue
            cells = self._quoted(number, text) if '"' in text else text.split(delimiter)
            if isinstance(cells, BadLine):
                yield cells
                continue
            if not any(cells):  # as spreadsheets write blank rows
                continue
            if self.width is not None and len(cells) != self.width:
                if any(cells[self.width :]) or len(cells) < self.width:
                    if not text.startswith("#"):
                        yield BadLine(number, f"{len(cells)} columns instead of {self.width}")
                    continue
                del cells[self.width :]
            yield number, cells

    def _quoted(self, number: int, text: str) -> list[str] | BadLine:
        if len(text) > _MAX_RECORD_CHARS:
            return BadLine(number, f"a record with quotes is longer than {_MAX_RECORD_CHARS} characters")
        if (cells := cells_of(text, self._delimiter)) is not None:
            return cells
        if text.count('"') % 2 == 0:
            return BadLine(number, "a closed quote is followed by more text")
        record, taken = self._look_ahead(text)
        if record is not None and self._well_formed.fullmatch(record):
            cells = cells_of(record, self._delimiter)
            if cells is not None and self.width in (None, len(cells)):
                return cells
        self._pending.extendleft(reversed(taken))
        return BadLine(number, "a quote is never closed")

    def _look_ahead(self, text: str) -> tuple[str | None, list[_Item]]:
        """Take lines until the quotes are even again: the record, or None, and the lines taken."""
        taken: list[_Item] = []
        chars = len(text)
        parts = [text]
        while len(taken) < _MAX_RECORD_LINES and chars <= _MAX_RECORD_CHARS:
            item = self._pending.popleft() if self._pending else next(self._lines, None)
            if item is None:
                break
            taken.append(item)
            if isinstance(item, BadLine):
                break
            parts.append(item[1])
            chars += len(item[1]) + 1
            if chars <= _MAX_RECORD_CHARS and item[1].count('"') % 2:
                return "\n".join(parts), taken
        return None, taken


def cells_of(record: str, delimiter: str) -> list[str] | None:
    """The cells of one record; None where a quote is not closed or is followed by text."""
    try:
        return next(csv.reader([record], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
