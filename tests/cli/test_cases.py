"""``uploadguard cases``: from a queued picture to what comes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard import Context, Guard
from uploadguard.config import Settings
from uploadguard.ledger.codec import to_record
from uploadguard.ledger.database import open_database
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Decision, Hash, Match, Media, Verdict

CONFIG = "uploadguard.toml"
SHA256 = bytes(range(32))


@pytest.fixture
def reviewed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment with a ledger."""
    monkeypatch.setenv("UPLOADGUARD_LEDGER__PATH", str(deployment.path / "review"))
    open_database(Settings.load(deployment.path / CONFIG), create=True).close()
    return deployment


def queue(deployment: Deployment, *, entry: str = "e-1", number: int = 0, uploader: str = "somebody") -> None:
    decision = Decision(
        verdict=Verdict.QUEUE,
        reasons=("perceptual_match",),
        matches=(Match("hotline", entry, "A1", "pdq", 17, "mirrored", 2),),
        failures=(),
        hashes=(Hash("sha256", bytes([number]) + SHA256[1:]), Hash("pdq", SHA256, 90)),
        media=Media(2_000_000, "image/jpeg", 640, 480),
        generation=1,
        timings_ms={"digests": 1.25, "total": 12.5},
    )
    database = open_database(Settings.load(deployment.path / CONFIG))
    with database.writing() as connection:
        context = Context(uploader=uploader, object_id="obj-1", filename="a\x1b[2J.jpg")
        record(connection, [to_record(decision, context, datetime(2026, 3, 1, tzinfo=UTC))], Plan({}))
    database.close()


