"""How far long work is, on standard error: on a terminal a progress bar, and an import's bad lines."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from uploadguard.cli.output import echo, file_fields, print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from uploadguard.lists import BadLine

__all__ = ["ImportProgress", "ProgressBar"]

_BAD_LINES_SHOWN = 20


class ProgressBar:
    """A bar of bytes with their rate, the share that is done and the time left; shown only on a terminal.

    ``counted``: it is of other things than bytes. To be used in a ``with`` block.
    """

    def __init__(self, *, counted: bool = False) -> None:
        self._counted = counted
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what: str | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        """Move the bar; where ``what`` is another than before, it begins anew."""
        if self._bar is None:
            return
        if self._task is None or what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(what, total=total_bytes)
            self._what = what
        self._bar.update(self._task, completed=done_bytes, total=total_bytes)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        amounts = (MofNCompleteColumn(),) if self._counted else (DownloadColumn(), TransferSpeedColumn())
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(None), TaskProgressColumn(), *amounts,
            TimeRemainingColumn(compact=True),
        )  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()


class ImportProgress(ProgressBar):
    """An :class:`~uploadguard.importing.ImportWatcher` for people, or with ``as_json`` for programs.

    ``shown`` is the file as messages name it; ``size_bytes`` None where it is not known.
    """

    def __init__(self, shown: str, size_bytes: int | None, *, as_json: bool) -> None:
        super().__init__()
        self._shown = shown
        self._size_bytes = size_bytes
        self._as_json = as_json
        self._bad_lines = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
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
        self.show("reading", count, self._size_bytes)

    def compiling(self, done_bytes: int, total_bytes: int) -> None:
        """Move the bar of what comes after reading."""
        self.show("compiling", done_bytes, total_bytes)
