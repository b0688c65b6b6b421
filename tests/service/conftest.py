"""The service under real uvicorn, in a thread of this process, over a hash set and a ledger on disk."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from uploadguard import Guard
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.ledger.database import Database, open_database
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist
from uploadguard.web.service import create_service
from uploadguard.web.service.server import uvicorn_config

TOKEN = "a-token-for-tests-only-0"
METRICS_TOKEN = "a-token-for-metrics-only"
LIST_NAME = "a-list-nobody-should-see"
MAX_BODY_BYTES = 2_000_000
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def add_list(hashset: Path, name: str = LIST_NAME) -> None:
    HashSet.open(hashset).add_list(name, testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))


def write_config(directory: Path, *, empty: bool = False, ledger: bool = True, **tables: dict[str, Any]) -> Path:
    """A deployment; returns its configuration. ``tables`` are settings by table."""
    HashSet.create(directory / "hashset")
    if not empty:
        add_list(directory / "hashset")
    (directory / "service.tokens").write_text(f"# made up\n{TOKEN}\n{METRICS_TOKEN} metrics\n")
    (directory / "service.tokens").chmod(0o600)
    found: dict[str, dict[str, Any]] = {
        "hashset": {"path": "hashset", "refresh_s": 0.05},
        "sandbox": {"isolation": "none"},
        "web": {"max_body_bytes": MAX_BODY_BYTES, "retry_after_s": 1},
        "serve": {"token_file": "service.tokens"},
        **({"ledger": {"path": "ledger"}} if ledger else {}),
    }
    for table, settings in tables.items():
        found[table] = {**found.get(table, {}), **settings}
    lines = [
        line
        for table, settings in found.items()
        for line in (f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items()))
    ]
    config = directory / "uploadguard.toml"
    config.write_text("\n".join(lines) + "\n")
    if ledger:
        open_database(Settings.load(config), create=True).close()
    return config


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, whose shape is always this."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"code", "message"}
        return str(self.json["error"]["code"])


@dataclass
class Running:
    """A service that runs."""

    port: int
    guard: Guard
    service: Any
    server: uvicorn.Server
    directory: Path
    database: Database | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """One request, with the token unless ``headers`` has another word on it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {**AUTHORIZED, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def check(self, data: Any, query: str = "", **headers: str) -> Reply:
        named = {f"X-Uploadguard-{name.replace('_', '-')}": value for name, value in headers.items()}
        return self.send("POST", f"/v1/check{query}", data, named)

    def raw(self, *lines: str, body: bytes = b"") -> socket.socket:
        """A request's head and the beginning of its body, byte by byte as given."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = [lines[0], "Host: localhost", f"Authorization: Bearer {TOKEN}", *lines[1:], "", ""]
        connection.sendall("\r\n".join(head).encode() + body)
        return connection

    @property
    def under_way(self) -> int:
        return int(self.service._endpoints._admission.under_way)

    def wait(self, until: Callable[[], bool]) -> None:
        ends = time.monotonic() + 10
        while not until():
            assert time.monotonic() < ends
            time.sleep(0.01)


def reply_of(connection: socket.socket) -> Reply:
    """The answer to what was sent byte by byte."""
    with connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextmanager
def running(config: Path) -> Iterator[Running]:
    """The service of a configuration."""
    settings = Settings.load(config)
    guard = Guard(settings)
    service = create_service(guard, close_guard=True)
    server = uvicorn.Server(uvicorn_config(service, settings, logging=False, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        database = open_database(settings) if settings.ledger.path is not None else None
        found = Running(port, guard, service, server, config.parent, database)
        try:
            found.wait(lambda: server.started)
            yield found
        finally:
            server.should_exit = True
            thread.join(20)
            if database is not None:
                database.close()
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for the tests of a module."""
    config = write_config(tmp_path_factory.mktemp("service"), telemetry={"metrics": True})
    with running(config) as found:
        yield found


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Services with settings of their own."""
    opened: list[Any] = []

    def make(**options: Any) -> Running:
        directory = tmp_path / f"service-{len(opened)}"
        directory.mkdir()
        opened.append(running(write_config(directory, **options)))
        return opened[-1].__enter__()  # type: ignore[no-any-return]

    yield make
    for one in opened:
        one.__exit__(None, None, None)
