"""``uploadguard status``."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard import Guard
from uploadguard.media import codecs
from uploadguard.tripped import Trip, TrippedFile


@pytest.mark.sandboxed
def test_what_is_enforced_is_told(deployment: Deployment) -> None:
    result = run("status", "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["ready"] is True
    assert record["isolation"] == "sandbox"
    assert record["layers"]["seccomp"] is True
    assert record["updated_at"] is not None
    assert record["codecs"]["Pillow"]
    assert record["known_holes"] == []
    table = run("status")
    assert "seccomp" in table.stdout
    assert "in force" in table.stdout
    assert deployment.path.exists()


def test_without_isolation_no_layer_is_claimed(deployment: Deployment) -> None:
    record = json.loads(run("status", "--json").stdout)
    assert record["isolation"] == "none"
    assert record["layers"] is None
    assert "seccomp" not in run("status").stdout
    assert deployment.path.exists()


def test_an_empty_hash_set_is_not_ready(empty: Deployment) -> None:
    result = run("status")
    assert result.exit_code == 1
    assert "lists add" in result.stderr
    assert empty.path.exists()


def test_a_ledger_that_refuses_is_not_taken_for_an_empty_hash_set(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "ready", False)
    result = run("status")
    assert result.exit_code == 1
    assert "decisions cannot be kept" in result.stderr
    assert "is empty" not in result.stderr
    assert deployment.path.exists()


def rows(stdout: str) -> dict[str, str]:
    return {line[:15].strip(): line[15:].strip() for line in stdout.splitlines()}


def test_lists_that_are_tripped_or_staged_are_counted(deployment: Deployment) -> None:
    before = rows(run("status").stdout)
    assert (before["tripped lists"], before["staged lists"]) == ("none", "none")
    assert run("lists", "add", "fresh", "test.csv", "--stage").exit_code == 0
    assert run("status").exit_code == 4
    assert run("lists", "discard", "fresh").exit_code == 0
    assert run("status").exit_code == 0
    file = TrippedFile(deployment.path / "hashset", None)
    file.add(Trip(list_name="test", at=datetime(2026, 5, 4, tzinfo=UTC), matched=104, checks=10_000))
    assert run("status").exit_code == 4
    assert run("lists", "add", "fresh", "test.csv", "--stage").exit_code == 0
    after = rows(run("status").stdout)
    shown = "1: `uploadguard lists status` shows them"
    assert (after["tripped lists"], after["staged lists"]) == (shown, shown)
    record = json.loads(run("status", "--json").stdout)
    assert (record["tripped"], record["staged"]) == (["test"], ["fresh"])
    file.path.write_bytes(b"{")
    damaged = run("status")
    assert damaged.exit_code == 4
    assert rows(damaged.stdout)["tripped lists"] == "unknown, so all count as tripped"
    assert "lists reset --all" in damaged.stderr


def test_match_services_are_shown_with_what_they_owe(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP_PASSWORD", "made-up")
    assert "match service" not in run("status").stdout
    table = 'kind = "eokm"\nusername = "host"\npassword_env = "MADE_UP_PASSWORD"\n'
    first, second = f'[matchers.first]\n{table}on_failure = "block"\n', f"[matchers.second]\n{table}"
    config = deployment.path / "uploadguard.toml"
    config.write_text(f'plugins = ["eokm"]\n[ledger]\npath = "ledger"\n{first}{second}mode = "prefetch"\n')
    assert run("ledger", "upgrade").exit_code == 0
    assert json.loads(run("status", "--json").stdout)["late"] == {}
    with closing(sqlite3.connect("ledger/late.db")) as connection, connection:
        put = "insert into late (reference, matcher, record, created, next_at) values (?, ?, '{}', 0, 0)"
        connection.executemany(put, [("a", "second"), ("b", "second"), ("b", "gone")])
    result = run("status")
    assert result.exit_code == 0
    assert "first: inline; block where it does not answer\n" in result.stdout
    assert "second: prefetch; queue where it does not answer; 2 answer(s) still to come\n" in result.stdout
    assert "no longer configured: 1 answer(s) still to come" in result.stdout
    record = json.loads(run("status", "--json").stdout)
    assert record["matchers"]["second"] == {"mode": "prefetch", "on_failure": "queue"}
    assert record["late"] == {"second": 2, "gone": 1}


def test_an_empty_hash_set_that_may_be_empty_is_a_warning(empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADGUARD_HASHSET__ALLOW_EMPTY", "true")
    result = run("status")
    assert result.exit_code == 0
    assert "nothing but the test list can match" in result.stderr
    checked = json.loads(run("config", "check", "--json").stdout)
    assert any("nothing but the test list can match" in warning for warning in checked["warnings"])
    assert empty.path.exists()


def test_a_stale_hash_set_is_a_warning(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hash_set_stale" not in run("status").stderr
    assert "hash_set_stale" not in run("config", "check", "--json").stdout
    monkeypatch.setenv("UPLOADGUARD_HASHSET__STALE_AFTER_H", "0.0000001")
    result = run("status")
    assert result.exit_code == 4, "checks are answered, but all of them queue"
    assert rows(result.stdout)["ready"] == "yes, but every check fails: stale"
    assert "hash_set_stale" in result.stderr
    checked = run("config", "check", "--json")
    assert checked.exit_code == 0
    assert any("hash_set_stale" in warning for warning in json.loads(checked.stdout)["warnings"])
    assert deployment.path.exists()


def test_a_codec_with_a_known_hole_is_named(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "codec_versions", lambda: {"libwebp": "1.3.1"})
    result = run("status")
    assert result.exit_code == 0
    assert "libwebp 1.3.1 has CVE-2023-4863" in " ".join(result.stderr.split())
    assert json.loads(run("status", "--json").stdout)["known_holes"]
    assert deployment.path.exists()
