"""``lists update``: what comes, what goes, and what is refused."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet
from uploadguard.models import Hash

MD5 = ["%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128) for number in range(1, 10)]


def csv(*rows: tuple[str, int]) -> bytes:
    return "\n".join(["id,md5", *(f"{entry_id},{MD5[number]}" for entry_id, number in rows), ""]).encode()


@pytest.fixture
def hotline(deployment: Deployment) -> Deployment:
    """With a list of the entries "a" to "c"."""
    deployment.write("hotline.csv", csv(("a", 0), ("b", 1), ("c", 2)))
    assert run("lists", "add", "hotline", "hotline.csv").exit_code == Exit.OK
    return deployment


def ids() -> dict[str, int]:
    """The ids that the MD5 hashes match, with the number of each hash."""
    matches = (
        HashSet.open("hashset")
        .load()
        .match([Hash("md5", bytes.fromhex(text), frame=n) for n, text in enumerate(MD5)], {})
    )
    return {match.entry_id: match.frame for match in matches}


def test_entries_come_go_and_are_replaced(hotline: Deployment) -> None:
    hotline.write("new.csv", csv(("b", 3), ("d", 4)))
    hotline.write("gone.txt", b"\xef\xbb\xbfa\r\n\nnot there\n")
    result = run("lists", "update", "hotline", "new.csv", "--remove-ids", "gone.txt")
    assert result.exit_code == Exit.OK, result.output
    table = dict(re.split(r" {2,}", line)[:2] for line in result.stdout.splitlines())
    assert table["Updated"] == "hotline"
    assert (table["entries added"], table["entries removed"], table["generation"]) == ("2", "2", "3")
    assert table["list now"] == "3 entries; md5 3"
    assert ids() == {"b": 3, "c": 2, "d": 4}


def test_ids_alone_and_twice(hotline: Deployment) -> None:
    hotline.write("gone.txt", b"a\nb\n")
    for removed, generation in ((2, 3), (0, 4)):
        result = run("lists", "update", "hotline", "--remove-ids", "gone.txt", "--json")
        summary = json.loads(result.stdout)
        assert (summary["removed"], summary["generation"], summary["file"]) == (removed, generation, None)
    assert ids() == {"c": 2}


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["hotline"], Exit.USAGE, "nothing to do"),
        (["other", "new.csv"], Exit.ERROR, "there is no list of that name"),
        (["hotline", "plain.txt"], Exit.ERROR, "plain.txt:1: an entry without an id"),
        (["hotline", "new.csv", "--signal-type", "md6"], Exit.USAGE, "no such signal type"),
        (["hotline", "bad.csv", "--strict"], Exit.ERROR, "the import is strict"),
        (["hotline", "--remove-ids", "bytes.txt"], Exit.ERROR, "bytes.txt: is not UTF-8 text"),
        (["hotline", "--remove-ids", "nowhere.txt"], Exit.ERROR, "nowhere.txt"),
    ],
)
def test_what_is_refused_changes_nothing(hotline: Deployment, options: list[str], code: int, reason: str) -> None:
    hotline.write("new.csv", csv(("d", 4)))
    hotline.write("bad.csv", csv(("d", 4)) + b"e,1234\n")
    hotline.write("plain.txt", MD5[5].encode() + b"\n")
    hotline.write("bytes.txt", b"a\n\xff\n")
    result = run("lists", "update", *options)
    assert result.exit_code == code
    assert reason in result.stderr
    assert ids() == {"a": 0, "b": 1, "c": 2}
    assert HashSet.open("hashset").generation == 2


def test_standard_input_and_bad_lines(hotline: Deployment) -> None:
    result = run("lists", "update", "hotline", "-", "--json", input=csv(("d", 4)) + b"e,1234\n")
    bad, summary = map(json.loads, result.stdout.splitlines())
    assert (bad["kind"], bad["line"], bad["file"]) == ("bad_line", 3, "-")
    assert (summary["added"], summary["bad_lines"], summary["format"]) == (1, 1, "csv")
