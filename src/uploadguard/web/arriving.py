"""Taking an upload in: limits, the temporary file, the check beside it, and what a queued one needs.

What the asynchronous adapters and the service share. An adapter reads its framework's request; everything else is
here, so that no two of them answer differently. Nothing here blocks the event loop: writing to disk, digesting more
than a little, and a host's plain functions run on threads.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Self, TypeAlias, cast

from uploadguard.config_hosts import WebSettings
from uploadguard.errors import MediaReadError, NotReadyError, NotRecordedError
from uploadguard.guard import Guard
from uploadguard.models import Context, Decision, Verdict
from uploadguard.streaming import StreamingCheck
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answer, Answers

__all__ = [
    "DIGESTED_AS_THEY_ARRIVE_BYTES",
    "IN_MEMORY_BYTES",
    "ArrivingFile",
    "CheckedFile",
    "Hold",
    "Limits",
    "Queue",
    "Refused",
    "Waiting",
    "admit",
    "conclude",
    "decide",
    "is_encoded",
    "limited",
]

Hold: TypeAlias = Callable[[Decision, BinaryIO], Awaitable[None] | None]
"""Keeps a queued upload unserved: gets the decision and the file, at its beginning, before the uploader is answered.

A plain function runs on a thread. The file is closed when it returns. Where it raises, so does the request: nothing
is answered as received that nobody holds.
"""

Queue: TypeAlias = Literal["answer", "pass"]
"""What happens to a request with a queued upload: it is answered in the handler's place, or the handler runs."""

IN_MEMORY_BYTES = 1 << 20
"""Up to which size an upload's temporary file is in memory."""

_UNENCODED = ("", "7bit", "8bit", "binary", "identity")

_CROWDED_GRACE_S = 1.0
_CROWDED_TIMES = 8
"""How many times the least rate a body must have to keep its place when others find none."""

_BATCH_BYTES = 128 * 1024
"""From how many bytes on they are digested and written on a thread; both take less than going there before that."""

DIGESTED_AS_THEY_ARRIVE_BYTES = 16 << 20
"""Up to this size in all, the files of a request are in memory until they are checked; what is beyond that is read from
its temporary file then. So slow uploads, however large and many, hold little memory."""


class Refused(Exception):
    """A request that is answered without its handler. Never leaves an adapter."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may bring; all inclusive.

    ``max_fields`` and the sizes of fields are for the parts of a form that are no files. ``timeout_s`` is for the whole
    body; None waits for ever. ``min_bytes_per_s`` is the least rate of what is waited for beyond ``grace_s``: so a few
    clients that send a byte now and then cannot hold all places; 0 takes any. When others find no place, more is asked.
    """

    max_body_bytes: int
    max_files: int
    max_fields: int = 1000
    max_field_bytes: int = 1 << 20
    max_fields_bytes: int = 8 << 20
    timeout_s: float | None = 600.0
    min_bytes_per_s: int = 0
    grace_s: float = 20.0

    @classmethod
    def of(cls, settings: WebSettings, **others: Any) -> Self:
        """Those of the settings, and ``others`` by name."""
        return cls(settings.max_body_bytes, settings.max_files, min_bytes_per_s=settings.min_bytes_per_s, **others)

    def patience_s(self, size_bytes: int, *, crowded: bool = False) -> float:
        """How long to wait in all for a body of which that much has arrived; without the time for dealing with it.

        ``crowded``: until the body's place is given to another one, where there is none left.
        """
        if not self.min_bytes_per_s:
            return math.inf
        if crowded:
            return min(self.grace_s, _CROWDED_GRACE_S) + size_bytes / (self.min_bytes_per_s * _CROWDED_TIMES)
        return self.grace_s + size_bytes / self.min_bytes_per_s


