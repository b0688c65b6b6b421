"""One real S3-compatible server for all tests, and fresh buckets on it for each."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import pytest
from s3_objects import Place, Run, open_guard, placed
from s3_queues import running_emulator
from s3_server import S3Server, running_s3

from uploadguard import Guard

sys.path.append(str(Path(__file__).parents[3]))  # for what runs a PostgreSQL server, which uploadguard's own tests have

_NUMBERS = itertools.count(1)
_SESSION = aioboto3.Session()  # has read the descriptions of the services, which takes longer than a test


@pytest.fixture(autouse=True)
def isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are decoded in this process: starting workers takes time, and these tests are not about them."""
    monkeypatch.setenv("UPLOADGUARD_SANDBOX__ISOLATION", "none")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """``async with s3() as client``: a client of the server. Each test runs a loop of its own, so it opens its own."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        async with _SESSION.client("s3", **s3_server.client_options()) as client:
            yield client

    return opened


@pytest.fixture
def bucket_name() -> Callable[[str], str]:
    """A name for a bucket that no other test has."""

    def named(purpose: str) -> str:
        return f"{purpose}-{next(_NUMBERS)}"

    return named


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an emulator of SQS, and of an S3 that tells it of uploads."""
    with running_emulator(tmp_path_factory.mktemp("emulator")) as url:
        yield url


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    with open_guard(tmp_path_factory.mktemp("guard") / "hashset", sandbox={"isolation": "none"}) as opened:
        yield opened


@pytest.fixture
def run(
    s3: Callable[[], AbstractAsyncContextManager[Any]], bucket_name: Callable[[str], str], guard: Guard, tmp_path: Path
) -> Run:
    """Runs a coroutine of a :class:`Place`."""

    def runs(body: Callable[[Place], Any], guard: Guard = guard, **more: Any) -> Any:
        async def inside() -> Any:
            async with (
                s3() as client,
                placed(client, f"{bucket_name('test')}/", guard, tmp_path / "state.db", **more) as place,
            ):
                return await body(place)

        return asyncio.run(inside())

    return runs
