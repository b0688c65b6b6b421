"""Objects on a real server, from upload to what becomes of them."""

from __future__ import annotations

import pytest
from s3_objects import BLOCKED, QUEUED, UNSCANNED, Place, Run, allowed

from uploadguard_s3 import Outcome


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_allowed_is_moved_and_all_else_is_not(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        made = {}
        for name, data in (("good", allowed()), ("bad", BLOCKED), ("near", QUEUED), ("text", UNSCANNED)):
            ref = await place.put(f"in/{name} é+%.jpg", data, Metadata={"who": "me"}, Tagging="theirs=1")
            made[name] = await place.checker.check(ref)
        outcomes = {name: checked.outcome for name, checked in made.items()}
        assert outcomes == {
            "good": Outcome.ALLOWED,
            "bad": Outcome.BLOCKED,
            "near": Outcome.QUEUED,
            "text": Outcome.NOT_SCANNED,
        }
        assert {name: checked.effects for name, checked in made.items()} == {
            "good": ("promoted", "deleted"),
            "bad": ("quarantined", "deleted"),
            "near": ("tagged", "quarantined"),
            "text": ("tagged",),
        }
        assert await place.keys(place.public) == ["good é+%.jpg"]
        assert await place.body(place.public, "good é+%.jpg") == allowed()
        assert (await place.head(place.public, "good é+%.jpg"))["Metadata"] == {"who": "me"}
        published = made["good"].published
        assert published is not None
        tags = await place.tags(published)
        assert (published.bucket, published.key) == (place.public, f"{place.prefix}good é+%.jpg")
        assert (tags["theirs"], tags["uploadguard-verdict"]) == ("1", "allow")
        assert tags["uploadguard-reference"] == made["good"].reference
        assert await place.keys(place.uploads) == ["in/near é+%.jpg", "in/text é+%.jpg"]
        assert (await place.tags(made["text"].ref))["uploadguard-verdict"] == "not_scanned"
        kept = await place.keys(place.quarantine)
        names = sorted(key.removeprefix(f"kept/{place.prefix}").rpartition("/")[0] for key in kept)
        assert names == ["in/bad é+%.jpg", "in/near é+%.jpg"]
        bad = next(key for key in kept if "bad" in key)
        assert await place.body(place.quarantine, bad) == BLOCKED

    run(body, versions=versions)


@pytest.mark.parametrize("versions", [True, False])
def test_a_second_delivery_does_nothing(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        for data, kept in ((allowed(), 0), (BLOCKED, 1), (UNSCANNED, 1)):
            ref = await place.put("in/a.jpg", data)
            first = await place.checker.check(ref)
            second = await place.checker.check(ref)
            assert (second.outcome, second.effects, second.decision) == (Outcome.DUPLICATE, (), None)
            assert (second.verdict, second.reference) == (first.verdict, first.reference)
            assert len(await place.keys(place.quarantine)) == kept

    run(body, versions=versions)


def test_the_same_bytes_uploaded_again_are_checked_again_where_there_are_no_versions(run: Run) -> None:
    async def body(place: Place) -> None:
        first = await place.checker.check(await place.put("in/a.jpg", allowed()))
        await place.client.delete_object(Bucket=place.public, Key=f"{place.prefix}a.jpg")
        again = await place.checker.check(await place.put("in/a.jpg", allowed()))
        assert (first.outcome, again.outcome) == (Outcome.ALLOWED, Outcome.ALLOWED)
        assert await place.keys(place.public) == ["a.jpg"]
        assert await place.keys(place.uploads) == []

    run(body, versions=False)
