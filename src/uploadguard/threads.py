"""The threads that a Guard checks on, and what they are told of a check."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from uploadguard.config import Settings
from uploadguard.sandbox.inspector import SandboxedInspector

__all__ = ["Call", "Pools"]


@dataclass(frozen=True, slots=True)
class Call:
    """How a check was called for: when (by :func:`time.monotonic`), and what an asynchronous one knows beside."""

    called: float
    cancelled: Callable[[], bool] | None = None
    overloaded: bool = False


class Pools:
    """The Guard's threads: for digests beside decoding, and for asynchronous checks. Made when first used.

    Where uploads are decoded in worker processes, each check that is at work or may wait for a worker has a thread, and
    those beyond are told so at once: nothing queues unseen.
    """

    def __init__(self, settings: Settings, sandbox: SandboxedInspector | None) -> None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        overlap = settings.threads.digest_overlap
        self._overlap = cpus > 1 if overlap == "auto" else overlap
        self._room = max(sandbox.max_at_once, settings.threads.workers) if sandbox is not None else None
        self._under_way = 0
        checks = self._room or settings.threads.workers or cpus
        self._sizes = {"digests": cpus, "checks": checks, "shed": cpus}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._making = threading.Lock()

    @contextmanager
    def room(self) -> Iterator[bool]:
        """Whether an asynchronous check has a thread; it counts as under way until it leaves here."""
        with self._making:
            has_room = self._room is None or self._under_way < self._room
            self._under_way += has_room
        try:
            yield has_room
        finally:
            with self._making:
                self._under_way -= has_room

    def digests(self) -> Executor | None:
        """Where to compute digests beside decoding; None: in line."""
        return self._pool("digests") if self._overlap else None

    def checks(self) -> Executor:
        """Where to run asynchronous checks."""
        return self._pool("checks")

    def shed(self) -> Executor:
        """Where to run those of them that are too many, with their digests only."""
        return self._pool("shed")

    def close(self) -> None:
        """Finish what is running and stop the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools = {}

    def after_fork(self) -> None:
        """In a forked child: the parent's threads do not exist here."""
        self._pools, self._making, self._under_way = {}, threading.Lock(), 0

    def _pool(self, kind: str) -> ThreadPoolExecutor:
        pool = self._pools.get(kind)
        if pool is None:
            with self._making:
                pool = self._pools.setdefault(
                    kind, ThreadPoolExecutor(self._sizes[kind], thread_name_prefix=f"uploadguard-{kind}")
                )
        return pool
