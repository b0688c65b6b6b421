"""The base of the fake servers: HTTP/1.1 on loopback, everything kept that came in, misbehaviour on request.

A fake is a subclass of :class:`FakeServer` that answers one request at a time in :meth:`FakeServer.answer`. Its state
lives in the object, so it outlives :meth:`FakeServer.restart`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import struct
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from uploadguard.testing.fakes import misbehaviour as wrong
from uploadguard.testing.fakes.messages import Request, Response

__all__ = ["CONTROL", "FakeClock", "FakeServer"]

CONTROL = "/__fake__/"
"""Below this path a fake answers for itself: ``GET state`` (JSON of :meth:`FakeServer.snapshot`), ``POST calm``."""


class FakeClock:
    """UTC, as the machine has it, until a test moves it. Thread-safe."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time, with zone."""
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._ahead += timedelta(seconds=seconds)


class FakeServer(ABC):
    """A server on 127.0.0.1; a context manager that runs it.

    ``errors`` holds what :meth:`answer` raised, which is a fault of the fake's: leaving the context raises it.
    """

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        self.lock = threading.RLock()
        """Held while :meth:`answer` runs; hold it to look at the state."""
        self.clock = FakeClock()
        self.rules = wrong.Rules(seed)
        self.errors: list[BaseException] = []
        self._requests: list[Request] = []
        self._port = port
        self._running: _Running | None = None

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """Carry the request out and answer it. Called for one request at a time."""

    def snapshot(self) -> dict[str, Any]:
        """What happened so far, as JSON types, for tests that run the fake in a process of its own."""
        return {"requests": len(self._requests)}

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end; the same before and after a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order in which they were read; a copy."""
        with self.lock:
            return list(self._requests)

    def misbehave(self, *kinds: wrong.Misbehaviour, **when: Any) -> None:
        """See :meth:`Rules.add`."""
        self.rules.add(*kinds, **when)

    def behave(self) -> None:
        """Misbehave no more."""
        self.rules.clear()

    def start(self) -> None:
        """Listen. The port stays the same once one was taken."""
        if self._running is None:
            self._running = _Running(self, self._port)
            self._port = self._running.port

    def stop(self) -> None:
        """Close the port and all connections; the state stays. Returns when no thread is left."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def restart(self) -> None:
        """Close all connections and come back on the same port, with the same state."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.stop()
        if self.errors and kind is None:
            raise RuntimeError("the fake server itself failed") from self.errors[0]

    def keep(self, request: Request) -> None:
        """Remember a request."""
        with self.lock:
            self._requests.append(request)

    def respond(self, request: Request) -> Response:
        """:meth:`answer`, one at a time."""
        with self.lock:
            return self.answer(request)

    def control(self, path: str) -> Response:
        """Answer what is asked of the fake itself."""
        if path == CONTROL + "calm":
            self.behave()
        with self.lock:
            return Response(body=json.dumps(self.snapshot()).encode(), headers={"Content-Type": "application/json"})


class _Running(socketserver.ThreadingTCPServer):
    """The listening half of a fake: one thread that accepts, and one for each connection, all gone after stop()."""

    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, fake: FakeServer, port: int) -> None:
        self.fake = fake
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._reset: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=f"fake-{self.port}")
        self._thread.start()

    def stop(self) -> None:
        """Close everything, and wait for all threads."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def reset_when_closed(self, connection: socket.socket) -> None:
        """Close this connection with a reset, not with an orderly end."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._guard:
            self._reset.add(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
            reset = request in self._reset
            self._reset.discard(request)
        if reset:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        error = sys.exception()
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.fake.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """One connection, kept alive as long as the client likes."""

    protocol_version = "HTTP/1.1"
    server_version = "fake"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True
    server: _Running

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def handle_expect_100(self) -> bool:
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _handle(self) -> None:
        target = urlsplit(self.path)
        fake = self.server.fake
        if target.path.startswith(CONTROL):
            self._read_body()
            self._send(fake.control(target.path))
            return
        kind = fake.rules.pick(self.command, target.path)
        body = b"" if isinstance(kind, wrong.Reset) else self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(target.query, keep_blank_values=True)
        request = Request(self.command, target.path, query, headers, body, fake.clock.now(), kind)
        fake.keep(request)
        self._meet(kind, request)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 - the base's names

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _meet(self, kind: wrong.Misbehaviour | None, request: Request) -> None:
        """Carry out, and answer, as well or as badly as is asked for."""
        respond = self.server.fake.respond
        match kind:
            case None:
                self._send(respond(request))
            case wrong.Slow(wait_s):
                if self.server.stopping.wait(wait_s):
                    self._end(reset=True)
                else:
                    self._send(respond(request))
            case wrong.Drip(every_s, chunk_bytes):
                self._drip(respond(request), every_s, chunk_bytes)
            case wrong.Status(code, headers, body):
                self._send(Response(code, body, headers))
            case wrong.Redirect(location, code):
                self._send(Response(code, headers={"Location": location}))
            case wrong.Garbage(body, effect):
                if effect:
                    respond(request)
                self._send(Response(body=body))
            case wrong.Truncated(effect):
                response = respond(request) if effect else Response(body=b"<half of an answer/>")
                self._cut(self._bytes(response), len(response.body) - len(response.body) // 2)
            case wrong.LostResponse(after_bytes):
                wire = self._bytes(respond(request))
                self.wfile.write(wire[: min(after_bytes, len(wire) - 1)])
                self._end(reset=True)
            case wrong.Reset():
                self._end(reset=True)
            case wrong.HalfClosed():
                self._end(reset=False)
            case wrong.Huge(code):
                self._flood(code)

    def _end(self, *, reset: bool) -> None:
        if reset:
            self.server.reset_when_closed(self.connection)
        self.close_connection = True

    def _cut(self, wire: bytes, missing: int) -> None:
        self.wfile.write(wire[: len(wire) - max(1, missing)])
        self._end(reset=False)

    def _flood(self, code: int) -> None:
        self._end(reset=True)
        self.wfile.write(f"HTTP/1.1 {code} Huge\r\nConnection: close\r\n\r\n".encode())
        while not self.server.stopping.is_set():
            self.wfile.write(b"<a>" * 20_000)

    def _drip(self, response: Response, every_s: float, chunk_bytes: int) -> None:
        wire = self._bytes(response)
        start = len(wire) - len(response.body)
        self.wfile.write(wire[:start])
        for at in range(start, len(wire), chunk_bytes):
            if self.server.stopping.wait(every_s):
                self._end(reset=True)
                return
            self.wfile.write(wire[at : at + chunk_bytes])

    def _send(self, response: Response) -> None:
        self.wfile.write(self._bytes(response))

    def _bytes(self, response: Response) -> bytes:
        """The response on the wire."""
        headers = {"Content-Length": str(len(response.body)), **response.headers}
        reason = self.responses[response.code][0] if response.code in self.responses else ""
        lines = [f"HTTP/1.1 {response.code} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + (b"" if self.command == "HEAD" else response.body)
