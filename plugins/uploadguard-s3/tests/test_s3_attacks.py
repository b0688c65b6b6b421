"""What an uploader, or somebody who writes to the queue, may try: none of it makes public what was not allowed."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from s3_objects import BLOCKED, QUEUED, Meddling, Place, Run, allowed
from s3_queues import body_of

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard_s3 import ObjectRef, Outcome, S3Poison, S3Retry
from uploadguard_s3.handling import Ending, MessageHandler

_COLLIDING = [
    bytes.fromhex(
        f"d131dd02c5e6eec4693d9a0698aff95c2fcab5{a}12467eab4004583eb8fb7f8955ad340609f4b30283e4888325{b}415a085125e8f7cdc99f"
        f"d91dbd{c}280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2{d}487da03fd02396306d248cda0e99f33420f577ee8ce54b67080"
        f"{e}0d1ec69821bcb6a8839396f965{f}6ff72a70"
    )
    for a, b, c, d, e, f in (("87", "71", "f", "b", "a8", "2b"), ("07", "f1", "7", "3", "28", "ab"))
]
"""Two files of one MD5, so of one ETag, as Wang and others published them in 2004."""


@pytest.fixture(scope="module")
def second_listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A Guard whose list has the second of them."""
    assert len({hashlib.md5(one, usedforsecurity=False).digest() for one in _COLLIDING}) == 1
    assert len(set(_COLLIDING)) == 2
    directory = tmp_path_factory.mktemp("colliding") / "hashset"
    entry = ListEntry("one", (("sha256", hashlib.sha256(_COLLIDING[1]).digest()),))
    HashSet.create(directory).add_list("made-up", [entry], lookup_kinds(DIGESTS))
    with Guard.open(hashset=directory, sandbox={"isolation": "none"}) as guard:
        yield guard


@pytest.mark.parametrize("call", ["copy_object", "head_object", "get_object"])
def test_a_file_of_the_same_etag_does_not_take_the_place_of_what_was_checked(
    run: Run, second_listed: Guard, call: str
) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", _COLLIDING[0])
        place.meddling.before[call] = lambda: place.put("in/a.jpg", _COLLIDING[1])
        await place.checker.check(ref)
        for key in await place.keys(place.public):
            assert await place.body(place.public, key) == _COLLIDING[0]

    run(body, second_listed, versions=False, wrapped=Meddling, route={"not_scanned": ("promote",)})


def test_a_file_of_the_same_etag_is_checked_itself(run: Run, second_listed: Guard) -> None:
    async def body(place: Place) -> None:
        first = await place.checker.check(await place.put("in/a.jpg", _COLLIDING[0]))
        second = await place.checker.check(await place.put("in/a.jpg", _COLLIDING[1]))
        assert (first.outcome, second.outcome) == (Outcome.NOT_SCANNED, Outcome.BLOCKED)

    run(body, second_listed, versions=False, route={"block": ("tag",)})


_KEYS = [
    "a b+c%2B%20.jpg", "ü\u202e\U0001f600.jpg", "k" * 200 + ".jpg", "e?versionId=1&x#y.jpg", "'\"<>&.jpg", "..a/.b.jpg",
]  # fmt: skip


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("key", _KEYS)
def test_a_strange_key_is_checked_as_any_other(run: Run, versions: bool, key: str) -> None:
    async def body(place: Place) -> None:
        for data, outcome in ((BLOCKED, Outcome.BLOCKED), (allowed(), Outcome.ALLOWED)):
            checked = await place.checker.check(await place.put(f"in/{key}", data))
            assert checked.outcome is outcome
            assert await place.keys(place.public) == ([key] if data != BLOCKED else [])

    run(body, versions=versions)


@pytest.mark.parametrize("key", ["in/../elsewhere/a.jpg", "in/x/../../elsewhere/a.jpg", "in/./../elsewhere/a.jpg"])
def test_a_key_that_leads_out_of_its_prefix_is_not_followed(run: Run, key: str) -> None:
    async def body(place: Place) -> None:
        await place.put("elsewhere/a.jpg", allowed())
        checked = await place.checker.check(ObjectRef(place.uploads, place.prefix + key))
        assert checked.outcome is Outcome.SKIPPED
        assert place.meddling.calls == []

    run(body, wrapped=Meddling)


def test_what_ends_in_a_slash_is_not_published(run: Run) -> None:
    async def body(place: Place) -> None:
        for key in ("in/", "in/x/"):  # as the consoles of some services make folders
            checked = await place.checker.check(await place.put(key, allowed()))
            assert checked.outcome is Outcome.SKIPPED
        assert await place.keys(place.public) == []

    run(body)


