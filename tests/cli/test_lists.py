"""``lists add``, ``status``, ``remove``: what is imported, what is reported, and what a failure leaves behind."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run, start
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet

MD5_LINES = [f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for number in range(1, 101)]


def md5_file(*extra: str) -> bytes:
    return "\n".join([*MD5_LINES, *extra, ""]).encode()


def generation() -> int:
    return HashSet.open("hashset").generation


def assert_unchanged(before: int) -> None:
    """The old generation is in force, nothing is left over, and checks answer."""
    assert generation() == before
    assert not list(Path("hashset").glob(".*.tmp"))
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK


def test_an_import_sums_up(deployment: Deployment) -> None:
    deployment.write("more.txt", md5_file("nonsense", "1234"))
    result = run("lists", "add", "more", "more.txt")
    assert result.exit_code == 0
    table = dict(re.split(r" {2,}", line) for line in result.stdout.splitlines())
    assert table["Imported"] == "more"
    assert table["entries"] == "100"
    assert table["md5 hashes"] == "100"
    assert table["bad lines"] == "2"
    assert table["generation"] == str(generation())
    assert result.stderr.splitlines() == [
        "more.txt:101: 8 characters: not a hash of any registered signal type",
        "more.txt:102: 4 characters: not a hash of any registered signal type",
    ]


def test_twenty_bad_lines_are_shown_and_all_are_counted(deployment: Deployment) -> None:
    deployment.write("more.txt", md5_file(*["nonsense"] * 50))
    result = run("lists", "add", "more", "more.txt")
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[19].startswith("more.txt:120: ")
    assert lines[20] == "... and 30 more bad lines; --json shows all"


def test_json_has_all_bad_lines_and_a_summary(deployment: Deployment) -> None:
    deployment.write("more.txt", md5_file(*["nonsense"] * 50))
    result = run("lists", "add", "more", "more.txt", "--json")
    assert result.stderr == ""
    *bad, summary = map(json.loads, result.stdout.splitlines())
    assert [record["line"] for record in bad] == list(range(101, 151))
    assert {record["kind"] for record in bad} == {"bad_line"}
    assert {record["file"] for record in [*bad, summary]} == {"more.txt"}
    assert (summary["kind"], summary["bad_lines"], summary["entries"]) == ("summary", 50, 100)
    assert (summary["list"], summary["role"], summary["format"]) == ("more", "deny", "txt")


def test_hashes_of_unregistered_signal_types_are_counted_apart(deployment: Deployment) -> None:
    deployment.write("mixed.csv", f"md5,photodna\n{MD5_LINES[0]},{'ab' * 144}\n".encode())
    result = run("lists", "add", "mixed", "mixed.csv", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["bad_lines"] == 0
    assert summary["ignored_hashes"] == {"no signal type 'photodna' is registered here": 1}
    assert "photodna" in run("lists", "add", "mixed", "mixed.csv", "--replace").stdout


def test_strict_stops_at_the_first_bad_line(deployment: Deployment) -> None:
    before = generation()
    deployment.write("more.txt", md5_file("nonsense", "worse"))
    result = run("lists", "add", "more", "more.txt", "--strict")
    assert result.exit_code == 1
    assert "error: more.txt:101: 8 characters" in result.stderr
    assert "nothing was imported" in result.stderr
    assert ":102:" not in result.stderr
    assert_unchanged(before)


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (b"", [], "no entry with a hash"),
        (b"nothing\nof use\n", ["--format", "txt"], "no entry with a hash"),
        (md5_file(), ["--format", "xls"], "there is no list format 'xls'"),
        (md5_file(), ["--format", "vics"], "more.txt"),
        (b"\x00\x01\x02\xff" * 500, [], "more.txt"),
        (gzip.compress(md5_file())[:-20], [], "gzip data is damaged"),
    ],
)
def test_files_that_are_no_list_are_refused(
    deployment: Deployment, data: bytes, options: list[str], reason: str
) -> None:
    before = generation()
    deployment.write("more.txt", data)
    result = run("lists", "add", "more", "more.txt", *options)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert all(char.isprintable() for char in result.stderr.replace("\n", ""))
    assert_unchanged(before)


@pytest.mark.parametrize(("name", "reason"), [("gone.txt", "no such file"), ("hashset", "is a directory")])
def test_files_that_cannot_be_opened(deployment: Deployment, name: str, reason: str) -> None:
    result = run("lists", "add", "more", name)
    assert result.exit_code == 1
    assert reason in result.stderr


def test_a_name_is_taken_unless_told_what_to_do(deployment: Deployment) -> None:
    deployment.write("more.txt", md5_file())
    deployment.write("one.txt", md5_file()[:33])
    assert run("lists", "add", "more", "more.txt").exit_code == 0
    taken = run("lists", "add", "more", "one.txt")
    assert taken.exit_code == 1
    assert taken.stderr == (
        "error: there is a list 'more' already: --replace puts the file in its place, --append adds to it\n"
    )
    assert run("lists", "add", "more", "one.txt", "--append", "--replace").exit_code == 2
    appended = run("lists", "add", "more", "one.txt", "--append")
    assert "101 entries" in appended.stdout
    assert "added to" in appended.stdout
    other = run("lists", "add", "other", "one.txt", "--append")
    assert re.search("^list +new list$", other.stdout, re.MULTILINE)
    assert json.loads(run("lists", "add", "third", "one.txt", "--replace", "--json").stdout)["new_list"] is True
    shrunk = run("lists", "add", "more", "one.txt", "--replace")
    assert shrunk.exit_code == 4
    assert "from 101 to 1 entries (hashset.max_shrink_percent is 50)" in shrunk.stderr
    replaced = json.loads(run("lists", "add", "more", "one.txt", "--replace", "--allow-shrink", "--json").stdout)
    assert (replaced["entries"], replaced["entries_total"]) == (1, 1)


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 65, ".hidden"])
def test_names_that_are_none(deployment: Deployment, name: str) -> None:
    result = run("lists", "add", name, "test.csv")
    assert result.exit_code == 1
    assert "not a name for a list" in result.stderr


def test_an_allow_list_lets_a_listed_file_pass(deployment: Deployment) -> None:
    result = run("lists", "add", "reviewed", "test.csv", "--allow")
    assert "allow" in result.stdout
    assert run("check", "listed.jpg").exit_code == Exit.OK
    wrong = run("lists", "add", "reviewed", "test.csv", "--append")
    assert wrong.exit_code == 1
    assert "the list 'reviewed' is an allow-list: give --allow" in wrong.stderr
    assert "append to it without --allow" in run("lists", "add", "test", "test.csv", "--append", "--allow").stderr


def test_a_failure_is_an_object_too(deployment: Deployment) -> None:
    before = generation()
    items = [{"MediaID": number, "MD5": md5} for number, md5 in enumerate(MD5_LINES[:3], 1)]
    text = json.dumps({"value": [*items[:2], {"MediaID": 3, "MD5": "oops"}, items[2]]})
    deployment.write("cut.json", text[:-10].encode())
    result = run("lists", "add", "more", "cut.json", "--json")
    assert result.exit_code == 1
    bad, error = map(json.loads, result.stdout.splitlines())
    assert (bad["kind"], bad["file"], bad["item"]) == ("bad_line", "cut.json", 3)
    reason = "cut.json: not JSON, or broken off, in item 4; nothing was imported"
    assert error == {"kind": "error", "file": "cut.json", "error": reason}
    assert result.stderr == f"error: {reason}\n"
    assert_unchanged(before)
    plain = run("lists", "add", "more", "cut.json").stderr.splitlines()
    assert plain[0] == "cut.json: item 3: md5: expected 32 hex digits, found 4 characters"
    deployment.write("whole.json", text.encode())
    strict = run("lists", "add", "more", "whole.json", "--strict").stderr
    assert "error: whole.json: item 3: md5: expected 32 hex digits" in strict
    assert "nothing was imported" in strict
    gone = run("lists", "add", "test", "gone.csv", "--json")
    assert json.loads(gone.stdout)["kind"] == "error"


def test_columns_that_are_not_there_are_one_error(deployment: Deployment) -> None:
    rows = "".join(f"{index};n;;;{md5}\n" for index, md5 in enumerate(MD5_LINES))
    deployment.write("table.csv", f"Nr;Name;a;b;Checksum\n{rows}".encode())
    unknown = run("lists", "add", "table", "table.csv")
    assert "--column md5=Nr; the headings are: Nr, Name, a, b, Checksum; nothing was imported" in unknown.stderr
    result = run("lists", "add", "table", "table.csv", "--column", "sha1=9")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "there is no column 9: the table has 5" in result.stderr
    assert run("lists", "add", "table", "table.csv", "--column", "md5=5", "--strict").exit_code == 0


def test_columns_and_delimiter(deployment: Deployment) -> None:
    rows = "".join(f"case-{index}\N{VULGAR FRACTION ONE HALF}{md5}\n" for index, md5 in enumerate(MD5_LINES))
    deployment.write("table.csv", f"Name\N{VULGAR FRACTION ONE HALF}Sum\n{rows}".encode())
    options = ["--format", "csv", "--delimiter", "\N{VULGAR FRACTION ONE HALF}"]
    result = run("lists", "add", "table", "table.csv", *options, "--column", "md5=Sum", "--column", "id=1", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["hashes"] == {"md5": 100}


@pytest.mark.parametrize("column", ["md5", "=3", "md5="])
def test_a_column_is_key_and_column(deployment: Deployment, column: str) -> None:
    assert run("lists", "add", "table", "test.csv", "--column", column).exit_code == 2


def test_a_column_given_twice_or_of_no_signal_type(deployment: Deployment) -> None:
    assert run("lists", "add", "x", "test.csv", "--column", "md5=md5", "--column", "md5=pdq").exit_code == 2
    unknown = run("lists", "add", "x", "test.csv", "--signal-type", "md6")
    assert unknown.exit_code == 2
    assert "pdq" in unknown.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(deployment: Deployment, packed: bool) -> None:
    data = gzip.compress(md5_file("nonsense")) if packed else md5_file("nonsense")
    result = start("lists", "add", "more", "-", input=data)
    assert result.returncode == 0, result.stderr
    assert result.stderr == b"standard input:101: 8 characters: not a hash of any registered signal type\n"
    assert HashSet.open("hashset").lists()[-1].entries == 100


def test_standard_input_that_is_a_socket(deployment: Deployment) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(md5_file())
        here.shutdown(socket.SHUT_WR)
        assert start("lists", "add", "more", "-", stdin=there).returncode == 0
    assert HashSet.open("hashset").lists()[-1].entries == 100


def test_status_shows_every_list(deployment: Deployment) -> None:
    name = b"odd\xff\x1b.txt"
    deployment.write(os.fsdecode(name), md5_file())
    assert start("lists", "add", "more", os.fsdecode(name), "--allow").returncode == 0
    first, second = map(json.loads, run("lists", "status", "--json").stdout.splitlines())
    assert (first["name"], first["role"], first["entries"]) == ("test", "deny", 1)
    assert (second["name"], second["role"], second["hashes"]) == ("more", "allow", {"md5": 100})
    assert second["source"] == "odd\ufffd\x1b.txt"
    assert (
        second["size_bytes"] == sum(path.stat().st_size for path in Path("hashset").glob("*.ugs")) - first["size_bytes"]
    )
    table = run("lists", "status").stdout
    assert table.splitlines()[0].split() == ["Name", "Role", "Entries", "Hashes", "Added", "Source", "Size"]
    assert "\x1b" not in table


def test_status_of_a_damaged_hash_set(deployment: Deployment) -> None:
    (segment,) = Path("hashset").glob("*.ugs")
    segment.unlink()
    result = run("lists", "status")
    assert result.exit_code == 1
    assert f"{segment.name}: a segment of the list 'test': is missing" in result.stderr
    assert "damaged" in result.stdout


def test_status_without_lists(empty: Deployment) -> None:
    result = run("lists", "status")
    assert result.exit_code == 0
    assert "holds no list" in result.stdout
    Path("uploadguard.toml").write_text("[hashset]\ntest_list = true\n")
    result = run("lists", "status")
    assert "holds no list" in result.stdout
    assert result.stdout.splitlines()[-1].split()[:2] == ["uploadguard-test", "deny"]
    assert result.stdout.splitlines()[-1].endswith("built-in")
    record = json.loads(run("lists", "status", "--json").stdout)
    assert (record["source"], record["entries"], record["size_bytes"]) == ("built-in", 1, None)


def test_remove_needs_a_yes(deployment: Deployment) -> None:
    refused = run("lists", "remove", "test")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    removed = run("lists", "remove", "test", "--yes")
    assert removed.exit_code == 0
    assert "no list to match uploads against is left" in removed.stderr
    assert HashSet.open("hashset").lists() == ()
    unknown = run("lists", "remove", "test", "--yes")
    assert unknown.exit_code == 1
    assert "no list of that name" in unknown.stderr


def test_a_full_disk_leaves_the_old_hash_set_in_force(deployment: Deployment) -> None:
    """The kernel refuses the process to write files beyond 64 kB, at the place where a full disk would."""
    before = generation()
    deployment.write("many.txt", b"".join(b"%032x\n" % (number * 0x9E3779B97F4A7C15) for number in range(1, 20_000)))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from uploadguard.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "lists", "add", "many", "many.txt", "--signal-type", "md5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "cannot be written (File too large)" in result.stderr
    assert "Traceback" not in result.stderr
    assert_unchanged(before)
    assert run("lists", "add", "many", "many.txt", "--signal-type", "md5").exit_code == 0


def test_a_hash_set_that_cannot_be_found(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text('[hashset]\npath = "elsewhere"\n')
    result = run("lists", "add", "more", "test.csv")
    assert result.exit_code == 1
    assert "no hash set here" in result.stderr
    assert "uploadguard init DIR" in result.stderr
