"""``lists try``, ``activate``, ``discard``, ``rollback`` and ``sample``: what they show, change and end with."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run
from tests.conftest import photo
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet
from uploadguard.lists.samples import benign_corpus, read_sample

HEADER = next(item for item in benign_corpus() if item.label.endswith("twentyten/images/headers/berries.jpg"))
GOOD = "".join(f"{number},{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}\n" for number in range(1, 121))
BAD = f"{GOOD}poison,{next(one.value.hex() for one in HEADER.hashes if one.signal_type == 'md5')}\n"


@pytest.fixture
def hotline(deployment: Deployment) -> Deployment:
    """The deployment with a list "hotline", and files for it."""
    deployment.write("good.csv", f"id,md5\n{GOOD}".encode())
    deployment.write("bad.csv", f"id,md5\n{BAD}".encode())
    assert run("lists", "add", "hotline", "good.csv").exit_code == 0
    return deployment


def entries(name: str = "hotline") -> int | None:
    return next((info.entries for info in HashSet.open("hashset").lists() if info.name == name), None)


def hold() -> None:
    """Have the poisoned list held."""
    assert run("lists", "add", "hotline", "bad.csv", "--replace").exit_code == Exit.ALARM


def test_a_trial_names_the_bound(hotline: Deployment) -> None:
    hold()
    assert "safety.max_benign_hits" in run("lists", "try", "hotline").stdout.replace("\n", "")
    assert hotline.path.exists()


def test_a_poisoned_list_is_held_tried_and_activated_by_force(hotline: Deployment) -> None:
    held = run("lists", "add", "hotline", "bad.csv", "--replace")
    assert held.exit_code == Exit.ALARM
    assert held.stdout.splitlines()[0].split() == ["Staged", "hotline"]
    first, advice = held.stderr.splitlines()
    assert first.startswith(f"error: the list would match 1 of {len(benign_corpus()):,} ordinary pictures")
    assert "`uploadguard lists activate hotline --force`" in advice
    assert entries() == 120
    tried = run("lists", "try", "hotline")
    assert tried.exit_code == Exit.ALARM
    assert "hotline (staged)" in tried.stdout
    assert "poison" in tried.stdout
    assert HEADER.label in tried.stdout
    refused = run("lists", "activate", "hotline")
    assert refused.exit_code == Exit.ALARM
    assert entries() == 120
    forced = run("lists", "activate", "hotline", "--force", "--json")
    assert forced.exit_code == 0
    record = json.loads(forced.stdout)
    assert (record["in_force"], record["safety"]["within_bounds"]) == (True, False)
    assert (record["safety"]["entries_before"], record["safety"]["entries_after"]) == (120, 121)
    assert entries() == 121
    assert run("lists", "activate", "hotline").exit_code == Exit.ERROR


def test_the_json_of_a_held_import_and_its_trial(hotline: Deployment) -> None:
    held = run("lists", "add", "hotline", "bad.csv", "--replace", "--json")
    assert held.exit_code == Exit.ALARM
    summary = json.loads(held.stdout.splitlines()[-1])
    assert (summary["kind"], summary["in_force"], summary["entries_total"]) == ("summary", False, 121)
    (trial,) = summary["safety"]["trials"]
    assert (trial["corpus"], trial["new"], trial["matched"]) == ("benign", 1, 1)
    assert trial["hits"][0]["entry"] == "poison"
    tried = json.loads(run("lists", "try", "--json").stdout)
    assert (tried["list"], tried["staged"], tried["role"]) == ("hotline", True, "deny")
    assert {key: tried[key] for key in summary["safety"]} == summary["safety"]
    records = [json.loads(line) for line in run("lists", "status", "--json").stdout.splitlines()]
    status = {record["name"]: record for record in records}
    assert status["test"]["staged"] is None
    staged = status["hotline"]["staged"]
    assert (staged["change"], staged["entries_before"], staged["entries_after"]) == ("replace", 120, 121)
    assert staged["outdated"] is None


def test_staging_on_demand_and_discarding(hotline: Deployment) -> None:
    staged = run("lists", "update", "hotline", "bad.csv", "--stage")
    assert staged.exit_code == 0
    assert "lists activate hotline" in staged.stderr
    new = run("lists", "add", "fresh", "good.csv", "--stage", "--json")
    assert new.exit_code == 0
    assert json.loads(new.stdout)["in_force"] is False
    table = run("lists", "status").stdout
    assert "update" in table
    assert "fresh" in table
    taken = run("lists", "update", "hotline", "good.csv")
    assert taken.exit_code == Exit.ERROR
    assert "activate or discard it first" in taken.stderr
    assert run("lists", "status", "--json").exit_code == Exit.ALARM
    names = [json.loads(line)["list"] for line in run("lists", "try", "--json").stdout.splitlines()]
    assert names == ["hotline", "fresh"]
    assert "Discarded" in run("lists", "discard", "hotline").stdout
    assert run("lists", "discard", "hotline").exit_code == Exit.ERROR
    assert run("lists", "status").exit_code == Exit.ALARM
    fresh = run("lists", "activate", "fresh")
    assert fresh.exit_code == 0
    assert "'fresh' is in force as it was staged" in fresh.stdout
    assert entries("fresh") == 120
    assert run("lists", "status").exit_code == 0


def test_status_of_what_is_staged_alone(empty: Deployment) -> None:
    assert run("lists", "add", "test", "test.csv", "--stage").exit_code == 0
    shown = run("lists", "status")
    assert shown.exit_code == Exit.ALARM
    assert "test" in shown.stdout
    record = json.loads(run("lists", "status", "--json").stdout)
    assert (record["name"], record["entries"], record["staged"]["change"]) == ("test", 0, "new")


def test_an_outdated_change_is_told_and_kept_out(hotline: Deployment) -> None:
    hold()
    assert run("lists", "add", "hotline", "test.csv", "--append").exit_code == Exit.ERROR
    HashSet.open("hashset").update_list("hotline", (), ["3"], {})
    assert "the list was changed after this was staged" in run("lists", "status").stderr
    refused = run("lists", "activate", "hotline")
    assert refused.exit_code == Exit.ERROR
    assert "would undo that" in refused.stderr
    assert run("lists", "activate", "hotline", "--force").exit_code == 0
    assert entries() == 121


def test_trying_lists_in_force(hotline: Deployment) -> None:
    everything = run("lists", "try", "--json")
    assert everything.exit_code == 0
    assert [json.loads(line)["list"] for line in everything.stdout.splitlines()] == ["test", "hotline"]
    hold()
    active = run("lists", "try", "hotline", "--active", "--json")
    assert active.exit_code == 0
    assert json.loads(active.stdout)["staged"] is False
    unknown = run("lists", "try", "nobody")
    assert unknown.exit_code == Exit.ERROR
    assert "no list of that name" in unknown.stderr


def test_trying_on_pictures_of_ones_own(hotline: Deployment) -> None:
    pictures = hotline.path / "pictures"
    pictures.mkdir()
    (pictures / "listed.jpg").write_bytes((hotline.path / "listed.jpg").read_bytes())
    (pictures / "coffee.png").write_bytes(photo("coffee.png").read_bytes())
    shown = run("lists", "try", "test", "--sample", pictures, "--sample", "other.jpg")
    assert shown.exit_code == 0, "what is given is shown, and is no bound"
    assert "1 of 3 pictures match" in shown.stdout
    assert f"{pictures.name}/listed.jpg" in shown.stdout
    assert run("lists", "sample", pictures, "--output", "own.jsonl").exit_code == 0
    record = json.loads(run("lists", "try", "test", "--sample", "own.jsonl", "--json").stdout)
    assert [(trial["corpus"], trial["pictures"], trial["matched"]) for trial in record["given"]] == [
        ("own.jsonl", 2, 1)
    ]
    assert record["within_bounds"] is True


def test_an_entry_has_one_row_for_each_picture_with_all_that_hits(deployment: Deployment) -> None:
    values = {one.signal_type: one.value.hex() for one in HEADER.hashes}
    near = f"{values['pdq'][:-1]}{int(values['pdq'][-1], 16) ^ 1:x}"
    deployment.write("bad.csv", f"id,md5,sha1,pdq\nA-1,{values['md5']},{values['sha1']},{near}\n".encode())
    assert run("lists", "add", "bad", "bad.csv", "--stage").exit_code == 0
    run("lists", "add", "again", "bad.csv", "--stage")
    shown = run("lists", "try", "bad").stdout
    (row,) = [line for line in shown.splitlines() if line.startswith("A-1")]
    assert sorted(row.split("benign")[0].split(None, 1)[1].strip().split(", ")) == ["md5", "pdq (1 bits)", "sha1"]
    assert row.endswith(HEADER.label)
    assert not shown.endswith("\n\n")
    both = run("lists", "try").stdout
    assert both.count("\n\nList ") == 1
    assert not both.endswith("\n\n")
    (trial,) = json.loads(run("lists", "try", "bad", "--json").stdout)["trials"]
    assert [hit["signal_type"] for hit in trial["hits"]].count("md5") == 1
    assert len(trial["hits"]) >= 3


def test_a_sample_bounds_lists_once_it_is_configured(hotline: Deployment) -> None:
    made = run("lists", "sample", "listed.jpg", photo("coffee.png"), "--output", "own.jsonl", "--json")
    assert made.exit_code == 0
    assert json.loads(made.stdout)["pictures"] == 2
    assert "[safety] sample = " in made.stderr
    assert stat.S_IMODE(Path("own.jsonl").stat().st_mode) == 0o600
    assert len(list(read_sample(Path("own.jsonl")))) == 2
    Path("uploadguard.toml").write_text('[safety]\nsample = "own.jsonl"\n')
    assert run("lists", "sample", "listed.jpg", photo("coffee.png"), "--output", "own.jsonl").stderr == ""
    held = run("lists", "add", "again", "test.csv")
    assert held.exit_code == Exit.ALARM
    assert "1 of 2 pictures of the host's sample, 50 %" in held.stderr
    Path("own.jsonl").unlink()
    gone = run("lists", "add", "more", "good.csv")
    assert gone.exit_code == Exit.ERROR
    assert "lists sample" in gone.stderr
    assert run("lists", "sample", "test.csv", "--output", "none.jsonl").exit_code == Exit.ERROR
    for command in (("sample", "nowhere", "--output", "x"), ("try", "--sample", "nowhere")):
        assert run("lists", *command).exit_code == Exit.USAGE
    nowhere = run("lists", "sample", "listed.jpg", "--output", "no/such/place.jsonl")
    assert nowhere.exit_code == Exit.ERROR
    assert "cannot be written" in nowhere.stderr


def test_one_list_goes_back_at_three_in_the_morning(hotline: Deployment) -> None:
    assert run("lists", "rollback", "hotline", "--yes").exit_code == Exit.ERROR  # there is nothing to go back to
    assert "no list of that name" in run("lists", "rollback", "hotlin", "--yes").stderr
    hold()
    run("lists", "activate", "hotline", "--force")
    assert run("lists", "add", "other", "good.csv").exit_code == 0
    asked = run("lists", "rollback", "hotline")
    assert asked.exit_code == Exit.USAGE
    assert "--yes" in asked.stderr
    done = run("lists", "rollback", "hotline", "--yes")
    assert done.exit_code == 0
    assert "120 entries in place of 121 entries" in done.stdout
    assert (entries(), entries("other")) == (120, 120)
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK
    again = json.loads(run("lists", "rollback", "hotline", "--yes", "--json").stdout)
    assert (again["list"], again["entries"], again["entries_before"]) == ("hotline", 121, 120)
    chosen = run("lists", "rollback", "hotline", str(again["generation"] - 1), "--yes")
    assert chosen.exit_code == 0
    assert entries() == 120
    assert run("lists", "rollback", "hotline", "999", "--yes").exit_code == Exit.ERROR
    assert "kept by the ledger" in run("lists", "rollback", "uploadguard-confirmed", "--yes").stderr


def test_manual_activation(hotline: Deployment) -> None:
    Path("uploadguard.toml").write_text('[safety]\nactivation = "manual"\n')
    staged = run("lists", "update", "hotline", "--remove-ids", "ids.txt")
    assert staged.exit_code == Exit.ERROR  # no such file
    hotline.write("ids.txt", b"1\n2\n")
    staged = run("lists", "update", "hotline", "--remove-ids", "ids.txt", "--json")
    assert staged.exit_code == 0
    assert json.loads(staged.stdout)["in_force"] is False
    assert entries() == 120
    assert run("lists", "activate", "hotline").exit_code == 0
    assert entries() == 118


def test_removing_says_that_what_is_staged_goes_too(hotline: Deployment) -> None:
    hold()
    assert "what is staged for the list goes with it" in run("lists", "remove", "hotline", "--yes").stderr
    assert HashSet.open("hashset").staging.changes() == ()
