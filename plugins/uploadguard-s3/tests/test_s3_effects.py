"""What becomes of objects beside the plain cases: holds, tags, limits, confirmations."""

from __future__ import annotations

import asyncio
import dataclasses
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry, generate_latest
from s3_objects import BLOCKED, UNSCANNED, Meddling, Place, Run, allowed, open_guard
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server

from uploadguard import Guard
from uploadguard.errors import ConfigError
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.models import Context
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard_s3 import ObjectChecker, ObjectMetrics, ObjectRef, Outcome, S3Options, S3Retry

_TAGS_ONLY = {"allow": ("tag",), "public_bucket": None, "public_prefix": None}
_LOCKED = {"quarantine_bucket": "locked", "legal_hold": True, "retain_days": 2}


def test_quarantine_holds_what_it_keeps(run: Run) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", BLOCKED, Metadata={"who": "me"})
        assert (await place.checker.check(ref)).effects == ("quarantined", "deleted")
        (key,) = await place.keys("locked")
        assert key == f"kept/{place.prefix}in/a.jpg/{ref.version_id}"
        copy = await place.head("locked", key)
        assert copy["Metadata"] == {"who": "me"}
        assert (copy["ObjectLockLegalHoldStatus"], copy["ObjectLockMode"]) == ("ON", "GOVERNANCE")
        with pytest.raises(ClientError):
            await place.client.delete_object(Bucket="locked", Key=place.prefix + key, VersionId=copy["VersionId"])

    run(body, route=_LOCKED)


def test_tags_are_set_beside_the_uploaders_own_and_not_again(run: Run) -> None:
    async def body(place: Place) -> None:
        theirs = "&".join(f"t{number}={number}" for number in range(9))
        ref = await place.put("in/a.jpg", allowed(), Tagging=theirs)
        checked = await place.checker.check(ref)
        tags = await place.tags(ref)
        assert len(tags) == 10
        assert tags["t5"] == "5"
        assert tags["uploadguard-verdict"] == "allow"
        assert tags["GuardDutyMalwareScanStatus"] == "NO_THREATS_FOUND"
        assert (tags["uploadguard-generation"], tags["uploadguard-reference"]) == ("0", checked.reference)
        # Some services tell of a tag as of an upload.
        own = dataclasses.replace(ref, sequencer="FF")
        assert (await place.checker.check(own)).outcome is Outcome.DUPLICATE
        assert place.meddling.calls.count("put_object_tagging") == 1

    run(body, route=_TAGS_ONLY, wrapped=Meddling, tables={"vocabulary": "guardduty"})


