"""A hash set that nobody updates: warned about, then a failure of every check."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.hashset.made_up import TYPES, entries
from uploadguard import FailureCode, Guard, Verdict
from uploadguard.freshness import Freshness
from uploadguard.hashset import HashSet
from uploadguard.testing import picture

UPDATED = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float, *, warn_after_h: float = 24, stale_after_h: float = 72) -> Freshness:
    now = (UPDATED + timedelta(hours=hours)).timestamp()
    return Freshness(warn_after_h=warn_after_h, stale_after_h=stale_after_h, clock=lambda: now)


@pytest.mark.parametrize(("hours", "warns", "stale"), [(23.9, False, False), (24.1, True, False), (72.1, True, True)])
def test_it_is_warned_about_and_then_a_failure(
    hours: float, warns: bool, stale: bool, caplog: pytest.LogCaptureFixture
) -> None:
    freshness = at(hours)
    for _ in range(3):
        assert [failure.code for failure in freshness.judge(UPDATED)] == [FailureCode.HASH_SET_STALE] * stale
    assert freshness.is_stale(UPDATED) is stale
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warns, "not with every check"


def test_each_bound_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    freshness = at(1000, warn_after_h=0, stale_after_h=0)
    assert freshness.judge(UPDATED) == ()
    assert not freshness.is_stale(UPDATED)
    assert caplog.records == []


def test_without_lists_nothing_grows_old() -> None:
    assert at(1000).judge(None) == ()
    assert not at(1000).is_stale(None)


def test_a_clock_that_was_set_back_makes_nothing_stale() -> None:
    assert at(-10).judge(UPDATED) == ()


def test_checks_of_a_stale_hash_set_queue_until_it_is_updated(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(3), TYPES)
    with Guard.open(hashset={"path": tmp_path / "set", "stale_after_h": 1e-7, "warn_after_h": 0}) as guard:
        decision = guard.check(picture.unrelated_picture())
        assert decision.verdict is Verdict.QUEUE
        assert decision.reasons == ("hash_set_stale",)
        assert guard.status().stale
    with Guard.open(hashset=tmp_path / "set") as guard:
        assert guard.check(picture.unrelated_picture()).verdict is Verdict.ALLOW
        assert not guard.status().stale
