"""What is done with one message: its events are read, its objects checked, and what came of it is one word.

The queue's worker and the Lambda handler both stand on this.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from uploadguard.errors import UploadguardError
from uploadguard.logs import log
from uploadguard_s3.events import BadRecord, EventError, EventKind, KeyEncoding, S3Event, parse_event, parse_message
from uploadguard_s3.model import Checks, ObjectRef, Outcome, S3Poison, S3Retry

__all__ = ["Ending", "Handled", "MessageHandler", "Tally", "Watcher"]

_MAX_CHECK_S = 900.0


class Ending(enum.StrEnum):
    """What became of a message. Labels of metrics."""

    DONE = "done"
    """All its objects are dealt with for good."""
    RETRY = "retry"
    """At least one could not be dealt with now."""
    DEAD = "dead"
    """At least one never will be; all others are."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a message, and why, without key or payload.

    ``after_s`` is the least wait before another try, where one was asked for. ``is_fault``: it failed in a way that
    nothing says will pass.
    """

    ending: Ending
    reason: str = ""
    after_s: float | None = None
    is_fault: bool = False


class Watcher(Protocol):
    """Told of what happens, for progress and metrics."""

    def saw_event(self, kind: EventKind) -> None:
        """An event was read."""

    def saw_object(self, outcome: Outcome, check_s: float, lag_s: float | None) -> None:
        """An object was dealt with. ``lag_s`` is the time since its event, where that says when it happened."""

    def saw_message(self, ending: Ending) -> None:
        """A message was dealt with."""


class Tally:
    """Counts what happened, and tells another watcher."""

    def __init__(self, other: Watcher | None = None) -> None:
        self.events: Counter[EventKind] = Counter()
        self.objects: Counter[Outcome] = Counter()
        self.messages: Counter[Ending] = Counter()
        self._other = other

    def saw_event(self, kind: EventKind) -> None:
        """Count an event."""
        self.events[kind] += 1
        if self._other is not None:
            self._other.saw_event(kind)

    def saw_object(self, outcome: Outcome, check_s: float, lag_s: float | None) -> None:
        """Count an object."""
        self.objects[outcome] += 1
        if self._other is not None:
            self._other.saw_object(outcome, check_s, lag_s)

    def saw_message(self, ending: Ending) -> None:
        """Count a message."""
        self.messages[ending] += 1
        if self._other is not None:
            self._other.saw_message(ending)


class MessageHandler:
    """Handles messages, any number at once; events of one key one after the other.

    ``max_check_s`` bounds how long one object may take, whatever hangs.
    """

    def __init__(
        self,
        checks: Checks,
        *,
        encoding: KeyEncoding = KeyEncoding.AUTO,
        watcher: Watcher | None = None,
        max_check_s: float = _MAX_CHECK_S,
    ) -> None:
        self._checks = checks
        self._encoding = encoding
        self._watcher = watcher if watcher is not None else Tally()
        self._max_check_s = max_check_s
        self._keys = _KeyLocks()

    async def handle(self, body: str) -> Handled:
        """Deal with the body of a queue's message. Never raises for what is wrong with it, or with a check."""
        try:
            events = parse_message(body, encoding=self._encoding)
        except EventError as error:
            return Handled(Ending.DEAD, error.reason)
        return await self._deal_with(events)

    async def handle_event(self, event: object) -> Handled:
        """The same for what Lambda is invoked with."""
        try:
            events = parse_event(event, encoding=self._encoding)
        except EventError as error:
            return Handled(Ending.DEAD, error.reason)
        return await self._deal_with(events)

    async def _deal_with(self, events: Sequence[S3Event | BadRecord]) -> Handled:
        found = [await self._one(event) for event in events]
        retries = [one for one in found if one.ending is Ending.RETRY]
        if retries:
            return Handled(
                Ending.RETRY,
                retries[0].reason,
                max((one.after_s for one in retries if one.after_s is not None), default=None),
                all(one.is_fault for one in retries),
            )
        return next((one for one in found if one.ending is Ending.DEAD), _DONE)

    async def _one(self, event: S3Event | BadRecord) -> Handled:
        if isinstance(event, BadRecord):
            return Handled(Ending.DEAD, f"record {event.place}: {event.reason}")
        self._watcher.saw_event(event.kind)
        if event.ref is None:
            if event.kind is EventKind.OTHER:
                log.info("an event of no use here: %s", event.name)
            return _DONE
        try:
            async with asyncio.timeout(self._max_check_s), self._keys.held(event.ref):
                await self._check(event.ref, event.at)
        except S3Retry as error:
            return Handled(Ending.RETRY, error.reason, error.after_s)
        except S3Poison as error:
            return Handled(Ending.DEAD, error.reason)
        except TimeoutError:
            return Handled(Ending.RETRY, f"a check took longer than {self._max_check_s:.0f} s", is_fault=True)
        except UploadguardError as error:
            return Handled(Ending.RETRY, str(error))
        except Exception as error:  # noqa: BLE001 - one object's fault must not end the worker; it becomes a dead letter
            log.warning("a check failed: %s", type(error).__name__, exc_info=error)
            return Handled(Ending.RETRY, f"unexpected {type(error).__name__}", is_fault=True)
        return _DONE

    async def _check(self, ref: ObjectRef, at: datetime | None) -> None:
        started = time.monotonic()
        checked = await self._checks.check(ref)
        lag_s = max(0.0, (datetime.now(UTC) - at).total_seconds()) if at is not None else None
        self._watcher.saw_object(checked.outcome, time.monotonic() - started, lag_s)


_DONE = Handled(Ending.DONE)


class _KeyLocks:
    """A lock for each key that somebody works on or waits for."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def held(self, ref: ObjectRef) -> AsyncIterator[None]:
        key = ref.bucket, ref.key
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1