@dataclass(frozen=True, slots=True, eq=False)
class CheckedFile:
    """A file that arrived and was checked.

    ``file`` is a temporary file, at its beginning, and is gone when the request is over. ``filename`` and
    ``content_type`` are what the client says: nothing to rely on. ``field`` is the form field's name, empty for a file
    that is the whole body.
    """

    decision: Decision
    file: BinaryIO
    filename: str | None
    content_type: str | None
    field: str
    size_bytes: int

    def __repr__(self) -> str:
        return f"CheckedFile({self.decision!r}, {self.size_bytes} bytes)"


def is_encoded(encoding: str | None) -> bool:
    """Whether a Content-Encoding, or a part's Content-Transfer-Encoding, makes it another file than its bytes are.

    Most applications would leave it as it is, some would decode it: what is checked must be what they get.
    """
    return (encoding or "").strip().lower() not in _UNENCODED


@contextmanager
def admit(
    guard: Guard,
    answers: Answers,
    limits: Limits,
    content_length: str | None,
    content_encoding: str | None = None,
) -> Iterator[None]:
    """A place for one request, before its body is read: to be held until its uploads are decided.

    ``content_length`` and ``content_encoding`` are the headers, if there are any. Raises :class:`Refused`.
    """
    if is_encoded(content_encoding):
        raise Refused(answers.broken())
    if content_length is not None and content_length.isascii() and content_length.isdigit():
        digits = content_length.lstrip("0")
        if len(digits) > 18 or int(digits or "0") > limits.max_body_bytes:
            raise Refused(answers.too_large())
    if not guard.ready:
        raise Refused(answers.busy())
    with Admission.of(guard).enter() as admitted:
        if not admitted:
            raise Refused(answers.busy())
        yield


