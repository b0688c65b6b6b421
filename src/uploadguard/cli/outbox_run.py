"""The worker as a program: signals, progress, alarms as lines."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo
from uploadguard.ledger.delivery.outcomes import Ending
from uploadguard.logs import log

if TYPE_CHECKING:
    from uploadguard.alarms import Alarm
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.ledger.outbox import OutboxStatus
    from uploadguard.ledger.outbox_worker import OutboxWorker

__all__ = ["run_worker"]

_SHOW_S = 0.5


def run_worker(ledger: Ledger, *, once: bool, threads: int | None) -> Exit:
    """Run a worker until a signal comes, or ``once``; then say how many tasks ended how."""

    def alarm(one: Alarm) -> None:
        for error in ledger.plugins.raise_alarm(one):
            log.error("%s", error)

    progress = _Progress()
    worker: OutboxWorker = ledger.worker(
        alarm,
        threads=threads,
        watcher=progress.set_status,
        chores=[*ledger.chores(alarm), (_SHOW_S, lambda: progress.show(worker.endings))],
    )
    with _stopped_by_signals() as stop, progress:
        if once:
            worker.run_once()
        else:
            if not progress.is_shown:
                echo("the outbox is carried out; SIGTERM or SIGINT ends it", err=True)
            worker.run(stop)
    said = [f"{worker.endings[ending]:,} {ending.value}" for ending in _TOLD if worker.endings[ending]]
    echo(", ".join(said) or "nothing was carried out")
    return Exit.OK


_TOLD = (Ending.FILED, Ending.POSTPONED, Ending.REFUSED, Ending.CANCELLED)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second one interrupts."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.warning("%s: finishing what is under way", signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A line on the terminal: what was done, and what waits."""

    def __init__(self) -> None:
        self._line: Any = None
        self._waiting: int | None = None

    @property
    def is_shown(self) -> bool:
        return self._line is not None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._line = Console(stderr=True, highlight=False).status("looking for tasks")
            self._line.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.stop()

    def set_status(self, status: OutboxStatus) -> None:
        self._waiting = status.waiting

    def show(self, endings: Any) -> None:
        if self._line is None:
            return
        waiting = [] if self._waiting is None else [f"{self._waiting:,} waited lately"]
        said = [f"{endings[ending]:,} {ending.value}" for ending in _TOLD if endings[ending]]
        self._line.update(", ".join([*said, *waiting]) or "nothing is due")
