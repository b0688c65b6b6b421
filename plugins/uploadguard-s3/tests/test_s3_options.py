"""Settings of the plugin: strict, and named where they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from uploadguard.errors import ConfigError
from uploadguard.models import Verdict
from uploadguard_s3 import S3Options


def test_a_file_is_read_with_its_paths(tmp_path: Path) -> None:
    path = tmp_path / "uploadguard-s3.toml"
    path.write_text(
        'vocabulary = "clamscan"\n[state]\npath = "there.db"\n'
        '[routes.photos]\nbucket = "uploads"\nprefix = "in/"\npublic_prefix = "out/"\nblock = ["delete", "tag"]\n'
    )
    options = S3Options.load(path)
    assert options.state.path == tmp_path / "there.db"
    route = options.route("uploads", "in/a.jpg")
    assert route is not None
    assert route.public == ("uploads", "out/")
    assert [route.effects(verdict) for verdict in Verdict] == [("promote",), ("tag",), ("tag",), ("tag", "delete")]
    assert options.route("uploads", "out/a.jpg") is None
    assert options.route("others", "in/a.jpg") is None


def test_the_longest_prefix_wins() -> None:
    options = S3Options.of(routes={"a": {"bucket": "b"}, "c": {"bucket": "b", "prefix": "in/"}})
    assert options.route("b", "in/x") is options.routes["c"]
    assert options.route("b", "out/x") is options.routes["a"]


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s3.toml"
    path.write_text(
        '[state]\nretention_days = 3\n[limits]\nat_onec = 3\n[routes.photos]\nbucket = "uploads"\nallow = ["publish"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        S3Options.load(path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["line 2", "line 4", "line 7"]
    assert "did you mean at_once?" in str(caught.value)
    path.write_text('[routes.photos]\nbucket = "uploads"\nqueue = ["promote"]\n')
    with pytest.raises(ConfigError, match=r"line 3: routes\.photos\.queue: must not promote"):
        S3Options.load(path)


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ({"allow": ["promote"]}, "promote needs public_bucket or public_prefix"),
        ({"block": ["quarantine"]}, "quarantine needs quarantine_bucket"),
        ({"block": ["promote"], "public_bucket": "p"}, "must not promote"),
        ({"allow": ["promote", "delete"], "public_bucket": "p"}, "needs no delete"),
        ({"allow": ["tag", "tag"]}, "stands there twice"),
        ({"public_prefix": "in/out/"}, "copies would come back"),
        ({"public_prefix": ""}, "copies would come back"),
        ({"quarantine_bucket": "b"}, "copies would come back"),
        ({"legal_hold": True}, "legal_hold and retain_days are for copies there"),
        ({"public_bucket": ""}, "must not be empty"),
    ],
)
def test_what_makes_no_sense_is_refused(route: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        S3Options.of(routes={"only": {"bucket": "b", "prefix": "in/", **route}})


def test_without_routes_nothing_would_be_checked() -> None:
    with pytest.raises(ConfigError, match="nothing would be checked"):
        S3Options.of()
    same = {"bucket": "b", "public_bucket": "p", "public_prefix": ""}
    with pytest.raises(ConfigError, match="another route publishes to the same place"):
        S3Options.of(routes={"a": {**same, "prefix": "a/"}, "b": {**same, "prefix": "b/"}})
