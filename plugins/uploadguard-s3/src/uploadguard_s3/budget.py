"""How many bytes of objects there are in memory at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["ByteBudget"]


class ByteBudget:
    """Lets in what fits into ``limit_bytes``, first come, first served. What is larger by itself goes in alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._free = limit_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        """How many are taken."""
        return self._limit - self._free

    @asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room, and have it until the block is left."""
        size = min(size_bytes, self._limit)
        await self._acquire(size)
        try:
            yield
        finally:
            self._give_back(size)

    async def _acquire(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(size)
            else:
                self._waiting.remove((size, turn))
                self._wake()
            raise

    def _give_back(self, size: int) -> None:
        self._free += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)
