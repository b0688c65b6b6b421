"""What no event came for is found, and checked once."""

from __future__ import annotations

import pytest
from s3_objects import BLOCKED, UNSCANNED, Meddling, Place, Run, allowed

from uploadguard_s3 import Outcome, Reconciled, S3Retry, reconcile


@pytest.mark.parametrize("versions", [True, False])
def test_what_was_missed_is_found_and_nothing_else(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        for number in range(3):
            await place.checker.check(await place.put(f"in/known-{number}.jpg", UNSCANNED))
        for number in range(4):
            await place.put(f"in/lost-{number}.jpg", allowed())
        await place.put("in/bad.jpg", allowed(2))
        await place.put("in/bad.jpg", BLOCKED)
        await place.put("elsewhere.jpg", BLOCKED)
        seen: list[int] = []
        lost = 6 if versions else 5
        for dry in (True, True, False):
            report = await reconcile(
                place.checker, min_age_s=-5, dry_run=dry, progress=lambda figures: seen.append(figures.listed)
            )
            assert (report.listed, report.settled, report.fresh, report.missed) == (3 + lost, 3, 0, lost)
            assert report.outcomes.total() == (0 if dry else lost)
        assert seen[-1] == 3 + lost
        assert report.complete
        assert report.outcomes == {Outcome.ALLOWED: lost - 1, Outcome.BLOCKED: 1}
        assert [key for key in await place.keys("public") if "/" not in key] == [f"lost-{n}.jpg" for n in range(4)]
        rest = await reconcile(place.checker, min_age_s=-5)
        assert (rest.listed, rest.settled, rest.missed) == (3, 3, 0)

    run(body, versions=versions)


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_young_waits_for_its_event_and_tags_may_be_trusted(run: Run, versions: bool) -> None:
    async def body(place: Place) -> None:
        await place.put("in/new.jpg", allowed())
        young = await reconcile(place.checker, min_age_s=3600)
        assert (young.fresh, young.missed) == (1, 0)
        await place.put("in/tagged.jpg", BLOCKED, Tagging="uploadguard-verdict=allow")
        trusting = await reconcile(place.checker, min_age_s=-5, trust_tags=True)
        assert (trusting.settled, trusting.missed) == (1, 1)
        wary = await reconcile(place.checker, min_age_s=-5)
        assert wary.outcomes == {Outcome.BLOCKED: 1}

    run(body, versions=versions)


def test_one_that_fails_stops_no_other_and_a_listing_that_fails_is_told(run: Run) -> None:
    async def fail() -> None:
        raise ConnectionResetError

    async def body(place: Place) -> None:
        for number in range(3):
            await place.put(f"in/{number}.jpg", allowed())
        place.meddling.before["get_object"] = fail
        report = await reconcile(place.checker, min_age_s=-5)
        assert (report.missed, report.outcomes, report.complete) == (3, {Outcome.ALLOWED: 2}, False)
        assert report.to_dict()["failures"] == {"GetObject: the S3 service cannot be reached (ConnectionResetError)": 1}
        assert isinstance(report, Reconciled)
        place.meddling.before["get_bucket_versioning"] = fail
        with pytest.raises(S3Retry, match="GetBucketVersioning"):
            await reconcile(place.checker)

    run(body, wrapped=Meddling)
