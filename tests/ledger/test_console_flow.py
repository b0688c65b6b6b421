"""The console's whole way through a case, on PostgreSQL as on SQLite."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.console.conftest import World, signed_in


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_case_is_claimed_looked_at_and_confirmed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"url": request.getfixturevalue("postgres_url")} if kind == "postgresql" else {}
    world = World(tmp_path, **options)
    world.list_photo("astronaut.png", "entry-7")
    world.upload("astronaut.png", uploader="somebody", tenant="photos")

    async def walk() -> None:
        async with signed_in(world) as ada:
            for path in (
                "/queue?list=made-up&tenant=photos",
                "/reports",
                "/decisions",
                "/lists",
                "/activity",
                "/audit",
            ):
                page = await ada.get(path)
                assert page.status_code == 200, path
            await ada.get("/cases/1")
            await ada.post("/cases/1/claim")
            await ada.follow()
            await ada.post("/cases/1/preview", {"decision": 1, "reason": "why"})
            page = await ada.follow()
            (address,) = re.findall(r'<img src="([^"]+)"', page.text)
            assert (await ada.get(address)).headers["content-type"] == "image/png"
            assert (await ada.get(address)).status_code == 410
            await ada.get("/cases/1")
            await ada.post("/cases/1/decide", {"outcome": "confirm", "remember": "yes"})
            assert "Confirmed" in (await ada.follow()).text
            assert world.work() == 2
            assert (await ada.get("/cases/1")).text.count(">filed<") == 2
            await ada.post("/audit")
            assert "Nothing is wrong" in ada.page.text

    try:
        asyncio.run(walk())
    finally:
        world.close()
