"""Checks of uploads that are still arriving."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from uploadguard.models import Decision
from uploadguard.threads import Call
from uploadguard.uploads import UploadBuffer

__all__ = ["StreamingCheck"]

_THREAD_BYTES = 128 * 1024
"""From how many bytes on digesting takes longer than handing it to a thread: some 0.3 ms."""


class StreamingCheck:
    """A check of an upload while it arrives, made by :meth:`uploadguard.Guard.inspect`. Not for several threads."""

    def __init__(
        self,
        buffer: UploadBuffer,
        finish: Callable[[UploadBuffer, Call | None], Decision],
        on_thread: Callable[[Callable[[Call], Decision]], Awaitable[Decision]],
    ) -> None:
        self._buffer: UploadBuffer | None = buffer
        self._finish = finish
        self._on_thread = on_thread

    def write(self, chunk: bytes | memoryview) -> None:
        """Take in the next bytes of the upload."""
        if self._buffer is None:
            raise ValueError("the inspection is finished: nothing more can be written")
        self._buffer.write(chunk)

    async def awrite(self, chunk: bytes | memoryview) -> None:
        """:meth:`write`, a large chunk on a thread, so that the event loop goes on. One at a time, awaited."""
        if len(chunk) < _THREAD_BYTES:
            self.write(chunk)
        else:
            await asyncio.to_thread(self.write, chunk)

    def leave_unread(self, size_bytes: int) -> None:
        """The upload is over ``media.max_file_bytes``, as its store says, and will not be written: it is ``too_large``.

        Without its digests nothing can match. For uploads that lie where reading them takes long. Raises
        ``ValueError`` for a size within the limit.
        """
        if self._buffer is None:
            raise ValueError("the inspection is finished: nothing more can be said of it")
        self._buffer.leave_unread(size_bytes)

    def finish(self) -> Decision:
        """All bytes are in: decide. Raises as :meth:`uploadguard.Guard.check` does."""
        return self._finish(self._take(), None)

    async def afinish(self) -> Decision:
        """:meth:`finish` on a thread of the Guard's, so that the event loop goes on."""
        return await self._on_thread(functools.partial(self._finish, self._take()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._buffer = None

    def _take(self) -> UploadBuffer:
        if self._buffer is None:
            raise ValueError("the inspection is finished already")
        buffer, self._buffer = self._buffer, None
        return buffer
