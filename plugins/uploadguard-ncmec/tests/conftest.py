"""A fake CyberTipline, an action that files with it, and no way to anywhere else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ncmec_stubs import PASSWORD, make_action

from uploadguard.testing.fakes.ncmec import FakeNcmec
from uploadguard_ncmec import NcmecAction


def _is_loopback(host: object) -> bool:
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine may be contacted, or looked up, even where the error would be handled."""
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

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket, "getaddrinfo", checked_look_up)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCMEC_PASSWORD", PASSWORD)
    yield
    assert strayed == []


@pytest.fixture
def fake() -> Iterator[FakeNcmec]:
    with FakeNcmec(password=PASSWORD) as server:
        yield server


@pytest.fixture
def action(fake: FakeNcmec) -> NcmecAction:
    return make_action(fake.url)
