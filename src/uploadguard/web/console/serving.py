"""The console under uvicorn, on a socket that is bound before anything is said of it."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.web.console.app import create_console

__all__ = ["ConsoleServer", "UnderPath", "WithoutSecrets", "console_server"]

_SECRET = re.compile(r"/previews/[^/?]+")


class WithoutSecrets(logging.Filter):
    """Takes what follows the path, the names of previews, and what a terminal acts on, out of uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; it is always logged."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            shown = _SECRET.sub("/previews/-", str(path).partition("?")[0])
            # The client is what a header says that the proxy passes on.
            told = "".join(char if char.isprintable() else "?" for char in str(client)[:64])
            record.args = (told, method, shown, version, status)
        return True


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
        with _bound(host, port) as bound:
            config = uvicorn.Config(
                UnderPath(app, root) if root else app,
                ws="none",
                server_header=False,
                log_config=_LOGGING,
                timeout_graceful_shutdown=5,
                limit_concurrency=200,
            )
            name = f"[{host}]" if ":" in host else host
            yield ConsoleServer(
                f"http://{name}:{bound.getsockname()[1]}{root}/",
                len(app.state.parts.accounts.list()),
                uvicorn.Server(config),
                bound,
            )
    finally:
        app.state.close()


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"console.host: {host} cannot be used: {error.strerror}") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise ConfigError(f"console: cannot listen on {host}, port {port}: {error.strerror}") from error
        yield bound


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"without_secrets": {"()": WithoutSecrets}},
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)s %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "plain": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"},
        "access": {
            "class": "logging.StreamHandler",
            "formatter": "access",
            "filters": ["without_secrets"],
            "stream": "ext://sys.stderr",
        },
    },
    "loggers": {
        "uvicorn": {"handlers": ["plain"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
