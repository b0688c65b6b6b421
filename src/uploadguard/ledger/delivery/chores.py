"""Chores: functions called now and then beside the worker, each on its own thread, none able to stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from uploadguard.errors import UploadguardError
from uploadguard.logs import log, redact

__all__ = ["Chore", "Chores"]

Chore = tuple[float, Callable[[], object]]
"""Seconds between two calls, and what to call."""


class Chores:
    """Runs chores, from :meth:`start` to :meth:`stop`. What one raises is logged once, until it works again."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failing: set[int] = set()
        self._wake = [threading.Event() for _ in self._chores]

    def start(self) -> None:
        """Start a thread for each; the first call is at once."""
        for index in range(len(self._chores)):
            run = partial(self._run, index)
            self._threads.append(threading.Thread(target=run, name="uploadguard-chore", daemon=True))
            self._threads[-1].start()

    def soon(self, index: int) -> None:
        """Have one called now, not only when it is its turn."""
        self._wake[index].set()

    def run_all(self) -> None:
        """Call each once, on this thread."""
        for index in range(len(self._chores)):
            self._call(index)

    def stop(self, timeout_s: float) -> None:
        """Call none any more; wait so long at most for each that is under way."""
        self._stopping.set()
        for wake in self._wake:
            wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self, index: int) -> None:
        while not self._stopping.is_set():
            self._wake[index].clear()
            self._call(index)
            if not self._stopping.is_set():
                self._wake[index].wait(self._chores[index][0])

    def _call(self, index: int) -> None:
        chore = self._chores[index][1]
        try:
            chore()
        except Exception as error:  # noqa: BLE001 - the host's and other parts' code; named in the log
            if index not in self._failing:
                self._failing.add(index)
                said = redact(str(error)) if isinstance(error, UploadguardError) else type(error).__name__
                log.error("%s failed, and will be tried again: %s", _name(chore), said)
        else:
            if index in self._failing:
                self._failing.discard(index)
                log.warning("%s works again", _name(chore))


def _name(chore: Callable[[], object]) -> str:
    while isinstance(chore, partial):
        chore = chore.func
    return getattr(chore, "__qualname__", type(chore).__name__)
