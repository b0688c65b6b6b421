"""The made-up destination as a process of its own, for tests that kill its clients. One line asks, one line answers.

A share of the questions meets misbehaviour: the connection breaks before or after the destination acted, so that the
caller does not know; or an open report is forgotten, as real destinations do after a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import threading
from typing import Any

from tests.ledger.twophase import Destination, LostAnswerError

__all__ = ["DestinationProcess", "RemoteDestination"]

_TIMEOUT_S = 10.0


class DestinationProcess:
    """Forked off; counts in memory. To be made by a process with a single thread."""

    def __init__(self, chaos: float = 0.0, seed: int = 0) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = listening.getsockname()[1]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                asyncio.run(_serve(listening, chaos, random.Random(seed)))
            finally:
                os._exit(1)
        listening.close()

    def state(self) -> dict[str, Any]:
        """How often each key and each id was finished, and how often which step was taken."""
        found: dict[str, Any] = json.loads(RemoteDestination(self.port).ask("state"))
        return found

    def calm(self) -> None:
        """Misbehave no more."""
        RemoteDestination(self.port).ask("calm")

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


async def _serve(listening: socket.socket, chaos: float, chance: random.Random) -> None:
    there = Destination()
    ids_finished: dict[str, int] = {}
    level = [chaos]

    def act(words: list[str]) -> str:
        match words:
            case ["open", key]:
                return there.open(key)
            case ["finish", remote_id]:
                if chance.random() < level[0] / 5:
                    there.open_reports.pop(remote_id, None)
                answer = there.finish(remote_id)
                if answer == "done":
                    ids_finished[remote_id] = ids_finished.get(remote_id, 0) + 1
                return answer
            case ["retract", remote_id]:
                return there.retract(remote_id)
            case ["calm"]:
                level[0] = 0.0
                return "ok"
            case ["state"]:
                counts = {"keys": there.finished_by_key, "ids": ids_finished, "calls": there.calls}
                return json.dumps(counts)
        raise ValueError("no such question")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                breaks = chance.random() < level[0] and not line.startswith((b"state", b"calm"))
                if breaks and chance.random() < 0.5:
                    break
                answer = act(line.decode().split())
                if breaks:
                    break
                writer.write(answer.encode() + b"\n")
        except ConnectionError:
            pass  # the worker was killed
        finally:
            writer.close()

    server = await asyncio.start_server(talk, sock=listening, limit=1 << 16)
    async with server:
        await server.serve_forever()


class RemoteDestination:
    """A client of it, with a connection for each thread. Raises :class:`LostAnswerError`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mine = threading.local()

    def open(self, key: str) -> str:
        return self.ask(f"open {key}")

    def finish(self, remote_id: str) -> str:
        return self.ask(f"finish {remote_id}")

    def retract(self, remote_id: str) -> str:
        return self.ask(f"retract {remote_id}")

    def ask(self, line: str) -> str:
        """Send a line, return the answer."""
        try:
            stream = getattr(self._mine, "stream", None)
            if stream is None:
                connection = socket.create_connection(("127.0.0.1", self._port), _TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = self._mine.stream = connection.makefile("rw", encoding="utf-8", newline="\n")
                connection.close()  # the file keeps it open
            stream.write(line + "\n")
            stream.flush()
            answer: str = stream.readline()
        except OSError:
            answer = ""
        if not answer.endswith("\n"):
            self._mine.stream = None
            raise LostAnswerError
        return answer.strip()