@pytest.mark.parametrize("versions", [True, False])
def test_own_copies_and_other_keys_are_skipped(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        await place.checker.check(await place.put("in/a.jpg", allowed()))
        calls = len(place.meddling.calls)
        for bucket, key in (
            ("public", "a.jpg"),
            ("quarantine", "kept/a"),
            (place.uploads, "other"),
            (place.uploads, "in/"),
        ):
            ref = ObjectRef(bucket, place.prefix + key)
            assert (await place.checker.check(ref)).outcome is Outcome.SKIPPED
        for key in ("in/a.TXT", "in/b.css", "in/"):
            assert (await place.checker.check(await place.put(key, BLOCKED))).outcome is Outcome.SKIPPED
        assert len(place.meddling.calls) == calls
        assert (await place.checker.check(await place.put("in/a.JPG", BLOCKED))).outcome is Outcome.BLOCKED

    run(body, versions=versions, wrapped=Meddling, route={"only_suffixes": [".jpg", ".txt"], "skip_suffixes": [".txt"]})


@pytest.mark.parametrize("read", [False, True])
def test_what_is_over_the_limit_is_read_only_where_its_digests_are_wanted(run: Run, tmp_path: Path, read: bool) -> None:
    async def body(place: Place) -> None:
        checked = await place.checker.check(await place.put("in/a.jpg", BLOCKED))
        assert checked.decision is not None
        assert checked.outcome is (Outcome.BLOCKED if read else Outcome.QUEUED)
        assert bool(checked.decision.hashes) is read
        assert checked.decision.media.size_bytes == len(BLOCKED)
        assert [failure.code.value for failure in checked.decision.failures] == ([] if read else ["too_large"])
        assert await place.keys("public") == []

    with open_guard(tmp_path / "hashset", media={"max_file_bytes": 1000}) as guard:
        run(body, guard=guard, tables={"limits": {"read_too_large": read}})


def test_a_version_is_checked_again_against_a_newer_generation_only_when_asked(run: Run, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        assert (await place.checker.check(ref)).outcome is Outcome.ALLOWED
        entry = ListEntry("1", (("md5", bytes.fromhex(ref.etag or "")),))
        HashSet.open(directory).add_list("late", [entry], lookup_kinds(DIGESTS))
        assert guard.refresh()
        assert (await place.checker.check(ref)).outcome is Outcome.DUPLICATE
        again = await place.checker.check(ref, again=True)
        assert (again.outcome, again.effects) == (Outcome.BLOCKED, ("tagged",))
        assert (await place.tags(ref))["uploadguard-verdict"] == "block"
        assert (await place.checker.check(ref, again=True)).outcome is Outcome.DUPLICATE

    directory = tmp_path / "hashset"
    with open_guard(directory) as guard:
        run(body, guard=guard, route={**_TAGS_ONLY, "block": ("tag",)})


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_written_through_a_presigned_url_after_it_was_confirmed_is_not_published(
    run: Run, versions: bool
) -> None:
    async def body(place: Place) -> None:
        key = f"{place.prefix}in/a.jpg"
        url = await place.client.generate_presigned_url("put_object", {"Bucket": place.uploads, "Key": key})
        await _put(url, allowed())
        checked = await place.checker.confirm(place.uploads, key, context=Context(uploader="me"))
        assert checked.outcome is Outcome.ALLOWED
        assert checked.decision is not None
        assert checked.published is not None
        assert (checked.published.bucket, checked.published.key) == ("public", f"{place.prefix}a.jpg")
        # The uploader's client asks twice, and the event comes late.
        again = await place.checker.confirm(place.uploads, key)
        assert (again.outcome, again.verdict, again.published) == (Outcome.DUPLICATE, checked.verdict, again.published)
        assert again.published is not None
        assert (await place.checker.check(checked.ref)).outcome is Outcome.DUPLICATE
        await _put(url, BLOCKED)
        assert await place.body("public", "a.jpg") == allowed()
        bad = await place.checker.confirm(place.uploads, key)
        assert (bad.outcome, bad.published) == (Outcome.BLOCKED, None)
        assert await place.body("public", "a.jpg") == allowed()
        assert await place.keys(place.uploads) == []

    run(body, versions=versions)


def test_confirming_what_is_not_there_or_not_to_be_published(run: Run) -> None:
    async def body(place: Place) -> None:
        gone = await place.checker.confirm(place.uploads, f"{place.prefix}in/none.jpg")
        assert (gone.outcome, gone.verdict, gone.published) == (Outcome.GONE, None, None)
        text = await place.put("in/text.jpg", UNSCANNED)
        checked = await place.checker.confirm(text.bucket, text.key, etag=text.etag, version_id=text.version_id)
        assert (checked.outcome, checked.published) == (Outcome.NOT_SCANNED, None)
        with pytest.raises(ConfigError, match="public place"):
            await place.checker.confirm(place.uploads, "elsewhere")

    run(body)


def test_while_the_guard_cannot_answer_events_wait(run: Run, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        guard.close()
        with pytest.raises(S3Retry, match="cannot answer now"):
            await place.checker.check(ref)
        assert await place.keys("public") == []

    guard = open_guard(tmp_path / "hashset")
    run(body, guard=guard)


def test_a_checker_opens_what_its_settings_say(
    s3_server: S3Server, run: Run, guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    (tmp_path / "s3.toml").write_text(
        f'[client]\nendpoint_url = "{s3_server.url}"\nregion = "us-east-1"\naddressing = "path"\n'
        '[routes.only]\nbucket = "flat"\nprefix = "opened/"\ntenant = "guests"\n'
    )
    contexts: list[Context] = []

    def context(ref: ObjectRef, metadata: Mapping[str, str]) -> Context:
        assert ref.key == "opened/a b.jpg"
        contexts.append(Context(uploader=metadata["who"]))
        return contexts[-1]

    async def body(place: Place) -> None:
        options = S3Options.load(tmp_path / "s3.toml")
        await place.client.put_object(Bucket="flat", Key="opened/a b.jpg", Body=allowed(), Metadata={"who": "me"})
        async with ObjectChecker.open(guard, options, context=context) as checker:
            checked = await checker.check(ObjectRef("flat", "opened/a b.jpg"))
        assert (checked.outcome, checked.effects) == (Outcome.ALLOWED, ("tagged",))

    run(body)
    assert len(contexts) == 1
    assert (tmp_path / "uploadguard-s3.db").is_file()


def test_metrics_count_and_name_no_key(run: Run) -> None:
    registry = CollectorRegistry()

    async def body(place: Place) -> None:
        ref = await place.put("in/secret-name.jpg", BLOCKED)
        await place.checker.check(ref)
        await place.checker.check(ref)

    run(body, metrics=ObjectMetrics(registry))
    text = generate_latest(registry).decode()
    assert 'uploadguard_s3_objects_total{outcome="blocked"} 1.0' in text
    assert 'uploadguard_s3_objects_total{outcome="duplicate"} 1.0' in text
    assert 'uploadguard_s3_effects_total{effect="quarantined"} 1.0' in text
    assert f"uploadguard_s3_checked_bytes_total {float(len(BLOCKED))}" in text
    assert "uploadguard_s3_objects_under_way 0.0" in text
    assert "secret" not in text
    assert "versions" not in text


def test_no_name_is_in_a_repr() -> None:
    assert "secret" not in repr(ObjectRef("secret-bucket", "secret-key", "secret", "secret"))


async def _put(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")  # noqa: S310 - loopback
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).close())  # noqa: S310
