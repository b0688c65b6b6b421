"""The outbox's worker in a thread of the host's process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from uploadguard.ledger.outbox_worker import OutboxWorker

__all__ = ["OutboxThread"]


class OutboxThread:
    """Runs a worker beside the host's own work, in hosts of any kind: with threads, processes or an event loop.

    ``make`` makes the worker each time that it is started, so that nothing is shared with a process that this one was
    forked from: a child has no thread of its parent's, and may start its own, once its ``Database`` was told of the
    fork (:meth:`~uploadguard.ledger.database.Database.after_fork`). To be started and stopped by one thread at a time.
    """

    def __init__(self, make: Callable[[], OutboxWorker]) -> None:
        self._make = make
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._process = 0

    @property
    def is_running(self) -> bool:
        """Whether the worker runs in this process."""
        return self._process == os.getpid() and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the worker, unless it runs."""
        if self.is_running:
            return
        self._process = os.getpid()
        self._stop = threading.Event()
        worker = self._make()
        self._thread = threading.Thread(target=worker.run, args=(self._stop,), name="uploadguard-outbox", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Take no more tasks, and wait so long for those under way; returns whether all came to an end.

        Blocks: an event loop should have a thread call it. A process that ends without it loses nothing: other workers
        take its tasks over when its leases have run out.
        """
        if not self.is_running or self._thread is None:
            return True
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
