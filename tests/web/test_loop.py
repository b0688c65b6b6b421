"""Nothing that may take long happens on the event loop: no file is opened, none on disk is touched, and little is
digested there. Told by what is called on which thread, not by time.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer
from starlette.types import ASGIApp

from tests.web.apps import aiohttp_app, fastapi_app, starlette_app
from tests.web.wsgi import FORM, form
from uploadguard import Decision
from uploadguard.streaming import StreamingCheck
from uploadguard.testing.picture import unrelated_picture

MAX_DIGESTED_BYTES = 128 * 1024
DATA = unrelated_picture() + os.urandom(1_500_000)
BODY = form(("file", "a.jpg", DATA), ("file", "b.jpg", unrelated_picture()), ("text", None, b"x" * 1000))


class Blame:
    """What was done on the loop's thread while this is on."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.found: list[str] = []

    def on_loop(self) -> bool:
        return self.thread is threading.current_thread()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "time.sleep", "subprocess.Popen") and self.on_loop():
            self.found.append(f"{event} {arguments[0]!r}")


_blame = Blame()
sys.addaudithook(lambda event, arguments: _blame.audit(event, arguments))  # there is no way to take one back


@pytest.fixture
def blame(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blame]:
    class Watched(tempfile.SpooledTemporaryFile[bytes]):
        def _watch(self, what: str) -> None:
            if _blame.on_loop() and self._rolled:
                _blame.found.append(what)

        def write(self, data: Any) -> int:
            self._watch("write")
            return super().write(data)

        def read(self, *size: int) -> bytes:
            self._watch("read")
            return super().read(*size)

        def seek(self, *where: int) -> int:
            self._watch("seek")
            return super().seek(*where)

        def close(self) -> None:
            self._watch("close")
            super().close()

    write = StreamingCheck.write
    finish = StreamingCheck.finish

    def watched_write(self: StreamingCheck, chunk: bytes | memoryview) -> None:
        if _blame.on_loop() and len(chunk) > MAX_DIGESTED_BYTES:
            _blame.found.append(f"digested {len(chunk)} bytes")
        write(self, chunk)

    def watched_finish(self: StreamingCheck) -> Decision:
        if _blame.on_loop():
            _blame.found.append("decided")
        return finish(self)

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Watched)
    monkeypatch.setattr(StreamingCheck, "write", watched_write)
    monkeypatch.setattr(StreamingCheck, "finish", watched_finish)
    _blame.found = []
    yield _blame
    _blame.thread = None


async def watch(blame: Blame, send: Callable[[], Awaitable[int]]) -> None:
    """The second request is watched: the first one imports."""
    assert await send() == 200
    blame.thread = threading.current_thread()
    try:
        assert await send() == 200
    finally:
        blame.thread = None


async def through_asgi(app: ASGIApp, path: str, lifespan: Any, blame: Blame) -> None:
    async with lifespan(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:

            async def send() -> int:
                return (await client.post(path, content=BODY, headers=FORM)).status_code

            await watch(blame, send)


async def through_aiohttp(path: str, blame: Blame) -> None:
    async with TestClient(TestServer(aiohttp_app.make_app())) as client:

        async def send() -> int:
            async with client.post(path, data=io.BytesIO(BODY), headers=FORM) as response:
                return response.status

        await watch(blame, send)


@pytest.mark.parametrize(
    "host", ["starlette", "fastapi", "fastapi, its own reader", "aiohttp", "aiohttp, part by part"]
)
def test_the_loop_is_left_alone(host: str, config: Path, blame: Blame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADGUARD_CONFIG", str(config))
    asyncio.run(
        {
            "starlette": lambda: through_asgi(starlette_app.app, "/upload", starlette_app.lifespan, blame),
            "fastapi": lambda: through_asgi(fastapi_app.app, "/upload", fastapi_app.lifespan, blame),
            "fastapi, its own reader": lambda: through_asgi(
                fastapi_app.app, "/plain/upload", fastapi_app.lifespan, blame
            ),
            "aiohttp": lambda: through_aiohttp("/upload", blame),
            "aiohttp, part by part": lambda: through_aiohttp("/parts", blame),
        }[host]()
    )
    assert not blame.found


def test_what_blocks_would_be_seen(blame: Blame, tmp_path: Path) -> None:
    blame.thread = threading.current_thread()
    (tmp_path / "file").touch()
    file = tempfile.SpooledTemporaryFile(max_size=10)  # noqa: SIM115
    file.write(bytes(11))
    file.close()
    blame.thread = None
    assert any(found.startswith("open ") for found in blame.found)
    assert "close" in blame.found
