"""Whole checks: what the service says, or fails to say, is the verdict of the upload."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eokm_stubs import table
from PIL import Image

from uploadguard import Context, Decision, FailureCode, Guard, Verdict, hookimpl
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.ledger.database import open_database
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import fakes, testlist
from uploadguard.testing.fakes.eokm import FakeEokm


class Told:
    """Waits for a revised decision."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.decision: Decision | None = None

    @hookimpl
    def uploadguard_decision_revised(self, decision: Decision) -> None:
        self.decision = decision
        self.event.set()


@pytest.fixture(scope="module")
def picture() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((300, 200)).rotate(30).convert("RGB").save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def settings(fake: FakeEokm, tmp_path: Path) -> dict[str, Any]:
    kinds = lookup_kinds((*DIGESTS, Pdq()))
    HashSet.create(tmp_path / "hashset").add_list("local", testlist.entries(), kinds)
    return {
        "hashset": {"path": tmp_path / "hashset"},
        "sandbox": {"isolation": "none"},
        "matchers": {"hotline": table(fake.url, breaker_failures=1000)},
    }


def opened(settings: dict[str, Any], told: Told | None = None) -> Guard:
    loaded = Settings.load(plugins=["eokm"], **settings)
    return Guard(loaded, plugins={"told": told} if told is not None else None)


@pytest.fixture
def guard(settings: dict[str, Any]) -> Iterator[Guard]:
    with opened(settings) as made:
        yield made


def test_what_it_knows_is_blocked_and_reported(fake: FakeEokm, guard: Guard, picture: bytes) -> None:
    fake.add("sha1", hashlib.sha1(picture, usedforsecurity=False).hexdigest())
    decision = guard.check(picture)
    assert (decision.verdict, decision.reasons, decision.report_due) == (Verdict.BLOCK, ("digest_match",), True)
    [match] = decision.matches
    assert (match.list_name, match.fields["service"]) == ("hotline", "eokm")


def test_what_it_does_not_know_passes_and_is_asked_once(fake: FakeEokm, guard: Guard, picture: bytes) -> None:
    for _ in range(3):
        assert guard.check(picture, context=Context(filename="private.jpg")).verdict is Verdict.ALLOW
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    "kind",
    [*fakes.CHAOS, fakes.Status(401), fakes.Garbage(b""), fakes.Garbage(b"False"), fakes.Huge(), fakes.Drip(5)],
    ids=repr,
)
def test_no_failure_counts_as_clean(
    fake: FakeEokm, settings: dict[str, Any], picture: bytes, kind: fakes.Misbehaviour
) -> None:
    fake.misbehave(kind, times=None)
    settings["matchers"]["hotline"]["deadline_s"] = 0.3 if isinstance(kind, fakes.Drip) else 20.0
    with opened(settings) as guard:
        decision = guard.check(picture)
    assert decision.verdict is Verdict.QUEUE
    [failure] = decision.failures
    assert (failure.code, failure.matcher) == (FailureCode.MATCHER_FAILED, "hotline")
    for name in ("md5", "sha1"):
        assert hashlib.new(name, picture, usedforsecurity=False).hexdigest() not in failure.detail


@pytest.mark.parametrize(("on_failure", "verdict"), [("block", Verdict.BLOCK), ("not_scanned", Verdict.NOT_SCANNED)])
def test_its_failure_has_a_verdict_of_its_own(
    fake: FakeEokm, settings: dict[str, Any], picture: bytes, on_failure: str, verdict: Verdict
) -> None:
    fake.misbehave(fakes.Status(500), times=None)
    settings["matchers"]["hotline"]["on_failure"] = on_failure
    with opened(settings) as guard:
        assert guard.check(picture).verdict is verdict


def test_what_comes_later_revises_the_decision(
    fake: FakeEokm, settings: dict[str, Any], picture: bytes, tmp_path: Path
) -> None:
    fake.add("md5", hashlib.md5(picture, usedforsecurity=False).hexdigest())
    settings["matchers"]["hotline"]["mode"] = "prefetch"
    settings["ledger"] = {"path": tmp_path / "ledger"}
    told = Told()
    open_database(Settings.load(plugins=["eokm"], **settings), create=True).close()
    with opened(settings, told) as guard:
        decision = guard.check(picture)
        assert (decision.verdict, decision.pending) == (Verdict.ALLOW, ("hotline",))
        assert told.event.wait(30)
        assert guard.check(picture).verdict is Verdict.BLOCK  # by now it is known
    assert told.decision is not None
    assert (told.decision.verdict, told.decision.revises) == (Verdict.BLOCK, decision.reference)


@pytest.mark.parametrize(("environment", "is_said"), [("test", True), ("live", False)])
def test_start_up_says_that_it_is_the_test_environment(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture, environment: str, is_said: bool
) -> None:
    settings["matchers"]["hotline"]["environment"] = environment
    with opened(settings):
        assert ("the test environment is asked" in caplog.text) is is_said
