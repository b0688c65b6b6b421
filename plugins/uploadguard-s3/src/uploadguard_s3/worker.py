"""The worker: takes messages from a queue, has their objects checked, and lets go of them when all that is final.

A message is deleted only then. Until then it is kept from other workers, by extending its visibility time-out; so what
a worker that died was doing comes to another one after that time, and the checks are such that doing one again does no
harm. Several workers may read one queue.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from uploadguard.logs import log
from uploadguard_s3.dead_letters import DeadLetterRecord
from uploadguard_s3.handling import Ending, Handled, MessageHandler, Tally
from uploadguard_s3.queues import BATCH, Message, Queue, QueueDownError

__all__ = ["QueueWorker", "WorkerLimits"]

_LONGEST_BACKOFF_S = 900
_LONGEST_PAUSE_S = 30.0
_PAUSE_AFTER = 8
"""So many messages in a row that could not be dealt with now: it is not their fault, so receiving more waits."""
_CRASHES = 10
"""So many times ``max_receives``: a message that nobody comes to an end with, as those that end the worker do."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How much a worker takes on. ``at_once`` checks run, and up to ten messages more are held ready.

    ``visibility_s``: how long a message is kept from others at a time; after a worker died, so long until another one
    takes it. ``wait_s``: how long one request waits for messages, 20 s at most. ``max_receives``: after how many tries
    a message that fails for no reason that would pass is a dead letter. ``stop_s``: how long stopping waits for what
    is under way.
    """

    at_once: int = 16
    visibility_s: int = 60
    wait_s: int = 20
    max_receives: int = 10
    stop_s: float = 25.0


@dataclass(slots=True, eq=False)
class _Held:
    message: Message
    task: asyncio.Task[None] | None = None
    begun: bool = field(default=False)
    settled: bool = field(default=False)


class QueueWorker:
    """One queue's worker. ``record`` keeps why a message became a dead letter, before it does."""

    def __init__(
        self,
        queue: Queue,
        handler: MessageHandler,
        record: DeadLetterRecord,
        *,
        limits: WorkerLimits | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self.lost = 0
        """Messages whose time ran out before they could be extended: another worker may have them too."""
        self._queue = queue
        self._handler = handler
        self._record = record
        self._limits = limits or WorkerLimits()
        self._at_once = asyncio.Semaphore(self._limits.at_once)
        self._held: set[_Held] = set()
        self._room = asyncio.Event()
        self._receiving: asyncio.Task[Sequence[Message]] | None = None
        self._retries_in_a_row = 0
        self._failures_in_a_row = 0

    @property
    def held(self) -> int:
        """How many messages it holds."""
        return len(self._held)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what is under way, within bounds, and give back the rest."""
        extending = asyncio.create_task(self._extend())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._take_some(stopping)
        finally:
            stopping.cancel()
            try:
                await self._end()
            finally:
                extending.cancel()
                await asyncio.gather(extending, stopping, return_exceptions=True)

    async def _take_some(self, stopping: asyncio.Task[bool]) -> None:
        """Wait for room, then for messages, and begin them; return early when the worker is to stop."""
        self._room.clear()
        if len(self._held) > self._limits.at_once:
            room = asyncio.create_task(self._room.wait())
            await asyncio.wait({room, stopping}, return_when=asyncio.FIRST_COMPLETED)
            room.cancel()
            return
        if (pause_s := self._pause_s()) > 0:
            await asyncio.wait({stopping}, timeout=pause_s)
            if stopping.done():
                return
        limits = self._limits
        receive = self._queue.receive(BATCH, wait_s=limits.wait_s, visibility_s=limits.visibility_s)
        self._receiving = asyncio.create_task(receive)
        await asyncio.wait({self._receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not self._receiving.done():
            return
        try:
            messages = await self._receiving
        except QueueDownError as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row == 1:
                log.warning("%s; trying again until it does", error)
            return
        if self._failures_in_a_row:
            self._failures_in_a_row = 0
            log.warning("the queue answers again")
        self._receiving = None
        for message in messages:
            held = _Held(message)
            self._held.add(held)
            held.task = asyncio.create_task(self._work(held))
            held.task.add_done_callback(functools.partial(self._let_go, held))

    def _pause_s(self) -> float:
        """How long to wait before messages are asked for: longer with each failure in a row."""
        in_a_row = max(self._failures_in_a_row, self._retries_in_a_row - _PAUSE_AFTER)
        if in_a_row <= 0:
            return 0.0
        return _spread(min(_LONGEST_PAUSE_S, 0.25 * 2.0 ** min(in_a_row, 10)))

    async def _work(self, held: _Held) -> None:
        try:
            async with self._at_once:
                held.begun = True
                await self._settle(held, await self._handle(held.message))
        except QueueDownError as error:
            # What was done stays done: the message comes again, and finds that.
            log.warning("message %s could not be let go of: %s", held.message.id, error)

    def _let_go(self, held: _Held, _: object) -> None:
        self._held.discard(held)
        self._room.set()

    async def _handle(self, message: Message) -> Handled:
        most = self._limits.max_receives * _CRASHES
        if message.receives > most:
            return Handled(Ending.DEAD, f"received {message.receives} times, and never was an end")
        handled = await self._handler.handle(message.body)
        if handled.ending is Ending.RETRY and handled.is_fault and message.receives >= self._limits.max_receives:
            return Handled(Ending.DEAD, f"given up after {message.receives} tries: {handled.reason}")
        return handled

    async def _settle(self, held: _Held, handled: Handled) -> None:
        message = held.message
        self._count(handled)
        if handled.ending is Ending.DEAD and not await self._bury(message, handled.reason):
            handled = Handled(Ending.RETRY, handled.reason)
        held.settled = True  # so that it is not extended meanwhile
        if handled.ending is Ending.RETRY:
            wait_s = max(_backoff_s(message.receives), handled.after_s or 0.0)
            await self._queue.hide([message], round(min(wait_s, _LONGEST_BACKOFF_S)))
        else:
            await self._queue.delete(message)
        self.tally.saw_message(handled.ending)

    def _count(self, handled: Handled) -> None:
        """Tell an outage of what the checks need by messages that fail one after the other."""
        if handled.ending is not Ending.RETRY or handled.is_fault:
            if self._retries_in_a_row > _PAUSE_AFTER:
                log.warning("checks go on")
            self._retries_in_a_row = 0
            return
        self._retries_in_a_row += 1
        if self._retries_in_a_row == 1:
            log.warning("a check must be tried again: %s", handled.reason)
        elif self._retries_in_a_row == _PAUSE_AFTER + 1:
            log.error("no check succeeds, so fewer messages are taken: %s", handled.reason)

    async def _bury(self, message: Message, reason: str) -> bool:
        """Record why, then send the message to the dead-letter queue; False where either could not be done."""
        try:
            await self._record.keep(message.id, reason, receives=message.receives)
            await self._queue.bury(message, reason)
        except (OSError, QueueDownError) as error:
            log.error("message %s stays in the queue, but is a dead letter (%s): %s", message.id, reason, error)
            return False
        log.error("message %s went to the dead-letter queue: %s", message.id, reason)
        return True

    async def _extend(self) -> None:
        """Keep what is held from other workers, until cancelled."""
        visibility_s = self._limits.visibility_s
        while True:
            await asyncio.sleep(visibility_s / 3)
            held = {one.message.receipt: one for one in self._held if not one.settled}
            if not held:
                continue
            try:
                lost = await self._queue.hide([one.message for one in held.values()], visibility_s)
            except QueueDownError as error:
                log.warning("messages could not be kept from other workers: %s", error)
                continue
            for message in lost:
                if held[message.receipt] in self._held and not held[message.receipt].settled:
                    self.lost += 1
                    held[message.receipt].settled = True
                    log.warning("message %s is not held any more; another worker may check it too", message.id)

    async def _end(self) -> None:
        """Finish what has begun, within ``stop_s``, and give back what has not."""
        waiting = [one for one in self._held if not one.begun]
        begun = [one.task for one in self._held if one.begun and one.task is not None]
        await self._give_back(waiting)
        if begun:
            await asyncio.wait(begun, timeout=self._limits.stop_s)
        left = [one for one in self._held if one.task is not None and not one.task.done()]
        await self._give_back([*left, *await self._last_received(wait=bool(left))])

    async def _last_received(self, *, wait: bool) -> list[_Held]:
        """What the request brought that was under way when the worker was told to stop.

        It is waited for where messages are to be given back: an abandoned one would get just those.
        """
        receiving, self._receiving = self._receiving, None
        if receiving is None:
            return []
        if wait:
            await asyncio.wait({receiving}, timeout=self._limits.wait_s + 1)
        receiving.cancel()
        (found,) = await asyncio.gather(receiving, return_exceptions=True)
        return [] if isinstance(found, BaseException) else [_Held(message) for message in found]

    async def _give_back(self, some: list[_Held]) -> None:
        """Stop working on messages, and let other workers have them at once."""
        tasks = [one.task for one in some if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if some:
            try:
                await self._queue.hide([one.message for one in some], 0)
            except QueueDownError as error:
                log.warning("%d messages come again only when their time runs out: %s", len(some), error)


def _backoff_s(receives: int) -> float:
    return _spread(min(2.0 ** min(receives, 16), _LONGEST_BACKOFF_S))


def _spread(seconds: float) -> float:
    """Between a half and all of it, so that what failed together does not come back together."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
