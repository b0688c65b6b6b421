"""The console under uvicorn, on a socket that is bound before anything is said of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from uploadguard.config import Settings
from uploadguard.web.console.app import create_console
from uploadguard.web.listening import bound_socket, log_config, url_of

__all__ = ["ConsoleServer", "UnderPath", "console_server"]


class UnderPath:
    """Shows the application under a path, whether or not the proxy in front takes that path off."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            path = scope["path"]
            inside = path == self._root or path.startswith(f"{self._root}/")
            scope = {**scope, "root_path": self._root, "path": path if inside else self._root + path}
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class ConsoleServer:
    """A server that is bound and not yet running. ``accounts`` is how many there are."""

    url: str
    accounts: int
    _server: uvicorn.Server
    _socket: socket.socket

    def run(self) -> None:
        """Serve until the process is interrupted or told to end."""
        self._server.run(sockets=[self._socket])


@contextmanager
def console_server(settings: Settings, host: str, port: int, *, root_path: str = "") -> Iterator[ConsoleServer]:
    """The server on an address. Raises :class:`~uploadguard.errors.ConfigError`, ``LedgerError``."""
    root = f"/{root_path.strip('/')}" if root_path.strip("/") else ""
    app = create_console(settings)
    try:
        with bound_socket(host, port, section="console") as bound:
            config = uvicorn.Config(
                UnderPath(app, root) if root else app,
                ws="none",
                server_header=False,
                log_config=log_config(),
                timeout_graceful_shutdown=5,
                limit_concurrency=200,
            )
            yield ConsoleServer(
                url_of(bound, host, f"{root}/"),
                len(app.state.parts.accounts.list()),
                uvicorn.Server(config),
                bound,
            )
    finally:
        app.state.close()
