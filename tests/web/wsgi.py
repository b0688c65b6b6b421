"""What the tests of the WSGI adapters share: a hash set, real servers, and requests byte by byte."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist

ROOT = Path(__file__).parents[2]
BOUNDARY = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MAX_BODY_BYTES = 2_000_000
MAX_FILES = 3

Part = tuple[str, str | None, bytes]
"""A part of a form: its field, the file's name, the bytes."""


def write_config(directory: Path, **web: Any) -> Path:
    """A hash set of the test list, and a configuration that reads it, with low limits."""
    hashset = HashSet.create(directory / "hashset")
    hashset.add_list("made-up", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    settings = {"max_body_bytes": MAX_BODY_BYTES, "max_files": MAX_FILES, **web}
    config = directory / "uploadguard.toml"
    config.write_text(
        f'[hashset]\npath = "{directory / "hashset"}"\n[sandbox]\nisolation = "none"\n[web]\n'
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    )
    return config


def quick_start(section: str) -> str:
    """The first example of a section of the documentation."""
    text = (ROOT / "docs" / "frameworks.md").read_text().partition(f"\n## {section}\n")[2]
    return text.partition("```python\n")[2].partition("```")[0]


def form(*parts: Part) -> bytes:
    """A multipart body."""
    lines = []
    for field, filename, data in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n'
        kind = "Content-Type: image/jpeg\r\n" if filename is not None else ""
        lines.append(f"{head}{kind}\r\n".encode() + data + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server under test."""

    def __init__(self, port: int, held: Path, log: Path) -> None:
        self.port = port
        self.held = held
        self.log = log
        self.name = ""

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        connection = self.connect()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def post(self, *parts: Part, path: str = "/upload") -> Reply:
        return self.send("POST", path, form(*parts), FORM)

    def open(self, path: str, content_length: int, sent: bytes) -> socket.socket:
        """Begin a form, and leave it there."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
        connection.sendall(f"{head}Content-Length: {content_length}\r\n\r\n".encode() + sent)
        return connection


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection that may be kept."""
    connection.request(method, path, body or None, headers or {})
    response = connection.getresponse()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextmanager
def serving(
    command: Sequence[str], config: Path, directory: Path, *, isolation: str = "none", alive: str = "/alive"
) -> Iterator[Server]:
    """A server's process, from when it answers until the end. ``{port}`` in the command is its port."""
    directory.mkdir()
    held, log, temporary = directory / "held", directory / "log", directory / "tmp"
    held.mkdir()
    temporary.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    environment = {
        **os.environ, "UPLOADGUARD_CONFIG": str(config), "HELD": str(held), "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT), "UPLOADGUARD_SANDBOX__ISOLATION": isolation,
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in command)],
            cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Server(port, held, log)
    try:
        ends = time.monotonic() + 30
        while True:
            assert process.poll() is None, log.read_text()
            try:
                assert server.send("GET", alive).status == 200
                break
            except OSError:
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
