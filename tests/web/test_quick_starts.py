"""The first example of each asynchronous framework in the documentation, and what it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.web.wsgi import FORM, form, quick_start
from uploadguard.testing import media
from uploadguard.testing.picture import picture_bytes, unrelated_picture

UPLOADS = [
    (200, unrelated_picture()),
    (422, picture_bytes()),
    (202, media.truncated_jpeg()),
    (200, media.text_named_jpg()),
]


@pytest.fixture
def host(request: pytest.FixtureRequest, config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the example makes, run as it stands."""
    monkeypatch.setenv("UPLOADGUARD_CONFIG", str(config))
    made: dict[str, Any] = {"__name__": "host"}
    exec(compile(quick_start(request.param), "example", "exec"), made)
    yield made["app"]
    if "guard" in made:
        made["guard"].close()


@pytest.mark.parametrize("host", ["FastAPI", "Starlette"], indirect=True)
def test_an_asgi_host_answers(host: Any) -> None:
    async def upload() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://host") as client:
            for status, data in UPLOADS:
                reply = await client.post("/pictures", content=form(("picture", "a.jpg", data)), headers=FORM)
                assert reply.status_code == status
                assert status != 200 or reply.json()["bytes"] == len(data)

    asyncio.run(upload())


@pytest.mark.parametrize("host", ["aiohttp"], indirect=True)
def test_an_aiohttp_host_answers(host: Any) -> None:
    async def upload() -> None:
        async with TestClient(TestServer(host)) as client:
            for status, data in UPLOADS:
                body = form(("picture", "a.jpg", data))
                async with client.post("/pictures", data=body, headers=FORM) as reply:
                    assert reply.status == status
                    assert status != 200 or (await reply.json())["bytes"] == len(data)

    asyncio.run(upload())
