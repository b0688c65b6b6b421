"""Answers that are sent before the request's body is read: in a way in which the client gets to see them.

A server that closes a connection on which bytes still arrive resets it, and takes its answer back with that. So what
still comes is read and thrown away for a while, after the answer and before its end.
"""

from __future__ import annotations

import asyncio
import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uploadguard.logs import log

__all__ = ["Answering"]

_LINGER_S = 10.0
_LINGER_IDLE_S = 1.0


class Answering:
    """ASGI middleware: the last line of defence, and the end of connections whose requests were not read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see to it that it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            await exchange.fail(503, "stopping", "The service is being stopped.", {"retry-after": "1"})
        except Exception as error:  # noqa: BLE001 - whatever it is, the host gets an answer and no traceback
            log.error("a request failed with %s", type(error).__name__, exc_info=error)
            await exchange.fail(500, "internal", "This failed. The service's log says more.")


class _Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        headers = Headers(scope=scope)
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._waits = headers.get("expect", "").lower() == "100-continue"
        self._started = False

    async def receive(self) -> Message:
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("x-content-type-options", "nosniff")
            if self._unread:
                headers["connection"] = "close"
        elif self._unread and not self._waits and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def fail(self, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> None:
        if self._started:
            return  # the server closes the connection, which says enough
        body = json.dumps({"error": {"code": code, "message": text}}).encode()
        found = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        raw = [(name.encode(), value.encode()) for name, value in found.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_S):
                while self._unread:
                    async with asyncio.timeout(_LINGER_IDLE_S):
                        await self.receive()
        except TimeoutError:
            pass
