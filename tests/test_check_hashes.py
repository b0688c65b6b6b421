"""Guard.check_hashes: hashes of a file that is not here are looked up, and never pass for an inspection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.matchers import Remote, RemotePlugin, hit
from uploadguard import Context, FailureCode, Guard, Hash, NotReadyError, Verdict
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.ledger.database import open_database
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist

LISTED = {name: Hash(name, value, 100 if name == "pdq" else None) for name, value in testlist.TEST_HASHES.items()}
UNKNOWN = Hash("md5", b"\x5a" * 16)


@pytest.fixture
def hashset(tmp_path: Path) -> Path:
    HashSet.create(tmp_path / "set").add_list("hotline", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    return tmp_path / "set"


@pytest.fixture
def guard(hashset: Path) -> Iterator[Guard]:
    with Guard.open(hashset=hashset) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "verdict"), [("md5", "block"), ("sha1", "block"), ("sha256", "block"), ("pdq", "queue")]
)
def test_a_listed_hash_of_each_kind_is_found(guard: Guard, name: str, verdict: str) -> None:
    decision = guard.check_hashes([LISTED[name]])
    assert decision.verdict.label == verdict
    assert decision.reasons[-1] == "content_unseen"
    assert decision.matches[0].list_name == "hotline"
    assert decision.hashes == (LISTED[name],)
    assert guard.status().checks == {verdict: 1}


def test_what_is_not_found_is_not_scanned_and_never_allowed(guard: Guard) -> None:
    decision = guard.check_hashes([UNKNOWN])
    assert decision.verdict is Verdict.NOT_SCANNED
    assert not decision.allowed
    assert [failure.code for failure in decision.failures] == [FailureCode.CONTENT_UNSEEN]
    assert (decision.media.size_bytes, decision.media.media_type) == (0, None)


def test_a_host_that_relies_on_its_own_hashes_can_say_so(hashset: Path) -> None:
    with Guard.open(hashset=hashset, policy={"failures": {"content_unseen": "allow"}}) as guard:
        assert guard.check_hashes([UNKNOWN]).allowed
        assert guard.status().fail_open == ("policy.failures.content_unseen",)


def test_a_hash_of_low_quality_is_not_looked_up_and_that_is_said(guard: Guard) -> None:
    decision = guard.check_hashes([replace(LISTED["pdq"], quality=49)])
    assert decision.matches == ()
    assert set(decision.reasons) == {"content_unseen", "low_quality"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "no hash"),
        ([Hash("md5", b"1" * 15)], "16 bytes, not 15"),
        ([Hash("pdq", b"1" * 32)], "needs its quality"),
        ([Hash("pdq", b"1" * 32, 101)], "0 to 100"),
        ([LISTED["md5"], Hash("photodna", b"1" * 144)], "signals.enabled"),
    ],
)
def test_a_hash_that_could_never_match_is_refused(guard: Guard, wrong: list[Hash], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        guard.check_hashes(wrong)
    assert "11111" not in str(raised.value)


def test_it_is_kept_like_any_decision(tmp_path: Path, hashset: Path) -> None:
    settings = Settings.load(hashset={"path": hashset}, ledger={"path": tmp_path / "ledger"})
    database = open_database(settings, create=True)
    with Guard(settings) as guard:
        decision = guard.check_hashes([LISTED["md5"]], context=Context(object_id="obj-1"))
    with database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT reference, object_id FROM decisions").all()
    database.close()
    assert [tuple(row) for row in rows] == [(decision.reference, "obj-1")]


def test_match_services_are_asked_by_hash_and_those_that_want_the_upload_are_left_out(hashset: Path) -> None:
    by_hash = Remote(lambda query: [hit("by-hash")], name="by-hash", signal_types=frozenset({"md5"}))
    by_both = Remote(name="by-both")
    by_content = Remote(name="by-content", signal_types=frozenset(), takes_content=True)
    plugins = {"services": RemotePlugin(by_hash, by_both, by_content)}
    with Guard.open(
        hashset=hashset, plugins=plugins, matchers={one: {} for one in ("by-hash", "by-both", "by-content")}
    ) as guard:
        decision = guard.check_hashes([UNKNOWN])
    assert decision.reasons == ("digest_match", "content_unseen")
    # One that goes by more hashes than the host has is asked by those: what it knows by them must not pass.
    assert [len(one.queries) for one in (by_hash, by_both, by_content)] == [1, 1, 0]
    assert by_both.queries[0].hashes == (UNKNOWN,)


def test_an_empty_hash_set_raises(tmp_path: Path) -> None:
    HashSet.create(tmp_path / "empty")
    with Guard.open(hashset=tmp_path / "empty") as guard, pytest.raises(NotReadyError):
        guard.check_hashes([UNKNOWN])
