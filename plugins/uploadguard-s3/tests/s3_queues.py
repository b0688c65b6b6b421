"""An emulator of SQS, a proxy that stands between it and a worker, and workers whose checks are made up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import aioboto3

from uploadguard_s3.dead_letters import DeadLetterRecord
from uploadguard_s3.handling import MessageHandler, Tally
from uploadguard_s3.model import Checked, ObjectRef, Outcome
from uploadguard_s3.queues import open_queue
from uploadguard_s3.worker import QueueWorker, WorkerLimits

__all__ = [
    "FakeChecks",
    "Proxy",
    "QueuePlace",
    "Records",
    "body_of",
    "client_options",
    "on_a_loop",
    "queue_place",
    "running_emulator",
    "until",
    "working",
]

P = ParamSpec("P")
_NUMBERS = itertools.count(1)
_SESSION = aioboto3.Session()
"""One for all: what it read of the services' descriptions it keeps."""
_START_S = 60.0


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def running_emulator(directory: Path) -> Iterator[str]:
    """The emulator, on loopback; its endpoint's URL. Its S3 tells its SQS of uploads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    program = shutil.which("ministack", path=str(Path(sys.executable).parent)) or shutil.which("ministack")
    if program is None:
        raise RuntimeError("the tests need an emulator of SQS: pip install ministack")
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "sqs,s3", "LOG_LEVEL": "WARNING"}
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory), **settings}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - found beside this interpreter
            [program], env=surroundings, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/_ministack/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - loopback
            return
        time.sleep(0.02)
    raise RuntimeError("the emulator did not start")


def client_options(url: str) -> dict[str, str]:
    """Keyword arguments for a client of the emulator."""
    return {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }


def body_of(*keys: str, name: str = "ObjectCreated:Put", bucket: str = "uploads", **about: Any) -> str:
    """A message as S3 sends it."""
    records = [
        {"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-22T04:00:00.000Z",
         "s3": {"bucket": {"name": bucket}, "object": {"key": key, **about}}}
        for key in keys
    ]  # fmt: skip
    return json.dumps({"Records": records})


@dataclass
class QueuePlace:
    """A queue with a dead-letter queue, at the emulator."""

    client: Any
    endpoint_url: str
    url: str
    dead_url: str
    arn: str

    async def send(self, *bodies: str) -> None:
        """Put messages into the queue."""
        for body in bodies:
            await self.client.send_message(QueueUrl=self.url, MessageBody=body)

    async def count(self) -> int:
        """How many messages are in the queue, held or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    async def empty(self) -> None:
        """Wait until nothing is in the queue."""
        async with asyncio.timeout(30):
            while await self.count():  # noqa: ASYNC110 - the emulator tells nobody
                await asyncio.sleep(0.02)

    async def dead(self) -> list[tuple[str, dict[str, str]]]:
        """Take the dead letters: body and attributes."""
        answer = await self.client.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return [
            (one["Body"], {name: value["StringValue"] for name, value in one.get("MessageAttributes", {}).items()})
            for one in answer.get("Messages", ())
        ]


@contextlib.asynccontextmanager
async def queue_place(url: str) -> AsyncIterator[QueuePlace]:
    """Two queues that no other test has."""
    number = next(_NUMBERS)
    async with _SESSION.client("sqs", **client_options(url)) as client:
        dead = (await client.create_queue(QueueName=f"dead-{number}"))["QueueUrl"]
        arn = await _arn(client, dead)
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "500"})
        queue = await client.create_queue(QueueName=f"events-{number}", Attributes={"RedrivePolicy": policy})
        yield QueuePlace(client, url, queue["QueueUrl"], dead, await _arn(client, queue["QueueUrl"]))


async def _arn(client: Any, url: str) -> str:
    return str((await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"])


@dataclass
class FakeChecks:
    """Checks that do what ``does`` says, and note what they were asked."""

    does: Callable[[ObjectRef], Awaitable[Outcome]] | None = None
    seen: list[str] = field(default_factory=list)

    async def check(self, ref: ObjectRef) -> Checked:
        """Answer."""
        self.seen.append(ref.key)
        return Checked(ref, await self.does(ref) if self.does is not None else Outcome.ALLOWED)


@dataclass
class Records:
    """A record of dead letters in memory; with ``refuses`` it keeps none."""

    kept: list[tuple[str, int]] = field(default_factory=list)
    refuses: bool = False

    async def keep(self, message_id: str, reason: str, *, receives: int) -> None:  # noqa: ARG002 - it is random
        """Keep one."""
        if self.refuses:
            raise OSError(28, "No space left on device")
        self.kept.append((reason, receives))


@contextlib.asynccontextmanager
async def working(
    place: QueuePlace,
    checks: FakeChecks,
    *,
    record: DeadLetterRecord | None = None,
    url: str | None = None,
    **limits: Any,
) -> AsyncIterator[QueueWorker]:
    """A worker that runs until the block is left; ``url`` is where it finds the queue."""
    limits = {"wait_s": 1, "stop_s": 5.0, "visibility_s": 30, **limits}
    tally = Tally()
    stop = asyncio.Event()
    options = client_options(url or place.endpoint_url)
    async with open_queue(place.url, wait_s=limits["wait_s"], session=_SESSION, **options) as queue:
        await queue.find_dead_letters()
        handler = MessageHandler(checks, watcher=tally)
        worker = QueueWorker(queue, handler, record or Records(), limits=WorkerLimits(**limits), tally=tally)
        running = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await running


class Proxy:
    """Stands before the emulator. ``mode``: ``pass``, ``refuse`` every connection, or ``throttle`` every request."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = host, int(port)
        self._open: set[asyncio.StreamWriter] = set()
        self.mode = "pass"
        self.turned_away = 0
        self.url = ""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.become("refuse")
        await self._server.wait_closed()

    def become(self, mode: str) -> None:
        """Change the mode, and cut all connections."""
        self.mode = mode
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.mode == "pass":
                await self._pass_on(reader, writer)
            else:
                self.turned_away += 1
                if self.mode == "throttle":
                    await reader.readuntil(b"\r\n\r\n")
                    answer = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'
                    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n"
                    writer.write(f"{head}Content-Type: application/x-amz-json-1.0\r\n\r\n".encode() + answer)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        try:
            pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