def test_nothing_in_it_is_not_allowed(run: Run) -> None:
    async def body(place: Place) -> None:
        checked = await place.checker.check(await place.put("in/a.jpg", b""))
        assert checked.outcome is Outcome.NOT_SCANNED
        assert await place.keys(place.public) == []

    run(body)


@pytest.mark.parametrize("data", [BLOCKED, QUEUED])
def test_without_an_id_each_version_has_its_own_copy_in_quarantine(
    run: Run, data: bytes, bucket_name: Callable[[str], str]
) -> None:
    """A bucket whose versions are suspended calls them all ``null``."""

    bucket = bucket_name("suspended")

    async def body(place: Place) -> None:
        await place.client.create_bucket(Bucket=bucket)
        for status in ("Enabled", "Suspended"):
            await place.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        place.uploads = bucket
        for number, body in enumerate((data, data + b"\n"), 1):
            ref = await place.put("in/a.jpg", body)
            checked = await place.checker.check(ref)
            assert checked.outcome in (Outcome.QUEUED, Outcome.BLOCKED)
            assert len(await place.keys(place.quarantine)) == number
        assert await place.keys(place.public) == []

    run(body, route={"bucket": bucket})


def test_a_version_that_was_made_up_is_not_taken_for_a_fixed_one(run: Run) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        place.meddling.before["copy_object"] = lambda: place.put("in/a.jpg", BLOCKED)
        checked = await place.checker.check(ObjectRef(ref.bucket, ref.key, "made-up"))
        assert checked.outcome in (Outcome.GONE, Outcome.BLOCKED)
        for key in await place.keys(place.public):
            assert await place.body(place.public, key) == allowed()

    run(body, versions=False, wrapped=lambda client: Meddling(client, {"CopySourceIfMatch", "IfMatch"}))


def test_only_what_is_on_a_route_is_touched(run: Run) -> None:
    async def body(place: Place) -> None:
        prefix = place.prefix
        handler = MessageHandler(place.checker)
        await place.client.put_object(Bucket="quarantine", Key=f"{prefix}in/a.jpg", Body=BLOCKED)
        await place.client.put_object(Bucket=place.uploads, Key=f"{prefix}elsewhere/a.jpg", Body=BLOCKED)
        for bucket, key in (
            ("quarantine", f"{prefix}in/a.jpg"),
            ("no-such-bucket", f"{prefix}in/a.jpg"),
            (f"{place.uploads}/..", f"{prefix}in/a.jpg"),
            (place.uploads, f"{prefix}elsewhere/a.jpg"),
            (place.uploads, f"{prefix}in"),
            (place.uploads.upper(), f"{prefix}in/a.jpg"),
        ):
            assert (await handler.handle(body_of(key, bucket=bucket))).ending is Ending.DONE
        assert place.meddling.calls == []

    run(body, wrapped=Meddling)


def delete_database(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)


@pytest.mark.parametrize("lost", ["deleted", "emptied"])
def test_a_state_that_was_lost_lets_nothing_through(run: Run, tmp_path: Path, lost: str) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", BLOCKED)
        path = tmp_path / "state.db"
        if lost == "deleted":
            delete_database(path)
        else:
            with sqlite3.connect(path) as database:
                database.execute("DROP TABLE uploadguard_s3_versions")
        with pytest.raises(S3Retry):
            await place.checker.check(ref)
        assert await place.keys(place.public) == []

    run(body)


def test_a_state_that_another_holds_is_waited_for(run: Run, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", BLOCKED)
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            checking = asyncio.create_task(place.checker.check(ref))
            await asyncio.sleep(0.3)
            assert not checking.done()
            database.execute("ROLLBACK")
        assert (await checking).outcome is Outcome.BLOCKED

    run(body)


@pytest.mark.parametrize(
    ("status", "code", "ending"),
    [
        (403, "AccessDenied", S3Retry),
        (400, "InvalidRequest", S3Poison),
        (503, "SlowDown", S3Retry),
        (500, "?", S3Retry),
    ],
)
@pytest.mark.parametrize("call", ["get_object", "copy_object", "delete_object"])
def test_what_the_service_refuses_is_not_public(
    run: Run, call: str, status: int, code: str, ending: type[Exception]
) -> None:
    """SSE-C or a key that the worker may not use: 400 or 403 at the first byte, or at the copy."""

    async def refuse() -> None:
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, call)

    async def body(place: Place) -> None:
        place.meddling.before[call] = refuse
        for data in (BLOCKED, allowed()):
            ref = await place.put("in/a.jpg", data)
            with pytest.raises(ending) if call in place.meddling.before else nullcontext():
                await place.checker.check(ref)
            await place.checker.check(ref)
            for key in await place.keys(place.public):
                assert await place.body(place.public, key) == allowed()
        assert await place.keys(place.public) == ["a.jpg"]

    run(body, wrapped=Meddling)
