"""What the console and the service have in common under uvicorn: bound sockets, and a log that tells nothing secret."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uploadguard.errors import ConfigError

__all__ = ["WithoutSecrets", "bound_socket", "log_config", "url_of"]

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


@contextmanager
def bound_socket(host: str, port: int, *, section: str) -> Iterator[socket.socket]:
    """A TCP socket on an address, bound and not yet listening. ``section`` is the settings' table, for errors.

    Raises :class:`~uploadguard.errors.ConfigError`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{section}.host: {host} cannot be used: {error.strerror}") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise ConfigError(f"{section}: cannot listen on {host}, port {port}: {error.strerror}") from error
        yield bound


def url_of(bound: socket.socket, host: str, path: str = "") -> str:
    """The address that a client asks for."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}{path}"


def log_config(*, own_log: bool = False) -> dict[str, Any]:
    """For uvicorn: everything to standard error. ``own_log``: this library's log too, in place of other handlers."""
    own = {"uploadguard": {"handlers": ["plain"], "level": "INFO", "propagate": False}} if own_log else {}
    return {
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
            **own,
        },
    }
