"""Many uploads at once, a part of them hostile, against a real server with sandboxed workers.

Run: ``python -m tests.web.load [--framework NAME ...] [--uploads 200] [--hostile 0.1] [--json]``, where NAME is one of
:data:`tests.web.registry.HOSTS`; without it, all of them, one after the other. ``--url URL`` takes a server that runs
already, a form with the field ``file``.

An upload that is answered 503 is sent again after ``Retry-After``, as a client would; the first answers are counted
too. Exit code 1 if an upload got no answer, or one that it should not: sound pictures 200, or 202 where their check ran
out of time, hostile ones anything that is no server error. ``loop`` is how late a task on the application's event loop
was woken (WSGI hosts have none); with ``--bare`` forms go where they are read and not checked, to compare with. With
``PYTHONASYNCIODEBUG=1`` what asyncio says of slow callbacks in the server is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.bombs import BOMBS
from tests.faults.corpus import percentile
from tests.faults.load import LARGE_BOMBS, pictures
from tests.faults.mutants import good_files, mutants
from tests.web.registry import HOSTS
from tests.web.wsgi import serving, write_config
from uploadguard.testing import media

_TRIES = 100


@dataclass
class Load:
    """What was sent, and what came of it."""

    ms: dict[str, list[float]] = field(default_factory=lambda: {"sound": [], "hostile": []})
    statuses: Counter[str] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def book(self, kind: str, status: int, seconds: float) -> None:
        """The last answer to one upload."""
        self.ms[kind].append(seconds * 1e3)
        self.statuses[f"{kind}: {status}"] += 1
        if status >= 500 or (kind == "sound" and status not in (200, 202)):
            self.faults[f"{kind} upload answered {status}"] += 1


def uploads(count: int, hostile: float, seed: int) -> list[tuple[str, bytes]]:
    """Sound pictures of 1 and 3 megapixels, and among them mutants, bombs, polyglots, truncated files and garbage."""
    chance = random.Random(seed)
    sound = pictures()
    odd: list[Callable[[], bytes]] = [
        media.truncated_jpeg, media.jpeg_followed_by, media.gif_script, lambda: chance.randbytes(100_000),
        *(BOMBS[name] for name in LARGE_BOMBS),
    ]  # fmt: skip
    broken = (data for _, data in mutants(good_files(96), count, seed))
    found = [
        ("hostile", odd[number // 2 % len(odd)]() if number % 2 else next(broken))
        for number in range(round(count * hostile))
    ]
    found += [("sound", chance.choice(sound)) for _ in range(count - len(found))]
    chance.shuffle(found)
    return found


async def send(session: aiohttp.ClientSession, url: str, kind: str, data: bytes, load: Load) -> None:
    """One upload, until it is answered with something else than 503."""
    started = time.perf_counter()
    for attempt in range(_TRIES):
        form = aiohttp.FormData()
        form.add_field("file", data, filename="picture.jpg", content_type="image/jpeg")
        try:
            async with session.post(url, data=form) as response:
                await response.read()
                status, wait_s = response.status, float(response.headers.get("Retry-After", 0))
        except (aiohttp.ClientError, OSError) as error:
            load.faults[f"no answer: {type(error).__name__}: {error}"] += 1
            return
        if attempt == 0:
            load.first[f"{kind}: {status}"] += 1
        if status != 503:
            break
        await asyncio.sleep(wait_s * random.uniform(0.2, 1))
    load.book(kind, status, time.perf_counter() - started)


async def probe(session: aiohttp.ClientSession, base: str) -> dict[str, Any] | None:
    """What the application says of its event loop, since it was last asked."""
    async with session.get(f"{base}/probe") as response:
        return await response.json() if response.status == 200 else None


async def run(base: str, path: str, count: int, hostile: float, seed: int) -> dict[str, Any]:
    """Send all of them at once; the table of what came of it."""
    load = Load()
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        todo = uploads(count, hostile, seed)
        await send(session, base + path, *next(upload for upload in todo if upload[0] == "sound"), Load())
        await probe(session, base)
        started = time.perf_counter()
        await asyncio.gather(*(send(session, base + path, kind, data, load) for kind, data in todo))
        seconds = time.perf_counter() - started
        loop = await probe(session, base)
    return {
        "uploads": count,
        "seconds": round(seconds, 1),
        "first answers": dict(sorted(load.first.items())),
        "last answers": dict(sorted(load.statuses.items())),
        **{
            f"{kind}, {name} ms": round(percentile(ms, share))
            for kind, ms in load.ms.items()
            if ms
            for name, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0))
        },
        "loop": {name: round(value, 1) for name, value in loop.items()} if loop is not None else None,
        "faults": dict(load.faults),
    }


@contextmanager
def server(name: str, directory: Path) -> Iterator[str]:
    """A host of the registry, with sandboxed workers. Gives its address."""
    host = HOSTS[name]
    directory.mkdir()
    config = write_config(directory, max_body_bytes=64 << 20)
    with serving(host.command, config, directory / "server", isolation="sandbox", alive=host.alive) as running:
        yield f"http://127.0.0.1:{running.port}"
    for line in running.log.read_text(errors="replace").splitlines():
        if line.startswith("Executing "):
            print(line, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", action="append", choices=list(HOSTS))
    parser.add_argument("--url", help="a server that runs, and the path that takes forms")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--hostile", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    tables = {}
    with tempfile.TemporaryDirectory() as directory:
        if options.url:
            base, _, path = options.url.removeprefix("http://").partition("/")
            tables[options.url] = asyncio.run(
                run(f"http://{base}", f"/{path}", options.uploads, options.hostile, options.seed)
            )
        for number, name in enumerate(() if options.url else options.framework or HOSTS):
            with server(name, Path(directory, str(number))) as base:
                path = (HOSTS[name].bare if options.bare else None) or HOSTS[name].path
                tables[name] = asyncio.run(run(base, path, options.uploads, options.hostile, options.seed))
    for name, table in tables.items():
        if options.json:
            print(json.dumps({"host": name, **table}))
        else:
            print(name, *(f"  {what:22} {value}" for what, value in table.items()), sep="\n")
    return 1 if any(table["faults"] for table in tables.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
