"""``uploadguard hashset``: verify, stats, compact, rollback; what they print, and what they leave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry

KINDS = {"md5": (16, 0), "sha1": (20, 0), "sha256": (32, 0), "pdq": (32, 31)}


def opened() -> HashSet:
    return HashSet.open("hashset")


def update(*removed: str) -> None:
    opened().update_list("test", [ListEntry("another", (("md5", bytes(16)),))], removed, KINDS)


def table(text: str) -> dict[str, str]:
    return dict(re.split(r" {2,}", line)[:2] for line in text.splitlines() if "  " in line)


def test_verify_says_that_all_is_in_order(deployment: Deployment) -> None:
    result = run("hashset", "verify")
    assert result.exit_code == Exit.OK
    assert table(result.stdout) == {"Hash set": "all in order", "generation": "1", "segments": "1", "problems": "0"} | {
        "size": table(result.stdout)["size"]
    }


def test_verify_names_a_damaged_file(deployment: Deployment) -> None:
    (path,) = Path("hashset").glob("segment-*")
    (Path("hashset") / ".segment-9-0123456789abcdef.ugs.aa.tmp").touch()
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    result = run("hashset", "verify")
    assert result.exit_code == Exit.ERROR
    assert f"{path.name}: its section" in result.stderr
    assert table(result.stdout)["problems"] == "1"
    assert table(result.stdout)["leftovers"].startswith("1:")
    record = json.loads(run("hashset", "verify", "--json").stdout)
    assert (record["ok"], len(record["problems"]), len(record["leftovers"])) == (False, 1, 1)
    assert record["problems"][0]["file"] == path.name
    assert record["problems"][0]["in_force"] is True
    path.unlink()
    assert "is missing" in run("hashset", "verify").stderr


def test_stats_count_by_list_and_signal_type(deployment: Deployment) -> None:
    update("testpicture")
    text = run("hashset", "stats").stdout
    assert "previous    1, 0;" in text
    row = next(line for line in text.splitlines() if line.startswith("test "))
    assert re.split(r" {2,}", row)[:6] == ["test", "md5", "1", "1", "1", "2"]
    (record,) = json.loads(run("hashset", "stats", "--json").stdout)["lists"]
    assert (record["entries"], record["dead_entries"], record["hashes"]) == (1, 1, {"md5": 1})
    assert record["buckets"]["pdq"] == {
        "lines": 0, "rows": 0, "fullest_line": 0, "overflowing_lines_share": 0.0, "overflowing_rows_share": 0.0,
    }  # fmt: skip


def test_compact_drops_what_was_removed(deployment: Deployment) -> None:
    update("testpicture")
    record = json.loads(run("hashset", "compact", "--keep-previous", "--json").stdout)
    assert (record["lists"], record["dead_entries"], record["kept_previous"]) == (1, 1, True)
    assert opened().previous_generations == (1, 0)
    result = run("hashset", "compact")
    assert table(result.stdout)["previous generations"] == "dropped"
    assert opened().previous_generations == ()
    assert run("check", "listed.jpg").exit_code == Exit.OK
    on_disk = b"".join(path.read_bytes() for path in Path("hashset").glob("segment-*"))
    assert b"testpicture" not in on_disk


def test_rollback_brings_a_generation_back_and_can_be_taken_back(deployment: Deployment) -> None:
    update("testpicture")
    assert run("check", "listed.jpg").exit_code == Exit.OK
    result = run("hashset", "rollback", "--yes")
    assert result.stdout == "Generation 1 is in force again, as generation 3, in place of 2.\n"
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK
    assert json.loads(run("hashset", "rollback", "--yes", "--json").stdout) == {
        "generation": 4,
        "restored": 2,
        "replaced": 3,
    }
    assert run("check", "listed.jpg").exit_code == Exit.OK
    result = run("hashset", "rollback", "--to", "0", "--yes")
    assert result.exit_code == Exit.OK
    assert "no list to match uploads against is left" in result.stderr


def test_rollback_asks(deployment: Deployment) -> None:
    result = run("hashset", "rollback")
    assert result.exit_code == Exit.USAGE
    assert "give --yes" in result.stderr
    assert opened().generation == 1


@pytest.mark.parametrize("options", [["--to", "7"], []])
def test_there_may_be_nothing_to_go_back_to(deployment: Deployment, options: list[str]) -> None:
    run("hashset", "compact")
    result = run("hashset", "rollback", "--yes", *options)
    assert result.exit_code == Exit.ERROR
    assert "to go back to" in result.stderr


def test_a_removed_list_can_be_purged(deployment: Deployment) -> None:
    run("lists", "remove", "test", "--yes")
    assert list(Path("hashset").glob("segment-*"))
    assert run("hashset", "rollback", "--yes").exit_code == Exit.OK
    run("lists", "remove", "test", "--yes", "--purge")
    assert not list(Path("hashset").glob("segment-*"))


@pytest.mark.parametrize(("keep", "kept"), [("0", ()), ("1", (2,)), ("3", (2, 1, 0))])
def test_the_settings_say_how_many_generations_are_kept(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, keep: str, kept: tuple[int, ...]
) -> None:
    monkeypatch.setenv("UPLOADGUARD_HASHSET__KEEP_PREVIOUS", keep)
    update("testpicture")
    deployment.write("more.txt", b"0123456789abcdef0123456789abcdef")
    assert run("lists", "add", "more", "more.txt", "--signal-type", "md5").exit_code == Exit.OK
    assert opened().previous_generations == kept
    assert len(list(Path("hashset").glob("segment-*"))) == len(opened()._files.read().files())
