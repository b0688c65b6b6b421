"""The action ``s3``: what a person decides about a queued object comes true, once, and for that version alone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from s3_objects import QUEUED, Meddling, Place, Run, allowed
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from uploadguard.actions import Occasion, Receipt, Task
from uploadguard.errors import ConfigError, PostponedError, RefusedError
from uploadguard.models import Context, Verdict
from uploadguard.testing.conformance import ActionConformance
from uploadguard.testing.journal import ScriptedJournal
from uploadguard_s3 import Checked, ObjectRef, Outcome
from uploadguard_s3.action import S3Action
from uploadguard_s3.hooks import uploadguard_actions
from uploadguard_s3.model import S3Poison, S3Retry
from uploadguard_s3.reviewed import Reviews


def reviews(place: Place) -> Reviews:
    return Reviews(place.checker.options, place.checker.store, place.checker.state)


async def queued(place: Place, key: str = "in/a.jpg") -> tuple[ObjectRef, Checked]:
    """An object that waits for a person, as its decision names it."""
    checked = await place.checker.check(await place.put(key, QUEUED))
    assert (checked.outcome, checked.decision is not None) == (Outcome.QUEUED, True)
    return ObjectRef.from_url(checked.ref.url), checked


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_released_is_published_and_what_is_confirmed_is_deleted(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        for _ in range(2):
            released = await reviews(place).release(ref, checked.decision)
            assert released.effects == ("promoted", "deleted", "copy_deleted")
        assert await place.body(place.public, "a.jpg") == QUEUED
        assert (await place.tags(ObjectRef(place.public, f"{place.prefix}a.jpg")))["uploadguard-verdict"] == "allow"
        assert await place.keys(place.uploads) == await place.keys(place.quarantine) == []
        again = await place.checker.check(checked.ref)
        assert (again.outcome, again.verdict) == (Outcome.DUPLICATE, Verdict.ALLOW)

        ref, checked = await queued(place, "in/b.jpg")
        assert checked.decision is not None
        for effects in (("deleted", "copy_deleted"), ()):
            assert (await reviews(place).delete(ref, checked.decision)).effects == effects
        assert await place.keys(place.public) == ["a.jpg"]
        assert await place.keys(place.uploads) == await place.keys(place.quarantine) == []
        assert (await place.checker.check(checked.ref)).verdict is not None

    run(body, versions=versions)


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("same_bytes", [True, False])
def test_what_overwrote_it_is_neither_published_nor_deleted(run: Run, versions: bool, same_bytes: bool) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        await asyncio.sleep(1.01)  # the time of an object is in seconds
        newer = await place.put("in/a.jpg", QUEUED if same_bytes else allowed())
        released = await reviews(place).release(ref, checked.decision)
        assert released.overwritten
        assert await place.keys(place.public) == []
        await reviews(place).delete(ref, checked.decision)
        assert await place.keys(place.quarantine) == []
        assert await place.keys(place.uploads) == ["in/a.jpg"]
        found = await place.checker.check(newer)
        assert found.outcome is (Outcome.QUEUED if same_bytes else Outcome.ALLOWED)

    run(body, versions=versions)


@pytest.mark.parametrize("versions", [True, False])
def test_an_overwrite_at_the_last_moment_is_not_published(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        place.meddling.before["copy_object"] = lambda: place.put("in/a.jpg", allowed())
        with nullcontext() if versions else pytest.raises(S3Retry):
            await reviews(place).release(ref, checked.decision)
        for key in await place.keys(place.public):
            assert await place.body(place.public, key) == QUEUED
        assert await place.body(place.uploads, "in/a.jpg") == allowed()

    run(body, versions=versions, wrapped=Meddling)


@pytest.mark.parametrize("versions", [True, False])
def test_what_was_deleted_comes_back_from_quarantine(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        assert await place.keys(place.uploads) == []
        released = await reviews(place).release(ref, checked.decision)
        assert "promoted" in released.effects
        assert await place.body(place.public, "a.jpg") == QUEUED
        # The case is opened again, and confirmed this time.
        assert (await reviews(place).delete(ref, checked.decision)).effects == ("unpublished",)
        assert await place.keys(place.public) == await place.keys(place.quarantine) == []
        old, checked = await queued(place, "in/b.jpg")
        assert checked.decision is not None
        newer = await place.checker.check(await place.put("in/b.jpg", allowed()))
        assert newer.published is not None
        assert (await reviews(place).release(old, checked.decision)).published is None
        assert await place.body(place.public, "b.jpg") == allowed()

    run(body, versions=versions, route={"queue": ("quarantine", "delete")})


def test_a_locked_copy_stays(run: Run) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        assert (await reviews(place).delete(ref, checked.decision)).effects == ("deleted", "copy_locked")
        assert len(await place.keys("locked")) == 1
        assert await place.keys(place.uploads) == []

    run(body, route={"quarantine_bucket": "locked", "legal_hold": True})


def test_without_a_public_place_the_tag_is_changed(run: Run) -> None:
    async def body(place: Place) -> None:
        ref, checked = await queued(place)
        assert checked.decision is not None
        assert (await reviews(place).release(ref, checked.decision)).effects[0] == "tagged"
        assert (await place.tags(ref))["uploadguard-verdict"] == "allow"
        with pytest.raises(S3Poison):
            await reviews(place).release(ObjectRef("others", "a.jpg", "1"), checked.decision)

    run(body, route={"public_bucket": None, "public_prefix": None, "quarantine_bucket": None, "quarantine_prefix": ""})


@pytest.mark.parametrize(
    "ref",
    [
        ObjectRef("b", "a b+c%2B?&#é/../ü\u2028", "v.1/+="),
        ObjectRef("b", "/x//", None, "abc-2"),
        ObjectRef("b", "k", "null", "e"),
        ObjectRef("b", "k"),
    ],
)
def test_an_objects_url_names_it(ref: ObjectRef) -> None:
    assert ObjectRef.from_url(ref.url) == ref


@pytest.mark.parametrize(
    "url",
    ["", "s3://b", "s3://b/", "https://b/k", "s3://b/k?x=1", "s3://b/k?versionId=1&versionId=2", "s3://b/%FF",
     "s3://b/k?", "s3://b/k#x", "s3://b/a b", "s3://b/%2f", "object-1"],
)  # fmt: skip
def test_other_urls_name_none(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL"):
        ObjectRef.from_url(url)


def test_its_table(tmp_path: Path) -> None:
    (tmp_path / "s3.toml").write_text('[routes.a]\nbucket = "uploads"\n')
    table = {"kind": "s3", "settings_file": str(tmp_path / "s3.toml")}
    (action,) = uploadguard_actions({"s3": table, "other": {"kind": "webhook"}})
    assert action.occasions == {Occasion.RELEASE, Occasion.DELETE}
    wrongs: list[dict[str, Any]] = [{"occasions": ["report"]}, {"occasions": []}, {"settings_file": "none"}, {"x": 1}]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            uploadguard_actions({"s3": {**table, **wrong}})


class TestS3Action(ActionConformance):
    """On the real server; each task is about an object of its own."""

    secrets = (SECRET_KEY,)

    @pytest.fixture(autouse=True)
    def _other_side(
        self,
        s3_server: S3Server,
        bucket_name: Callable[[str], str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[None]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        self.bucket, self.file, self.url = bucket_name("action"), tmp_path / "s3.toml", s3_server.url
        self.client = botocore.session.get_session().create_client("s3", **s3_server.client_options())
        self.client.create_bucket(Bucket=self.bucket)
        self.put: set[str] = set()
        self._write(s3_server.url)
        self.action = S3Action("s3", {"kind": "s3", "settings_file": self.file})
        yield
        self.client.close()

    def _write(self, url: str) -> None:
        self.file.write_text(
            f'[client]\nendpoint_url = "{url}"\nregion = "{REGION}"\nattempts = 1\n[state]\nlease_s = 1.0\n'
            f'[routes.a]\nbucket = "{self.bucket}"\nprefix = "in/"\npublic_prefix = "out/"\n'
        )

    def make(self) -> S3Action:
        return S3Action("s3", {"kind": "s3", "settings_file": self.file})

    def task(self, **changes: Any) -> Task:
        key = str(uuid.uuid4())
        answer = self.client.put_object(Bucket=self.bucket, Key=f"in/{key}", Body=b"x")
        self.put.add(key)
        task = super().task(key=key, **{name: value for name, value in changes.items() if name != "context"})
        url = ObjectRef(self.bucket, f"in/{key}", None, answer["ETag"].strip('"')).url
        context = changes.get("context", task.context)
        if context.object_id == "object-1" or str(context.object_id).startswith("s3:"):
            context = replace(context, object_id=url)
        decision = replace(task.decision, hashes=tuple(h for h in task.decision.hashes if h.signal_type == "pdq"))
        return replace(task, context=context, decision=changes.get("decision", decision))

    def taken(self) -> Mapping[str, int]:
        left = self.client.list_objects_v2(Bucket=self.bucket, Prefix="in/").get("Contents", ())
        return dict.fromkeys(self.put - {one["Key"].removeprefix("in/") for one in left}, 1)

    def faults(self) -> Iterator[tuple[str, AbstractContextManager[object]]]:
        yield "nobody answers", self._elsewhere("http://127.0.0.1:9")

    @contextmanager
    def _elsewhere(self, url: str) -> Iterator[None]:
        self._write(url)
        yield
        self._write(self.url)

    def test_what_is_on_no_route_is_refused(self) -> None:
        task = replace(self.task(), context=Context(object_id=f"s3://{self.bucket}/other?etag=1"))
        assert not self.action.wants(task.decision, task.context, Occasion.DELETE)
        with pytest.raises(RefusedError):
            self.action.deliver(task, ScriptedJournal(task))

    def test_a_state_that_cannot_be_used_postpones(self) -> None:
        task = self.task()
        (self.file.parent / "uploadguard-s3.db").write_bytes(b"no database" * 1000)
        with pytest.raises(PostponedError):
            self.action.deliver(task, ScriptedJournal(task))

    def test_a_released_one_is_published(self) -> None:
        task = self.task(occasion=Occasion.RELEASE)
        receipt: Receipt = self.action.deliver(task, ScriptedJournal(task))
        assert receipt.facts == {"done": True, "effects": ["promoted", "deleted"], "overwritten": False}
        assert self.client.get_object(Bucket=self.bucket, Key=f"out/{task.key}")["Body"].read() == b"x"
