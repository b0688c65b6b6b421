"""A deployment with a ledger, a vault, a made-up list and a file destination, and ways to walk through its console."""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from PIL import Image

from tests.conftest import photo
from uploadguard.alarms import Alarm
from uploadguard.config import Settings
from uploadguard.guard import Guard
from uploadguard.importing import import_list
from uploadguard.ledger.accounts import Accounts
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.ledger import Ledger
from uploadguard.ledger.people import Person, Role
from uploadguard.models import Context, Decision
from uploadguard.opening import create_hashset, open_hashset
from uploadguard.plugins import Plugins
from uploadguard.storage.keys import write_key_file
from uploadguard.web.console import create_console

ORIGIN = "https://console.test"
ADMIN = Person("admin", frozenset(Role))
EVERYTHING = tuple(Role)


class World:
    """One deployment in a directory."""

    def __init__(self, path: Path, *, vault: bool = True, destination: bool = True, **ledger: Any) -> None:
        self.path = path
        self.passwords: dict[str, str] = {}
        write_key_file(path / "evidence.key")
        lines = [
            "[hashset]", 'path = "hashset"', "[ledger]", 'path = "ledger"',
            *(f"{key} = {value!r}" for key, value in ledger.items()),
        ]  # fmt: skip
        if vault:
            lines += ["[evidence]", 'path = "evidence"', 'key_file = "evidence.key"']
        if destination:
            lines += ["[actions.drop]", 'kind = "file"', 'path = "reports.jsonl"']
            lines += ['occasions = ["report", "release", "delete", "ban"]']
        self.config = path / "uploadguard.toml"
        self.config.write_text("\n".join(lines) + "\n")
        (path / "reports.jsonl").touch()
        os.chdir(path)
        self.settings = Settings.load(self.config)
        create_hashset(self.settings)
        open_database(self.settings, create=True).close()
        self.ledger = Ledger.open(self.settings, Plugins(self.settings))
        self.accounts = Accounts(self.ledger.database)

    def close(self) -> None:
        self.ledger.close()

    @property
    def database(self) -> Database:
        return self.ledger.database

    def list_photo(self, name: str, entry: str, *, list_name: str = "made-up") -> None:
        """Put a photo's PDQ hash on a made-up list."""
        with Guard.open(self.config, hashset={"path": self.path / "hashset", "allow_empty": True}) as guard:
            found = guard.check(photo(name).read_bytes())
            pdq = next(one for one in found.hashes if one.signal_type == "pdq" and one.variant == "original")
        line = f"id,category,pdq\n{entry},A1,{pdq.value.hex()}\n".encode()
        hashset = open_hashset(self.settings)
        append = any(info.name == list_name for info in hashset.lists())
        direct = Settings.load(self.config, safety={"activation": "direct"})  # these are ordinary pictures, and known
        import_list(hashset, list_name, io.BytesIO(line), Plugins(direct), append=append)

    def upload(self, name: str, *, quality: int = 90, **context: Any) -> Decision:
        """Upload a photo, recompressed, as a host would."""
        with Guard.open(self.config) as guard:
            return guard.check(jpeg(name, quality), context=Context(**context))

    def account(self, name: str, *roles: Role) -> str:
        self.passwords[name] = self.accounts.add(name, roles or EVERYTHING, ADMIN)
        return self.passwords[name]

    def work(self) -> int:
        """Have the outbox's worker carry out what is due."""
        alarms: list[Alarm] = []
        return self.ledger.worker(alarms.append).run_once()

    def audited(self) -> list[str]:
        from uploadguard.ledger.audit import list_entries

        return [entry.action for entry in reversed(list_entries(self.database, limit=1000))]


def jpeg(name: str, quality: int = 90) -> bytes:
    """A photo as JPEG: another file of the same picture."""
    out = io.BytesIO()
    with Image.open(photo(name)) as image:
        image.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    monkeypatch.chdir(tmp_path)
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A deployment with one queued upload of a listed photo, whose file is kept."""
    world = make_world()
    world.list_photo("astronaut.png", "entry-7")
    world.upload("astronaut.png", uploader="somebody", object_id="obj-1", tenant="photos", filename="holiday.jpg")
    return world


class Browser:
    """One person's HTTP client: keeps cookies, sends forms as browsers do, with the token of the page they are on."""

    def __init__(self, client: httpx.AsyncClient, root: str = "") -> None:
        self.client = client
        self.root = root
        self.page: httpx.Response

    async def get(self, path: str, **headers: str) -> httpx.Response:
        self.page = await self.client.get(self.root + path, headers={"sec-fetch-site": "same-origin", **headers})
        return self.page

    async def post(
        self, path: str, form: Mapping[str, Any] | None = None, *, token: str | None = None, **headers: str
    ) -> httpx.Response:
        fields = {"csrf": token if token is not None else self.token(), **(form or {})}
        self.page = await self.client.post(
            self.root + path,
            content=urlencode(fields, doseq=True),
            headers={
                "content-type": "application/x-www-form-urlencoded",
                "sec-fetch-site": "same-origin",
                "origin": "null",
                **headers,
            },
        )
        return self.page

    async def follow(self) -> httpx.Response:
        assert self.page.status_code == 303, self.page.text
        return await self.get(self.page.headers["location"].removeprefix(self.root))

    def token(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.page.text)
        assert found is not None, self.page.text
        return found[1]

    async def sign_in(self, name: str, password: str) -> httpx.Response:
        await self.get("/sign-in")
        return await self.post("/sign-in", {"name": name, "password": password})


@asynccontextmanager
async def browsing(
    app: Any, *, origin: str = ORIGIN, root: str = "", address: str = "192.0.2.9"
) -> AsyncIterator[Browser]:
    transport = httpx.ASGITransport(app=app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url=origin) as client:
        yield Browser(client, root)


@asynccontextmanager
async def signed_in(world: World, *roles: Role, name: str = "ada") -> AsyncIterator[Browser]:
    """A browser of a new account with these roles, all of them by default, on the console's first page."""
    password = world.account(name, *roles)
    app = create_console(world.settings)
    try:
        async with browsing(app) as browser:
            await browser.sign_in(name, password)
            await browser.follow()
            yield browser
    finally:
        app.state.close()
