"""How late an event loop is: a task of the application's that sleeps and sees when it is woken."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from uploadguard import Guard

_EVERY_S = 0.005


class Probe:
    """Runs while the application does. :meth:`report` starts anew."""

    def __init__(self) -> None:
        self._late_ms: list[float] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Probe]:
        """Measure until this is left."""
        task = asyncio.create_task(self._measure())
        try:
            yield self
        finally:
            task.cancel()

    async def _measure(self) -> None:
        while True:
            asleep = time.perf_counter()
            await asyncio.sleep(_EVERY_S)
            self._late_ms.append((time.perf_counter() - asleep - _EVERY_S) * 1e3)

    def report(self) -> dict[str, Any]:
        """How late it was since the last time, in milliseconds."""
        late, self._late_ms = sorted(self._late_ms), []
        if not late:
            return {"samples": 0}
        return {
            "samples": len(late),
            "p50_ms": late[len(late) // 2],
            "p99_ms": late[int(len(late) * 0.99)],
            "longest_ms": late[-1],
            "over_100_ms": sum(ms > 100 for ms in late),
        }


def alive(guard: Guard) -> dict[str, Any]:
    """That the application runs, in which process, and how many checks it has made."""
    return {"pid": os.getpid(), "checks": sum(guard.status().checks.values())}
