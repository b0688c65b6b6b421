"""Objects that are overwritten, deleted or deleted again while they are checked, and processes that die in between."""

from __future__ import annotations

import dataclasses

import pytest
from botocore.exceptions import ClientError
from s3_objects import BLOCKED, Killed, Meddling, Place, Run, allowed

from uploadguard_s3 import ObjectRef, Outcome

_TAGS_ONLY = {"allow": ("tag",), "public_bucket": None, "public_prefix": None}


@pytest.mark.parametrize("call", ["copy_object", "head_object", "delete_object"])
@pytest.mark.parametrize("versions", [True, False])
def test_an_overwrite_in_between_is_never_published_unchecked(run: Run, versions: bool, call: str) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        written: list[ObjectRef] = []

        async def overwrite() -> None:
            written.append(await place.put("in/a.jpg", BLOCKED))

        place.meddling.before[call] = overwrite
        first = await place.checker.check(ref)
        assert first.outcome is (Outcome.ALLOWED if versions or call != "copy_object" else Outcome.BLOCKED)
        second = await place.checker.check(written[0])
        assert second.verdict is not None
        assert second.verdict.label == "block"
        for key in await place.keys(place.public):
            assert await place.body(place.public, key) == allowed()
        assert await place.keys(place.uploads) == []
        assert len(await place.keys(place.quarantine)) == 1

    run(body, versions=versions, wrapped=Meddling)


def test_a_service_that_ignores_the_condition_publishes_nothing_for_good(run: Run) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        place.meddling.before["copy_object"] = lambda: place.put("in/a.jpg", BLOCKED)
        checked = await place.checker.check(ref)
        assert place.meddling.calls.count("copy_object") == 2  # one of them to quarantine
        assert checked.outcome is Outcome.BLOCKED
        assert await place.keys(place.public) == []
        assert len(await place.keys(place.quarantine)) == 1

    run(body, versions=False, wrapped=lambda client: Meddling(client, {"CopySourceIfMatch", "IfMatch"}))


def test_tags_that_hit_what_overwrote_the_object_are_taken_away(run: Run) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        place.meddling.before["put_object_tagging"] = lambda: place.put("in/a.jpg", BLOCKED)
        checked = await place.checker.check(ref)
        assert "delete_object_tagging" in place.meddling.calls
        assert checked.outcome is Outcome.BLOCKED
        assert (await place.tags(checked.ref))["uploadguard-verdict"] == "block"

    run(body, versions=False, wrapped=Meddling, route={**_TAGS_ONLY, "block": ("tag",)})


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_gone_needs_no_check(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        version = {"VersionId": ref.version_id} if versions else {}
        await place.client.delete_object(Bucket=ref.bucket, Key=ref.key, **version)
        assert (await place.checker.check(ref)).outcome is Outcome.GONE
        assert (await place.checker.check(ObjectRef(ref.bucket, ref.key))).outcome is Outcome.GONE
        if not versions:
            old = await place.put("in/a.jpg", allowed())
            await place.put("in/a.jpg", allowed(2))
            assert (await place.checker.check(old)).outcome is Outcome.GONE

    run(body, versions=versions)


@pytest.mark.parametrize("sequenced", [True, False])
def test_an_older_version_never_takes_the_place_of_a_newer_one(run: Run, sequenced: bool) -> None:
    async def body(place: Place) -> None:
        old, new = [await place.put("in/a.jpg", allowed(seed)) for seed in (1, 2)]
        if sequenced:  # the shorter one is the later one
            old, new = (
                dataclasses.replace(ref, sequencer=s) for ref, s in ((old, "0055AED6DCD90281E5"), (new, "0056"))
            )
        first = await place.checker.check(old)
        assert (first.outcome, first.effects) == (Outcome.ALLOWED, ("superseded", "deleted"))
        assert (await place.checker.check(new)).effects == ("promoted", "deleted")
        assert await place.body(place.public, "a.jpg") == allowed(2)
        if sequenced:
            late = await place.put("in/a.jpg", allowed(3))
            late = dataclasses.replace(late, sequencer="0055")  # an event of before, told after the newer one was moved
            assert (await place.checker.check(late)).effects == ("superseded", "deleted")
            assert await place.body(place.public, "a.jpg") == allowed(2)

    run(body)


def test_a_conflict_at_the_place_of_a_copy_leaves_nothing_undone(run: Run) -> None:
    async def conflict() -> None:
        answer = {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
        raise ClientError(answer, "CopyObject")

    async def body(place: Place) -> None:
        for data, outcome in ((BLOCKED, Outcome.BLOCKED), (allowed(), Outcome.ALLOWED)):
            place.meddling.before["copy_object"] = conflict
            checked = await place.checker.check(await place.put("in/a.jpg", data))
            assert (checked.outcome, checked.effects[-1]) == (outcome, "deleted")
        assert await place.keys(place.uploads) == []
        assert len(await place.keys(place.quarantine)) == 1

    run(body, wrapped=Meddling)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("versions", "data"), [(True, allowed()), (False, allowed()), (True, BLOCKED), (False, BLOCKED)]
)
def test_wherever_a_worker_ends_the_next_one_comes_to_the_same(
    run: Run, versions: bool, data: bytes, before: bool
) -> None:
    async def body(place: Place) -> None:
        client = place.meddling
        await place.checker.check(await place.put("in/whole.jpg", data))
        calls = len(client.calls)
        for number in range(calls):
            ref = await place.put(f"in/{number}.jpg", data)
            client.dies_at = number, before
            with pytest.raises(Killed):
                await place.checker.check(ref)
            checked = await place.checker.check(ref)
            assert checked.verdict is not None
            assert checked.verdict.label == ("allow" if data != BLOCKED else "block")
            again = await place.checker.check(ref)
            assert (again.outcome, again.reference) == (Outcome.DUPLICATE, checked.reference)
        keys = sorted(["whole.jpg", *(f"{number}.jpg" for number in range(calls))])
        assert calls >= 3
        assert await place.keys(place.uploads) == []
        public = [key for key in await place.keys(place.public) if "/" not in key]
        kept = [key.split("/")[-2] for key in await place.keys(place.quarantine)]
        assert (public, kept) == ((keys, []) if data != BLOCKED else ([], keys))

    run(body, versions=versions, wrapped=Meddling)
