"""A table whose rows are printed as they come, so that the first file's row does not wait for the last file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from uploadguard.cli.output import new_console, safe_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Column", "StreamedTable", "keep_end"]

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``width`` cells. ``styles`` gives the style of a cell by its text."""

    heading: str
    width: int
    right: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)


class StreamedTable:
    """Columns of fixed widths, after one for names and before one for words, which share what is left.

    On a terminal a name that is too long keeps its end, other cells break between words. Elsewhere each row is one
    plain line with the whole names, whatever their length. The headings are printed before the first row.
    """

    def __init__(self, names: Sequence[str], name_heading: str, columns: Sequence[Column], last_heading: str) -> None:
        self._console = new_console()
        self._started = False
        longest = max(len(name_heading), *(len(safe_text(name)) for name in names))
        if self._console.is_terminal:
            from rich.cells import cell_len

            longest = max(len(name_heading), *(cell_len(safe_text(name)) for name in names))
            left = self._console.width - sum(column.width + 1 for column in columns) - 2
            last_width = max(20, left - longest)
            longest = max(len(name_heading), left - last_width)
        else:
            last_width = 0
        self._columns = [Column(name_heading, longest), *columns, Column(last_heading, last_width)]

    def add(self, *cells: str) -> None:
        """Print a row."""
        if not self._started:
            self._started = True
            self._print([column.heading for column in self._columns], is_heading=True)
        self._print([safe_text(cell) for cell in cells])

    def _print(self, cells: Sequence[str], *, is_heading: bool = False) -> None:
        if self._console.is_terminal:
            self._print_styled(self._console, cells, is_heading=is_heading)
            return
        padded = (
            cell.rjust(column.width) if column.right else cell.ljust(column.width)
            for cell, column in zip(cells, self._columns, strict=True)
        )
        click.echo(_GAP.join(padded).rstrip())

    def _print_styled(self, console: Console, cells: Sequence[str], *, is_heading: bool) -> None:
        from rich.table import Table
        from rich.text import Text

        row = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
        for column in self._columns:
            row.add_column(width=column.width, justify="right" if column.right else "left", overflow="fold")
        name, *others = cells
        texts = [keep_end(name, self._columns[0].width), *others]
        styles = [
            "bold" if is_heading else column.styles.get(cell, "")
            for column, cell in zip(self._columns, texts, strict=True)
        ]
        row.add_row(*(Text(text, style=style) for text, style in zip(texts, styles, strict=True)))
        console.print(row)
        if is_heading:
            console.print(Text("─" * (sum(column.width + 1 for column in self._columns) - 1)))


def keep_end(text: str, width: int) -> str:
    """The text, or as much of its end as fits ``width`` cells of a terminal after an ellipsis."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    kept, used = len(text), 1
    while kept > 0 and used + cell_len(text[kept - 1]) <= width:
        kept -= 1
        used += cell_len(text[kept])
    return f"…{text[kept:]}"
