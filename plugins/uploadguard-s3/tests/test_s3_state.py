"""What survives a crash, and who may work on a key."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.postgres import running_postgres

from uploadguard.errors import ConfigError
from uploadguard.models import Verdict
from uploadguard_s3.model import S3Retry
from uploadguard_s3.options import S3Options
from uploadguard_s3.state import Known, Moment, State, key_id, version_id

KEY = key_id("bucket", "key")
VERSION = version_id("bucket", "key", "one")
KNOWN = Known(Verdict.BLOCK, "reference", 3, 100.0, done=False)

With = Callable[..., Any]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def with_state(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[With]:
    """Runs a coroutine of an open state; each call opens it anew."""
    table: dict[str, Any] = {"path": tmp_path / "state.db"}
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
        monkeypatch.setenv("STATE_URL", url)
        table = {"url_env": "STATE_URL"}

    def runs(body: Callable[[State], Awaitable[Any]], **more: Any) -> Any:
        async def inside() -> Any:
            state = State(S3Options.of(state={**table, **more}, routes={"a": {"bucket": "a"}}).state)
            await state.open()
            try:
                return await body(state)
            finally:
                await state.close()

        return asyncio.run(inside())

    yield runs
    if request.param == "postgresql":
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute("DROP TABLE uploadguard_s3_keys, uploadguard_s3_versions")


def test_a_verdict_is_kept_before_and_after_it_was_carried_out(with_state: With) -> None:
    async def decides(state: State) -> None:
        begun = await state.begin(KEY, VERSION)
        assert begun is not None
        assert (begun.known, begun.newest) == (None, None)
        await state.decide(begun, VERSION, KNOWN)
        await state.release(begun)

    async def finishes(state: State) -> None:
        begun = await state.begin(KEY, VERSION)
        assert begun is not None
        assert (begun.known, begun.newest) == (KNOWN, None)
        await state.finish(begun, VERSION, done, moment)

    async def looks(state: State) -> None:
        begun = await state.begin(KEY, VERSION)
        assert begun is not None
        assert (begun.known, begun.newest) == (done, moment)
        assert await state.known([VERSION, b"other"]) == {VERSION: done}
        assert await state.newest(KEY) == moment

    done = dataclasses.replace(KNOWN, done=True, effects=("quarantined", "deleted"), published=True)
    moment = Moment(VERSION, "00AB", 100.0)
    for body in (decides, finishes, looks):
        with_state(body)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the workers' clock forward, by seconds."""
    clock, ahead = State._now, [0.0]
    monkeypatch.setattr(State, "_now", lambda self, connection: clock(self, connection) + sum(ahead))
    return ahead.append


def test_a_key_is_one_workers_until_its_lease_ends(with_state: With, later: Callable[[float], None]) -> None:
    async def body(state: State) -> None:
        first = await state.begin(KEY, VERSION)
        assert first is not None
        assert await state.begin(KEY, VERSION) is None
        assert await state.begin(key_id("bucket", "other"), None) is not None
        later(700)
        await state.renew(first)
        later(700)
        assert await state.begin(KEY, VERSION) is None
        later(500)
        second = await state.begin(KEY, VERSION)  # the first one must have died
        assert second is not None
        for work in (
            state.renew(first),
            state.decide(first, VERSION, KNOWN),
            state.finish(first, VERSION, KNOWN, Moment(VERSION, None, 1.0)),
            state.release(first),
        ):
            with pytest.raises(S3Retry, match="another worker"):
                await work
        assert await state.known([VERSION]) == {}
        await state.decide(second, VERSION, KNOWN)
        await state.release(second)
        assert await state.begin(KEY, VERSION) is not None

    with_state(body, lease_s=1000.0)


def test_the_newest_version_stays_the_newest(with_state: With) -> None:
    async def body(state: State) -> None:
        for seen, expected in (
            (Moment(b"a", None, 5.0), Moment(b"a", None, 5.0)),
            (Moment(b"b", None, 4.0), Moment(b"a", None, 5.0)),
            (Moment(b"a", "10", 5.0), Moment(b"a", "10", 5.0)),  # its event came at last
            (Moment(b"b", "0f", 9.0), Moment(b"a", "10", 5.0)),
            (Moment(b"c", "1001", 1.0), Moment(b"c", "1001", 1.0)),
        ):
            begun = await state.begin(KEY, None)
            assert begun is not None
            await state.release(begun, seen)
            assert await state.newest(KEY) == expected

    with_state(body)


def test_what_is_old_is_forgotten(
    with_state: With, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(state: State) -> None:
        begun = await state.begin(KEY, VERSION)
        assert begun is not None
        await state.finish(begun, VERSION, KNOWN, Moment(VERSION, None, 1.0))
        await state.purge()
        assert await state.known([VERSION]) != {}
        later(16 * 86400)
        await state.purge()  # not twice within the hour
        assert await state.known([VERSION]) != {}
        monkeypatch.setattr(state, "_purge_at", 0.0)
        await state.purge()
        assert await state.known([VERSION]) == {}
        assert await state.newest(KEY) is None

    with_state(body, retention_days=15)


def test_nothing_in_the_database_names_a_key(tmp_path: Path) -> None:
    async def body() -> None:
        state = State(S3Options.of(state={"path": tmp_path / "state.db"}, routes={"a": {"bucket": "a"}}).state)
        await state.open()
        begun = await state.begin(key_id("secret-bucket", "secret-key"), None)
        assert begun is not None
        version = version_id("secret-bucket", "secret-key", "secret-version")
        await state.finish(begun, version, KNOWN, Moment(version, "AB", 1.0))
        await state.close()

    asyncio.run(body())
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_database_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    async def body() -> None:
        state = State(S3Options.of(state={"path": tmp_path / "no" / "state.db"}, routes={"a": {"bucket": "a"}}).state)
        with pytest.raises(S3Retry, match="state"):
            await state.open()
        await state.close()

    asyncio.run(body())


def test_a_url_that_is_none_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_URL", "mysql://secret@host/db")
    options = S3Options.of(state={"url_env": "STATE_URL"}, routes={"a": {"bucket": "a"}})
    with pytest.raises(ConfigError, match=r"state\.url_env") as caught:
        State(options.state)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"state\.url_env.*not set"):
        S3Options.of(state={"url_env": "NOBODY_SETS_THIS"}, routes={"a": {"bucket": "a"}})


HEX = st.text("0123456789ABCDEFabcdef", min_size=1, max_size=20)


@given(HEX, HEX)
def test_sequencers_are_compared_as_if_they_were_of_one_length(one: str, other: str) -> None:
    def value(text: str) -> int:
        return int(text.ljust(20, "0"), 16)

    assert Moment(b"a", one, 9.0).before(Moment(b"b", other, 1.0)) == (value(one) < value(other))
