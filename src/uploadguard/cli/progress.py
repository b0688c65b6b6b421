"""How an import goes, on standard error: bad lines, and on a terminal a progress bar."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from uploadguard.cli.output import echo, file_fields, print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from uploadguard.lists import BadLine

__all__ = ["ImportProgress"]

_BAD_LINES_SHOWN = 20


class ImportProgress:
    """An :class:`~uploadguard.importing.ImportWatcher` for people, or with ``as_json`` for programs.

    ``shown`` is the file as messages name it; ``size_bytes`` None where it is not known.
    """

    def __init__(self, shown: str, size_bytes: int | None, *, as_json: bool) -> None:
        self._shown = shown
        self._size_bytes = size_bytes
        self._as_json = as_json
        self._bad_lines = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        more = self._bad_lines - _BAD_LINES_SHOWN
        if more > 0 and not self._as_json:
            echo(f"... and {more:,} more bad lines; --json shows all", err=True)

    def bad_line(self, bad: BadLine) -> None:
        """Report the line; people see the first 20."""
        self._bad_lines += 1
        if self._as_json:
            name = self._shown if self._shown != "standard input" else "-"
            print_json({"kind": "bad_line", **file_fields(name), bad.unit: bad.line, "reason": bad.reason})
        elif self._bad_lines <= _BAD_LINES_SHOWN:
            place = f"{self._shown}:{bad.line}" if bad.unit == "line" else f"{self._shown}: {bad.unit} {bad.line}"
            echo(f"{place}: {bad.reason}", err=True)

    def bytes_read(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=count)

    def compiling(self) -> None:
        """Say that what is left is not reading."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description="compiling")

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(None), DownloadColumn(), SpeedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("reading", total=self._size_bytes)
        self._bar.start()
