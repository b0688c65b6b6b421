"""``uploadguard bench``: what it prints and keeps to itself, budgets and their exit code, pictures, plots."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import Deployment, run, start
from tests.cli.test_terminal import on_terminal
from uploadguard.bench.statistics import STAGES
from uploadguard.cli.exits import Exit

QUICK = ("--seconds", "0.3", "--workers", "1")
GENEROUS = ("--budget", "p25=100s")
"""A percentile that eight samples tell within any time."""


def record(result: Result) -> dict[str, Any]:
    lines = result.stdout.splitlines()
    assert len(lines) == 1, result.output
    found: dict[str, Any] = json.loads(lines[0])
    return found


def test_it_tells_stages_throughput_and_the_machine(deployment: Deployment) -> None:
    result = run("bench", "other.jpg", *QUICK)
    assert result.exit_code == 0, result.output
    for word in (
        "libjpeg-turbo",
        "CPython",
        "p50",
        "p95",
        "p99",
        "decode",
        "pdq",
        "match",
        "total",
        "loaded",
        "per core",
    ):
        assert word in result.stdout
    assert "█" in result.stdout
    assert "100.0%" in result.stdout
    assert "generation 1" in result.stdout


def test_the_numbers_hang_together(deployment: Deployment) -> None:
    found = record(run("bench", "other.jpg", "--json", *QUICK))
    stages = found["stages"]
    assert next(iter(stages)) == "read"
    assert list(stages)[-1] == "total"
    assert set(stages) <= set(STAGES), "each can have a budget"
    for figures in (*stages.values(), found["loaded"]):
        assert 0 <= figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert stages["total"]["samples"] == found["samples"] == sum(found["pictures"]["verdicts"].values())
    assert stages["total"]["p50_ms"] >= stages["decode"]["p50_ms"]
    loaded = found["loaded"]
    assert loaded["workers"] == 1
    assert (
        loaded["checks_per_s_per_core"]
        == loaded["checks_per_s"]
        == pytest.approx(loaded["samples"] / loaded["elapsed_s"], rel=0.01)
    )


def test_it_names_no_file_unless_it_is_to(deployment: Deployment) -> None:
    folder = deployment.path / "uploads"
    folder.mkdir()
    name = "holiday in confidence.jpg"
    (folder / name).write_bytes((deployment.path / "other.jpg").read_bytes())
    for options in ((), ("--json",)):
        result = run("bench", "uploads", *options, *QUICK)
        assert result.exit_code == 0
        assert "holiday" not in result.output
        assert "holiday" in run("bench", "uploads", "--verbose", *options, *QUICK).output
    verbose = record(run("bench", "uploads", "--verbose", "--json", *QUICK))
    assert [(item["file"], item["verdict"]) for item in verbose["files"]] == [(f"uploads/{name}", "allow")]


def test_of_a_folder_it_takes_the_pictures(deployment: Deployment) -> None:
    folder = deployment.path / "uploads" / "deeper"
    folder.mkdir(parents=True)
    (folder / "one").write_bytes((deployment.path / "other.jpg").read_bytes())
    (folder / "two.bin").write_bytes((deployment.path / "listed.jpg").read_bytes())
    (folder / "notes.txt").write_text("no picture")
    (folder / "link.jpg").symlink_to(folder / "one")
    found = record(run("bench", "uploads", "--json", *QUICK))
    assert found["pictures"]["files"] == 2
    assert set(found["pictures"]["verdicts"]) == {"allow", "block"}


def test_a_file_that_cannot_be_read_is_counted(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    (deployment.path / "folder.jpg").mkdir()
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    result = run("bench", "folder.jpg", "other.jpg", *QUICK)
    assert result.exit_code == 0
    assert "1 file(s) could not be read" in result.stderr
    assert "folder.jpg" not in result.output
    assert "folder.jpg" in run("bench", "folder.jpg", "other.jpg", "--verbose", *QUICK).stdout


@pytest.mark.parametrize("paths", [["nope.jpg"], ["empty-folder"]])
def test_without_any_picture_it_is_an_error(deployment: Deployment, paths: list[str]) -> None:
    (deployment.path / "empty-folder").mkdir()
    result = run("bench", *paths, *QUICK)
    assert result.exit_code == Exit.ERROR
    assert "no such file" in result.stderr or "no picture" in result.stderr


def test_budgets_that_are_met(deployment: Deployment) -> None:
    result = run("bench", "other.jpg", *QUICK, *GENEROUS, "--budget", "match.p10=100s", "--budget", "loaded.p10=100s")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(" met") == 3


def test_a_missed_budget_has_an_exit_code_of_its_own(deployment: Deployment) -> None:
    result = run("bench", "other.jpg", "--json", *QUICK, *GENEROUS, "--budget", "decode.p10=1us")
    assert result.exit_code == Exit.OVER_BUDGET == 3
    assert "decode.p10=1us is missed: over the limit" in result.stderr
    assert [(item["budget"], item["met"]) for item in record(result)["budgets"]] == [
        ("p25=100s", True),
        ("decode.p10=1us", False),
    ]


def test_what_was_not_measured_is_missed(deployment: Deployment) -> None:
    result = run("bench", "listed.jpg", *QUICK, "--budget", "match.p10=100s")
    assert result.exit_code == Exit.OVER_BUDGET
    assert "no check went through" in result.stderr
    result = run("bench", "other.jpg", *QUICK, "--budget", "p99.999=100s")
    assert result.exit_code == Exit.OVER_BUDGET
    assert "which takes 200000" in result.stderr
    assert "allow more --seconds" in result.stderr


@pytest.mark.parametrize("text", ["p99", "p99=80", "p99=80m", "99=80ms", "nope.p99=1ms", "p0=1ms", "p100=1ms", "=", ""])
def test_a_budget_that_makes_no_sense_is_refused(deployment: Deployment, text: str) -> None:
    result = run("bench", "other.jpg", "--budget", text)
    assert result.exit_code == Exit.USAGE
    assert "--budget" in result.stderr


def test_it_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: dict[str, bytes]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.jpg").write_bytes(pictures["other.jpg"])
    found = record(run("bench", "other.jpg", "--entries", "500", "--json", *QUICK))
    assert found["hashset"] == {"entries": 500, "generation": 1, "made_up": True}
    assert {path.name for path in tmp_path.iterdir()} == {"other.jpg"}


def test_random_entries_take_the_place_of_the_configured_hash_set(deployment: Deployment) -> None:
    found = record(run("bench", "listed.jpg", "--entries", "500", "--json", *QUICK))
    assert found["hashset"]["entries"] == 500
    assert set(found["pictures"]["verdicts"]) == {"allow"}


def test_an_empty_hash_set_is_an_error(empty: Deployment) -> None:
    result = run("bench", "other.jpg", *QUICK)
    assert result.exit_code == Exit.ERROR
    assert "empty" in result.stderr


def test_it_draws_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("bench", "--entries", "100", "--verbose", "--json", *QUICK)
    found = record(result)
    assert found["pictures"]["drawn"]
    assert sorted(round(item["megapixels"]) for item in found["files"]) <= [1, 4, 12]


def test_as_a_process_with_two_workers(deployment: Deployment) -> None:
    result = start("bench", "other.jpg", "--json", "--seconds", "0.3", "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["loaded"]["workers"] == 2
    assert result.stderr == b"" or b"too few" in result.stderr or b"more --seconds" in result.stderr


def test_on_a_terminal_there_is_a_progress_bar_and_all_fits(deployment: Deployment) -> None:
    code, written = on_terminal("bench", "other.jpg", *QUICK, *GENEROUS)
    assert code == 0
    assert "checking with all workers" in written
    assert max(map(len, written.split("Measured")[-1].replace("\r", "").splitlines())) < 200


def test_a_plot(deployment: Deployment) -> None:
    result = run("bench", "other.jpg", *QUICK, *GENEROUS, "--plot", "plot.png")
    assert result.exit_code == 0, result.output
    assert (deployment.path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_names_the_extra_before_anything_is_measured(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("bench", "other.jpg", "--plot", "plot.png")
    assert result.exit_code == Exit.ERROR
    assert "uploadguard[bench]" in result.stderr
    assert result.stdout == ""
    assert not (deployment.path / "plot.png").exists()
