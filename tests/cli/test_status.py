"""``uploadguard status``."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.media import codecs


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


def test_a_stale_hash_set_is_a_warning(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hash_set_stale" not in run("status").stderr
    assert "hash_set_stale" not in run("config", "check", "--json").stdout
    monkeypatch.setenv("UPLOADGUARD_HASHSET__STALE_AFTER_H", "0.0000001")
    result = run("status")
    assert result.exit_code == 0, "checks are answered: they queue"
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
