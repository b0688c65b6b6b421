"""A queue of SQS and its dead-letter queue, with the one error that outages come out as."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from uploadguard.errors import ConfigError
from uploadguard_s3.model import S3Error

__all__ = ["Message", "Queue", "QueueDownError", "open_queue"]

BATCH = 10
"""The most messages that one request of SQS is about."""

_MAX_REASON_CHARACTERS = 500
_READ_MARGIN_S = 10.0
_GONE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})

P = ParamSpec("P")
R = TypeVar("R")


class QueueDownError(S3Error):
    """The queue did not answer, or refused a request. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was received. ``receives`` counts this time too. ``group`` orders messages of a FIFO queue."""

    id: str
    receipt: str
    body: str
    receives: int
    group: str | None = None

    def __repr__(self) -> str:
        return f"Message({self.id}, receives={self.receives})"


def _telling(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let a method raise :class:`QueueDownError` for whatever the client raises."""

    @functools.wraps(method)
    async def tell(*args: P.args, **kwargs: P.kwargs) -> R:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await method(*args, **kwargs)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "no code"))
            raise QueueDownError(f"the queue refused a request: {code[:64]}") from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise QueueDownError(f"the queue did not answer: {type(error).__name__}") from error

    return tell


class Queue:
    """A queue at ``url``, through an SQS client of aioboto3. Call :meth:`find_dead_letters` before :meth:`bury`.

    All methods raise :class:`QueueDownError`.
    """

    def __init__(self, client: Any, url: str, *, dead_letter_url: str | None = None) -> None:
        self._client = client
        self._url = url
        self._dead_letter_url = dead_letter_url

    @property
    def name(self) -> str:
        """The queue's name, for logs and records."""
        return self._url.rpartition("/")[2]

    @_telling
    async def receive(self, most: int, *, wait_s: int, visibility_s: int) -> Sequence[Message]:
        """Up to ``most`` messages, as soon as there is one, or none after ``wait_s`` seconds."""
        answer = await self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=min(most, BATCH),
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=visibility_s,
            AttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
        )
        return [_message(one) for one in answer.get("Messages", ())]

    @_telling
    async def delete(self, message: Message) -> None:
        """Take a message out of the queue."""
        await self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)

    @_telling
    async def hide(self, messages: Sequence[Message], visibility_s: int) -> Sequence[Message]:
        """Keep messages from other receivers for so many seconds from now; returns those that are not held any more."""
        lost = []
        for start in range(0, len(messages), BATCH):
            some = messages[start : start + BATCH]
            answer = await self._client.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(at), "ReceiptHandle": one.receipt, "VisibilityTimeout": visibility_s}
                    for at, one in enumerate(some)
                ],
            )
            lost += [some[int(one["Id"])] for one in answer.get("Failed", ()) if one.get("SenderFault")]
        return lost

    @_telling
    async def bury(self, message: Message, reason: str) -> None:
        """Send a copy to the dead-letter queue, the reason beside it. It may come to be there twice."""
        facts = {"reason": reason[:_MAX_REASON_CHARACTERS], "message-id": message.id, "queue": self.name}
        ordered = {"MessageGroupId": message.group or "dead", "MessageDeduplicationId": message.id}
        await self._client.send_message(
            QueueUrl=self._dead_letter_url,
            MessageBody=message.body,
            MessageAttributes={
                f"uploadguard-{name}": {"DataType": "String", "StringValue": value} for name, value in facts.items()
            },
            **(ordered if str(self._dead_letter_url).endswith(".fifo") else {}),
        )

    @_telling
    async def depth(self) -> tuple[int, int]:
        """About how many messages wait, and how many are being worked on."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)
        waiting, held = (int(answer.get("Attributes", {}).get(name, 0)) for name in names)
        return waiting, held

    async def find_dead_letters(self) -> None:
        """Make sure of both queues. Without ``dead_letter_url`` it is the one that the queue's redrive policy names.

        Raises :class:`~uploadguard.errors.ConfigError` where there is no such queue.
        """
        attributes = await self._attributes(self._url, "no such queue")
        if self._dead_letter_url is None:
            self._dead_letter_url = await self._redrive_target(attributes.get("RedrivePolicy"))
        await self._attributes(self._dead_letter_url, "no such dead-letter queue")

    @_telling
    async def _attributes(self, url: str, otherwise: str) -> Mapping[str, str]:
        from botocore.exceptions import ClientError

        try:
            answer = await self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _GONE:
                raise ConfigError(f"{url}: {otherwise}") from None
            raise
        found: Mapping[str, str] = answer.get("Attributes", {})
        return found

    @_telling
    async def _redrive_target(self, policy: str | None) -> str:
        arn = str(json.loads(policy).get("deadLetterTargetArn", "")) if policy else ""
        if not arn:
            raise ConfigError(
                f"{self._url}: has no dead-letter queue: set dead_letter_url, or give it a redrive policy"
            )
        *_, account, name = arn.split(":")
        answer = await self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
        return str(answer["QueueUrl"])


def _message(given: Mapping[str, Any]) -> Message:
    attributes = given.get("Attributes", {})
    return Message(
        id=str(given.get("MessageId", "")),
        receipt=str(given["ReceiptHandle"]),
        body=str(given.get("Body", "")),
        receives=int(attributes.get("ApproximateReceiveCount", 1)),
        group=attributes.get("MessageGroupId"),
    )


@contextlib.asynccontextmanager
async def open_queue(
    url: str,
    *,
    dead_letter_url: str | None = None,
    wait_s: int = 20,
    session: Any = None,
    **client_options: Any,
) -> AsyncIterator[Queue]:
    """A queue, with a client of its own; ``client_options`` (``endpoint_url``, ``region_name``, ...) are the client's.

    Raises :class:`~uploadguard.errors.ConfigError` if aioboto3 is not installed.
    """
    try:
        import aioboto3
        from aiobotocore.config import AioConfig
    except ImportError as error:
        raise ConfigError("a queue of SQS needs the aioboto3 package: pip install aioboto3") from error
    config = AioConfig(
        connect_timeout=5,
        read_timeout=wait_s + _READ_MARGIN_S,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=50,
    )
    async with (session or aioboto3.Session()).client("sqs", config=config, **client_options) as client:
        yield Queue(client, url, dead_letter_url=dead_letter_url)
