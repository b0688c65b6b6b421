"""No way to anywhere but this machine, for tests of what speaks to services."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

__all__ = ["loopback_only"]

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@contextmanager
def loopback_only() -> Iterator[None]:
    """Inside, nothing but this machine may be contacted, or looked up: on leaving, ``AssertionError`` if it was tried.

    So it is found even where the error was handled. Proxy settings of the environment are gone.
    """
    strayed: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not _is_loopback(address[0]):
            strayed.append(address)
            raise OSError("not loopback")
        connect(self, address)

    def checked_look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if not _is_loopback(host):
            strayed.append(host)
            raise OSError("not loopback")
        return look_up(host, *rest, **more)

    rest = {name: value for name, value in os.environ.items() if name not in _PROXIES}
    with (
        mock.patch.object(socket.socket, "connect", checked_connect),
        mock.patch.object(socket, "getaddrinfo", checked_look_up),
        mock.patch.dict(os.environ, rest, clear=True),
    ):
        yield
    if strayed:
        raise AssertionError(f"{len(strayed)} attempts to reach another machine")


def _is_loopback(host: object) -> bool:
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return host == "localhost"
