"""Printing: text that cannot break a terminal, one JSON object a line, tables.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from uploadguard.errors import UploadguardError

__all__ = [
    "STDIN",
    "echo",
    "file_fields",
    "hash_counts",
    "new_console",
    "new_table",
    "print_json",
    "print_table",
    "problems_of",
    "report_error",
    "report_warning",
    "safe_text",
    "size_text",
    "verdict_style",
]

STDIN = "-"
"""The file name that stands for standard input."""

_PIPE_WIDTH = 10_000
_VERDICT_STYLES = {"allow": "green", "not_scanned": "yellow", "queue": "magenta", "block": "bold red"}


def safe_text(text: str) -> str:
    """``text`` on one line and without what a terminal might act on: control characters, bidirectional overrides and
    undecodable bytes are shown as escapes."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds an undecodable byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def file_fields(name: str) -> dict[str, str]:
    """A file name for JSON: ``file``, and ``file_hex`` with its bytes where these are not valid UTF-8."""
    data = os.fsencode(name)
    try:
        return {"file": data.decode()}
    except UnicodeDecodeError:
        return {"file": data.decode(errors="replace"), "file_hex": data.hex()}


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines of text, each made safe."""
    click.echo("\n".join(safe_text(line) for line in text.split("\n")), err=err)


def print_json(record: Mapping[str, Any]) -> None:
    """Print one object on one line. ASCII, so that no encoding of standard output can fail on it."""
    click.echo(json.dumps(record))


def report_error(message: str) -> None:
    """Say on standard error what went wrong, on one line."""
    click.echo(f"error: {safe_text(message)}", err=True)


def problems_of(error: UploadguardError) -> list[str]:
    """What an error says, one sentence each, for people: a configuration's may have several, which name their file; a
    segment's names its list; and where the library says what to do, this says with which command."""
    from uploadguard.errors import ConfigError, ManifestError, SegmentError

    if isinstance(error, SegmentError) and error.path is not None:
        name = _list_of(error.path)
        return [f"{error.path}: a segment of the list {name!r}: {error.reason}" if name is not None else str(error)]
    if isinstance(error, ManifestError) and "no hash set here" in str(error):
        return [f"{error}; `uploadguard init DIR` does, DIR being where uploadguard.toml is"]
    if not isinstance(error, ConfigError):
        return [str(error)]
    # With problems from several places each names its own.
    own = str(error) == "\n".join(error.problems)
    return error.problems if own else [f"{error.path}: {problem}" for problem in error.problems]


def _list_of(segment: Path) -> str | None:
    """The list that a segment file belongs to, as far as the manifest beside it tells."""
    from uploadguard.errors import ManifestError
    from uploadguard.hashset.manifest import read_manifest

    try:
        manifest = read_manifest(segment.parent).manifest
    except ManifestError:
        return None
    return next((one.metadata.list_name for one in manifest.segments if one.file == segment.name), None)


def report_warning(message: str) -> None:
    """Say on standard error what the operator should know."""
    click.echo(f"warning: {safe_text(message)}", err=True)


def new_table(*columns: str, right: Iterable[str] = (), fold: Iterable[str] = ()) -> Table:
    """A table with these headings. Columns in ``right`` are aligned so; only those in ``fold`` may break lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    numbers, folding = set(right), set(fold)
    for heading in columns:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            overflow="fold",
            no_wrap=heading not in folding,
        )
    return table


def print_table(table: Table, rows: Iterable[Sequence[object]], styles: Mapping[int, Mapping[str, str]] = {}) -> None:
    """Fill the table and print it: drawn and coloured on a terminal, one plain line a row anywhere else.

    ``styles`` gives, by the number of a column from 0, the style of a cell by its text.
    """
    from rich.text import Text

    for row in rows:
        texts = [safe_text(str(cell)) for cell in row]
        table.add_row(*(Text(text, style=styles.get(i, {}).get(text, "")) for i, text in enumerate(texts)))
    console = new_console()
    if console.is_terminal:
        console.print(table)
        return
    table.box, table.padding = None, (0, 2, 0, 0)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def verdict_style() -> Mapping[str, str]:
    """Styles of verdict labels, for :func:`print_table`."""
    return _VERDICT_STYLES


def hash_counts(hashes: Mapping[str, int]) -> str:
    """Hashes by signal type in words."""
    return ", ".join(f"{name} {count:,}" for name, count in hashes.items()) or "none"


def size_text(size_bytes: int) -> str:
    """A size for people, in decimal units."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def new_console() -> Console:
    """Where tables go: standard output, as wide as the terminal, or as a row needs."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
