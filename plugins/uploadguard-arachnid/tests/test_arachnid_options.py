"""The options: defaults, mistakes, and that nothing secret shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from arachnid_stubs import PASSWORD, make_matcher, table

import uploadguard_arachnid
from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.matchers import Matcher
from uploadguard.plugins import Plugins
from uploadguard.remote import RemoteOptions
from uploadguard_arachnid import ArachnidOptions

URL = "http://127.0.0.1:9"


def options(**changes: Any) -> ArachnidOptions:
    return ArachnidOptions.model_validate(table(URL, **changes))


def test_it_is_found_by_its_entry_point() -> None:
    settings = Settings.load(plugins=["arachnid"], matchers={"service": table(URL)})
    matcher = Plugins(settings).matchers["service"]
    assert isinstance(matcher, Matcher)
    assert matcher.name == "service"
    matcher.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base_url": "http://host.example"}, "base_url: must begin with https://"),
        ({"on_failure": "allow"}, "on_failure: must not be allow"),
        ({"pasword": "x"}, "pasword: unknown key"),
        ({"send": "url"}, "send: "),
        ({"send": "media", "mode": "prefetch"}, "needs mode = .inline."),
        ({"min_quality": 101}, "min_quality: "),
        ({"batch": 0}, "batch: "),
        ({"block": ["no-known-match"]}, "block"),
    ],
)
def test_a_mistake_is_named_by_its_key(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^matchers\.service.*" + problem):
        uploadguard_arachnid.uploadguard_matchers({"service": table(URL, **changes)})


def test_tables_of_other_kinds_are_left_alone() -> None:
    assert uploadguard_arachnid.uploadguard_matchers({"a": {"kind": "made-up"}, "b": {}}) == []


def test_the_readme_has_every_option_of_its_own_and_an_example_that_loads() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    [matcher] = uploadguard_arachnid.uploadguard_matchers(tomllib.loads(example)["matchers"])
    assert matcher.name == "shield"
    rows = set(re.findall(r"^\| `([a-z_0-9]+)` \|", readme, re.MULTILINE))
    assert set(ArachnidOptions.model_fields) - set(RemoteOptions.model_fields) <= rows


def test_nothing_secret_shows(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    matcher = make_matcher(URL, username="the-name", password_env=None, password_file=file)
    shown = [repr(matcher), repr(vars(matcher)), repr(options(username="the-name")), str(options(username="the-name"))]
    for text in shown:
        assert PASSWORD not in text
        assert "the-name" not in text