class Waiting:
    """Waits for the chunks of one body, no longer than the limits say. ``size_bytes`` is what has arrived."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + limits.timeout_s if limits.timeout_s is not None else math.inf
        self._waited_s = 0.0
        self._since = 0.0
        self._timeout: asyncio.Timeout | None = None
        self._given_up = False
        self.size_bytes = 0

    async def next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """The next chunk, None at the end. Raises ``TimeoutError``, and what ``chunks`` raises."""
        if self._given_up:
            raise TimeoutError
        self._since = self._loop.time()
        latest = min(self._until, self._since + self._limits.patience_s(self.size_bytes) - self._waited_s)
        try:
            async with asyncio.timeout_at(latest if latest < math.inf else None) as self._timeout:
                chunk = await anext(chunks, None)
        finally:
            self._timeout = None
        self._waited_s += self._loop.time() - self._since
        self.size_bytes += len(chunk or b"")
        return chunk

    def behind_s(self) -> float:
        """For how much longer it was waited for than it may be while others find no place. For any thread."""
        if self._timeout is None:  # it is dealt with
            return -math.inf
        waited_s = self._waited_s + self._loop.time() - self._since
        return waited_s - self._limits.patience_s(self.size_bytes, crowded=True)

    def give_up(self) -> None:
        """Somebody else has its place: wait no longer. For any thread."""
        self._given_up = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())


async def limited(
    chunks: AsyncIterator[bytes],
    limits: Limits,
    answers: Answers,
    admission: Admission,
    waiting: Waiting | None = None,
) -> AsyncGenerator[bytes, None]:
    """The chunks of a body, as long as they are within the limits. Raises :class:`Refused`, and what they raise.

    ``admission`` is where the request has its place, which it may lose to others. ``waiting`` is for bodies whose
    parts are read one by one: the same for all of them.
    """
    waiting = waiting or Waiting(limits)
    with admission.waiting(waiting):
        while True:
            try:
                chunk = await waiting.next(chunks)
            except TimeoutError:
                raise Refused(answers.timed_out()) from None
            if chunk is None:
                return
            if waiting.size_bytes > limits.max_body_bytes:
                raise Refused(answers.too_large())
            yield chunk


class ArrivingFile:
    """A file while it arrives: written to a temporary file, and digested. One call at a time.

    Ends with :meth:`check`, whose result owns the temporary file, or with :meth:`drop`.
    """

    def __init__(
        self,
        guard: Guard | None,
        context: Context | None = None,
        *,
        digested_bytes: int = DIGESTED_AS_THEY_ARRIVE_BYTES,
    ) -> None:
        """Without a Guard it is only kept. Up to ``digested_bytes`` it is digested as it arrives, and in memory."""
        self._guard = guard
        self._digested_bytes = digested_bytes
        self._context = context
        self._streaming: StreamingCheck | None = guard.inspect(context) if guard is not None else None
        self._file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES))  # noqa: SIM115
        self._closing = threading.Lock()
        self._pending = bytearray()
        self.size_bytes = 0

    @property
    def in_memory_bytes(self) -> int:
        """How much of it is in memory until it is checked."""
        return self.size_bytes if self._streaming is not None else 0

    async def write(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        self._pending += data
        self.size_bytes += len(data)
        if len(self._pending) >= _BATCH_BYTES:
            await asyncio.to_thread(self._take, self._swap())

    async def rewind(self) -> BinaryIO:
        """The temporary file, whole and at its beginning."""
        await self._on_thread_if_large(self._complete, self._swap())
        return self._file

    async def check(self) -> Decision:
        """All bytes are in: decide. Raises as :meth:`uploadguard.Guard.check` does."""
        assert self._guard is not None, "a file that is only kept is not checked"
        await self.rewind()
        streaming, self._streaming = self._streaming, None
        if streaming is not None:
            return await streaming.afinish()
        return await self._guard.acheck(self._file, context=self._context)

    def drop(self) -> None:
        """Let go of everything, now or as soon as the thread that is writing has ended. May be called again."""
        self._streaming = None
        if self.size_bytes <= IN_MEMORY_BYTES and self._closing.acquire(blocking=False):
            try:
                self._file.close()
            finally:
                self._closing.release()
        else:  # not awaited: where a task is cancelled, nothing is
            asyncio.get_running_loop().run_in_executor(None, self._close)

    def _swap(self) -> bytearray:
        pending, self._pending = self._pending, bytearray()
        return pending

    async def _on_thread_if_large(self, work: Callable[[bytearray], None], pending: bytearray) -> None:
        if self.size_bytes > IN_MEMORY_BYTES:
            await asyncio.to_thread(work, pending)
        else:
            work(pending)

    def _take(self, pending: bytearray) -> None:
        with self._closing:
            if self._file.closed:
                return
            self._file.write(pending)
            streaming = self._streaming
            if streaming is not None:
                if self.size_bytes > self._digested_bytes:
                    self._streaming = None
                else:
                    streaming.write(memoryview(pending))

    def _complete(self, pending: bytearray) -> None:
        if pending:
            self._take(pending)
        with self._closing:
            if not self._file.closed:
                self._file.seek(0)

    def _close(self) -> None:
        with self._closing:
            self._file.close()


async def decide(check: Awaitable[Decision], answers: Answers) -> Decision:
    """What the check finds. Raises :class:`Refused` where it cannot be made now."""
    try:
        return await check
    except (NotReadyError, NotRecordedError, MediaReadError) as error:
        raise Refused(answers.of_error(error)) from error


async def conclude(files: Sequence[CheckedFile], answers: Answers, hold: Hold | None, queue: Queue) -> Answer | None:
    """The answer in the handler's place, after queued uploads were given to ``hold``; None where the handler runs."""
    decisions = [file.decision for file in files]
    worst = answers.worst(decisions)
    if worst is not None and answers.verdict(worst) is Verdict.QUEUE:
        if queue == "pass":
            return None
        for file in files:
            if hold is not None and answers.verdict(file.decision) is Verdict.QUEUE:
                await _call_hold(hold, file)
    return answers.of(decisions)


async def _call_hold(hold: Hold, file: CheckedFile) -> None:
    if inspect.iscoroutinefunction(hold) or inspect.iscoroutinefunction(getattr(hold, "__call__", None)):  # noqa: B004
        result: Awaitable[None] | None = hold(file.decision, file.file)
    else:
        result = await asyncio.to_thread(hold, file.decision, file.file)
    if result is not None:
        await result
