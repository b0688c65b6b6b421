"""A handler for AWS Lambda: invoked by a queue with partial failures, or by S3, SNS or EventBridge themselves.

The function's handler is ``uploadguard_s3.awslambda.handler``. ``UPLOADGUARD_CONFIG`` names uploadguard's settings and
``S3_UPLOADGUARD_CONFIG`` the plugin's. Both are opened in the first invocation and stay open as long as its container.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from uploadguard.errors import ConfigError
from uploadguard.logs import log
from uploadguard_s3.dead_letters import DeadLetterLog
from uploadguard_s3.events import KeyEncoding
from uploadguard_s3.handling import Ending, Handled, MessageHandler
from uploadguard_s3.model import Checks, S3Poison, S3Retry

__all__ = ["LambdaHandler", "handler"]

_MARGIN_S = 5.0
"""So much of an invocation's time is kept for its answer."""


class LambdaContext(Protocol):
    """What this module uses of the context that Lambda gives."""

    def get_remaining_time_in_millis(self) -> int:
        """How much of the invocation's time is left."""
        ...


class LambdaHandler:
    """A handler on a loop of its own. ``opens`` opens the checks, once; again if that failed.

    At most ``at_once`` messages of a batch are dealt with at once. What is not done ``margin_s`` before the end of an
    invocation's time is stopped, and comes again.
    """

    def __init__(
        self,
        opens: Callable[[], AbstractAsyncContextManager[Checks]],
        *,
        encoding: KeyEncoding = KeyEncoding.AUTO,
        at_once: int = 10,
        margin_s: float = _MARGIN_S,
    ) -> None:
        self._opens = opens
        self._encoding = encoding
        self._at_once = at_once
        self._margin_s = margin_s
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._handler: MessageHandler | None = None
        self._record = DeadLetterLog()

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
        """Deal with an invocation.

        For one by a queue the answer names the messages that failed: they come again, and go to the queue's
        dead-letter queue by its redrive policy. For any other, raises :class:`~uploadguard_s3.model.S3Error` if
        anything failed, so that Lambda does the same with the whole event.
        """
        left_s = max(0.0, context.get_remaining_time_in_millis() / 1e3 - self._margin_s)
        return self._runner.run(self._invoked(event, left_s))

    def close(self) -> None:
        """Close the checks, and the loop."""
        self._runner.run(self._open.aclose())
        self._runner.close()

    async def _invoked(self, event: Mapping[str, Any], left_s: float) -> dict[str, Any] | None:
        if self._handler is None:
            checks = await self._open.enter_async_context(self._opens())
            self._handler = MessageHandler(checks, encoding=self._encoding)
        handler = self._handler
        end = asyncio.get_running_loop().time() + left_s
        messages = _messages(event)
        if messages is not None:
            failed = await self._batch(handler, messages, end)
            return {"batchItemFailures": [{"itemIdentifier": one} for one in failed]}
        try:
            async with asyncio.timeout_at(end):
                handled = await handler.handle_event(event)
        except TimeoutError:
            raise S3Retry("the time of the invocation is over") from None
        if handled.ending is Ending.DEAD:
            await self._record.keep("of the invocation", handled.reason, receives=1)
            raise S3Poison(handled.reason)
        if handled.ending is Ending.RETRY:
            raise S3Retry(handled.reason)
        return None

    async def _batch(self, handler: MessageHandler, messages: Sequence[Mapping[str, Any]], end: float) -> list[str]:
        """Deal with a queue's messages; returns those that failed, in order."""
        room = asyncio.Semaphore(self._at_once)
        groups: dict[object, list[Mapping[str, Any]]] = {}
        for message in messages:
            group = _attributes(message).get("MessageGroupId")
            groups.setdefault(group if group is not None else id(message), []).append(message)

        async def in_order(group: list[Mapping[str, Any]]) -> list[str]:
            """Of a FIFO queue's group none may be done before those that came before it."""
            for at, message in enumerate(group):
                async with room:
                    done = await self._one(handler, message, end)
                if not done:
                    return [str(one.get("messageId")) for one in group[at:]]
            return []

        failed = {one for some in await asyncio.gather(*map(in_order, groups.values())) for one in some}
        return [found for message in messages if (found := str(message.get("messageId"))) in failed]

    async def _one(self, handler: MessageHandler, message: Mapping[str, Any], end: float) -> bool:
        identifier = str(message.get("messageId"))
        try:
            async with asyncio.timeout_at(end):
                handled = await handler.handle(str(message.get("body", "")))
        except TimeoutError:
            handled = Handled(Ending.RETRY, "the time of the invocation is over")
        if handled.ending is Ending.DEAD:
            await self._record.keep(identifier, handled.reason, receives=_receives(message))
        elif handled.ending is Ending.RETRY:
            log.warning("message %s must be tried again: %s", identifier, handled.reason)
        return handled.ending is Ending.DONE


def _messages(event: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The messages of an invocation by a queue; None where it is another."""
    records = event.get("Records")
    if not isinstance(records, list) or not records:
        return None
    if all(isinstance(one, Mapping) and one.get("eventSource") == "aws:sqs" for one in records):
        return records
    return None


def _attributes(message: Mapping[str, Any]) -> Mapping[str, Any]:
    found = message.get("attributes")
    return found if isinstance(found, Mapping) else {}


def _receives(message: Mapping[str, Any]) -> int:
    found = str(_attributes(message).get("ApproximateReceiveCount", "1"))
    return int(found) if found.isascii() and found.isdigit() else 1


@asynccontextmanager
async def _open_checks() -> AsyncIterator[Checks]:
    """The Guard and the checker that the environment's settings say."""
    from uploadguard import Guard
    from uploadguard_s3.checker import ObjectChecker

    with await asyncio.to_thread(Guard.open) as guard:
        async with ObjectChecker.open(guard, _options()) as checker:
            yield checker


def _options() -> Any:
    from uploadguard_s3.options import S3Options

    path = os.environ.get("S3_UPLOADGUARD_CONFIG")
    if not path:
        raise ConfigError("S3_UPLOADGUARD_CONFIG must name the settings of uploadguard-s3")
    return S3Options.load(path)


_OPENED: list[LambdaHandler] = []


def handler(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """The function's handler. Raises :class:`~uploadguard.errors.UploadguardError` where the settings are wrong."""
    if not _OPENED:
        options = _options()
        _OPENED.append(LambdaHandler(_open_checks, encoding=options.queue.key_encoding, at_once=options.limits.at_once))
    return _OPENED[0](event, context)