def printed(*args: str) -> list[dict[str, Any]]:
    result = run("cases", *args, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def ok(*args: str) -> str:
    result = run("cases", *args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_queue(reviewed: Deployment) -> None:
    assert ok("list") == "There are no such cases.\n"
    for number in range(3):
        queue(reviewed, entry=f"e-{number}", uploader=f"u-{number}")
    lines = ok("list").splitlines()
    assert lines[0].split() == ["Case", "Status", "Opened", "Verdict", "Reason", "Uploads", "Uploader", "Claimed", "by"]
    assert lines[1].split()[:2] == ["1", "open"]
    assert "perceptual_match" in lines[1]
    first, summary = printed("list", "--limit", "1")
    assert (first["case"], summary["total"]) == (1, 3)
    assert [one.get("case") for one in printed("list", "--after", summary["next_after"])] == [2, 3, None]
    assert "3 in all. More: --after 2026-" in ok("list", "--limit", "2")
    ok("claim", "2", "--as", "ann")
    assert printed("list", "--claimed-by", "ann")[0]["case"] == 2
    assert [one.get("case") for one in printed("list", "--unclaimed")] == [1, 3, None]
    assert printed("list", "--uploader", "u-2", "--list", "hotline", "--not-escalated")[0]["case"] == 3
    assert len(printed("list", "--status", "confirmed")) == 1
    assert run("cases", "list", "--after", "nonsense").exit_code == 2
    assert run("cases", "list", "--claimed-by", "x", "--unclaimed").exit_code == 2


def test_a_case_without_and_with_its_hashes(reviewed: Deployment) -> None:
    queue(reviewed)
    ok("comment", "1", "looks like a beach", "--as", "ann")
    text = ok("show", "1")
    assert "list hotline, entry e-1, pdq, 17 bits apart, frame 2, mirrored, category A1" in text
    assert "image/jpeg, 640x480, 2.0 MB" in text
    assert "total 12.5 ms" in text
    assert "looks like a beach" in text
    assert "\x1b" not in text
    assert SHA256.hex() not in text
    assert f"sha256 hash  {SHA256.hex()}" in ok("show", "1", "--hashes")
    (shown,) = printed("show", "1")
    assert SHA256.hex() not in json.dumps(shown)
    assert shown["shown_uploads"][0]["matches"][0]["distance_bits"] == 17
    assert [event["actor"] for event in shown["events"]] == ["ann"]
    assert printed("show", "1", "--hashes")[0]["shown_uploads"][0]["hashes"][0]["value"] == SHA256.hex()


def test_a_decision_reaches_this_hosts_hash_set_at_once(reviewed: Deployment) -> None:
    queue(reviewed)
    text = ok("decide", "1", "--confirm", "--yes", "--as", "ann", "--note", "seen before")
    assert text == "Case 1 is confirmed; 0 tasks for the outbox.\nThis host's hash set has it.\n"
    assert "uploadguard-confirmed" in run("lists", "status").stdout
    second = run("cases", "decide", "1", "--dismiss", "--yes")
    assert (second.exit_code, second.stdout) == (1, "")
    assert "error: case 1 was confirmed by ann" in second.stderr
    assert ok("requeue", "1", "--note", "wrong one") == "This host's hash set has it.\nCase 1 is in the queue.\n"
    (shown,) = printed("show", "1")
    assert (shown["status"], shown["round"]) == ("open", 2)


def test_many_and_what_failed(reviewed: Deployment) -> None:
    for number in range(2):
        queue(reviewed, entry=f"e-{number}", number=number)
    result = run("cases", "decide", "1", "2", "9", "--dismiss", "--no-remember", "--json", "--yes")
    assert result.exit_code == 1
    assert [json.loads(line)["error"] for line in result.stdout.splitlines()] == [None, None, "there is no case 9"]
    assert "uploadguard-dismissed" not in run("lists", "status").stdout


def test_it_asks_first(reviewed: Deployment) -> None:
    queue(reviewed)
    result = run("cases", "decide", "1", "--dismiss", "--as", "ann", input="n\n")
    assert "Dismiss case 1, as ann?" in result.stderr
    assert printed("show", "1")[0]["status"] == "open"
    assert run("cases", "decide", "1", "--dismiss", input="y\n").exit_code == 0


@pytest.mark.parametrize(
    "args", [[], ["--dismiss", "--ban"], ["--confirm", "--remember-look"], ["--confirm", "--as", " "]]
)
def test_wrong_options(reviewed: Deployment, args: list[str]) -> None:
    queue(reviewed)
    assert run("cases", "decide", "1", "--yes", *args).exit_code == 2


def test_two_people_and_a_lead(reviewed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADGUARD_LEDGER__TWO_PERSON", "all")
    queue(reviewed)
    ok("claim", "1", "--as", "ann")
    ok("unclaim", "1", "--as", "ann")
    assert "somebody else must say the same" in ok("decide", "1", "--confirm", "--yes", "--as", "ann")
    assert "escalated" in ok("decide", "1", "--dismiss", "--yes", "--as", "bob")
    assert printed("list", "--escalated")[0]["case"] == 1
    ok("requeue", "1", "--note", "look again")
    ok("escalate", "1", "--note", "cannot tell")
    kinds = [event["kind"] for event in printed("show", "1")[0]["events"]]
    assert kinds == ["claim", "unclaim", "propose", "disagree", "requeue", "escalate"]


def test_feedback(reviewed: Deployment) -> None:
    assert ok("feedback") == "There is none.\n"
    queue(reviewed)
    ok("decide", "1", "--dismiss", "--yes")
    (one,) = printed("feedback")
    assert (one["list"], one["entry_id"], one["opinion"]) == ("hotline", "e-1", "wrong")
    assert "hotline" in ok("feedback")
    ok("feedback", "--sent", str(one["id"]))
    assert printed("feedback") == []
    assert printed("feedback", "--all")[0]["sent"] is not None


def test_without_a_ledger(deployment: Deployment) -> None:
    deployment.write("bare.toml", b'[hashset]\npath = "hashset"\n')
    result = run("--config", "bare.toml", "cases", "list")
    assert result.exit_code == 1
    assert "ledger.path is not set" in result.stderr


def test_a_hash_set_that_cannot_be_opened_is_no_reason_not_to_decide(reviewed: Deployment) -> None:
    queue(reviewed)
    (reviewed.path / "hashset" / "manifest.json").unlink()
    result = run("cases", "decide", "1", "--confirm", "--yes")
    assert result.exit_code == 0
    assert "warning: the local lists could not be brought to this host's hash set now" in result.stderr


def test_a_queued_picture_is_blocked_once_confirmed(reviewed: Deployment, pictures: dict[str, bytes]) -> None:
    with Guard.open(Path(CONFIG)) as guard:
        picture = pictures["mirrored.jpg"]
        assert guard.check(picture, context=Context(uploader="u")).verdict is Verdict.QUEUE
        ok("decide", "1", "--confirm", "--yes")
        guard.refresh()
        again = guard.check(picture)
        assert (again.verdict, again.reasons[0]) == (Verdict.BLOCK, "digest_match")
