"""Tripped lists on the command line: shown, reset, and what is said where it is not known which they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard import Guard, Verdict
from uploadguard.cli.exits import Exit
from uploadguard.testing.picture import picture_bytes
from uploadguard.tripped import FILE_NAME, Trip, TrippedFile

AT = datetime(2026, 5, 4, 8, 15, tzinfo=UTC)


@pytest.fixture
def tripped(deployment: Deployment) -> TrippedFile:
    file = TrippedFile(deployment.path / "hashset", None)
    for name in ("test", "a-service"):
        file.add(Trip(list_name=name, at=AT, matched=104, checks=10_000))
    return file


def test_status_shows_them(tripped: TrippedFile) -> None:
    result = run("lists", "status")
    assert result.exit_code == Exit.ALARM
    assert "test       2026-05-04 08:15 UTC  104 files, 1.0 %     10,000" in result.stdout
    assert "uploadguard lists reset NAME" in result.stdout
    records = {one["name"]: one for one in map(json.loads, run("lists", "status", "--json").stdout.splitlines())}
    assert records["test"]["tripped"] == {"at": "2026-05-04T08:15:00+00:00", "matched": 104, "checks": 10_000}
    assert records["a-service"]["tripped"] == records["test"]["tripped"]


def test_status_says_nothing_where_none_is(deployment: Deployment) -> None:
    result = run("lists", "status")
    assert result.exit_code == 0
    assert "ripped" not in result.stdout
    assert json.loads(run("lists", "status", "--json").stdout)["tripped"] is None


def test_reset(tripped: TrippedFile, deployment: Deployment) -> None:
    with Guard.open(deployment.path / "uploadguard.toml") as guard:
        assert guard.check(picture_bytes()).verdict is Verdict.QUEUE
        result = run("lists", "reset", "test")
        assert (result.exit_code, result.stdout) == (0, "test is not tripped any more.\n")
        guard.refresh()
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
    assert tripped.read().trips.keys() == {"a-service"}
    assert run("lists", "reset", "--all").exit_code == 0
    assert tripped.read().trips == {}


def test_reset_of_what_is_not_tripped_changes_nothing(tripped: TrippedFile) -> None:
    result = run("lists", "reset", "test", "tset")
    assert result.exit_code == 1
    assert result.stderr == "error: not tripped: 'tset'; `uploadguard lists status` shows which lists are\n"
    assert len(tripped.read().trips) == 2
    for wrong in ([], ["test", "--all"]):
        assert run("lists", "reset", *wrong).exit_code == 2


def test_a_damaged_file_is_said_and_started_anew(tripped: TrippedFile) -> None:
    tripped.path.write_bytes(b"{")
    result = run("lists", "status")
    assert result.exit_code == 1
    assert FILE_NAME in result.stderr
    assert "uploadguard lists reset --all" in result.stderr
    record = json.loads(run("lists", "status", "--json").stdout)
    assert record["tripped"] == {"at": None, "matched": None, "checks": None}
    assert run("lists", "reset", "test").exit_code == 1
    assert run("lists", "reset", "--all").exit_code == 0
    assert run("lists", "status").exit_code == 0


def test_check_goes_by_it_and_shows_origin_and_shadow(tripped: TrippedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads(run("check", "listed.jpg", "--json").stdout)
    assert record["verdict"] == "queue"
    assert "list_tripped" in record["reasons"]
    assert record["matches"][0]["source"] == "test.csv"
    assert "test: md5 (test.csv)" in run("check", "listed.jpg").stdout
    monkeypatch.setenv("UPLOADGUARD_POLICY__SHADOW", "true")
    shadowed = run("check", "listed.jpg")
    assert shadowed.exit_code == 0
    assert "queue but for shadow mode" in shadowed.stdout
