"""The options: defaults, mistakes, and that nothing secret shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ncmec_stubs import PASSWORD, make_action, table

import uploadguard_ncmec
from uploadguard.actions import Action, Occasion
from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.plugins import Plugins
from uploadguard_ncmec import NcmecOptions

URL = "http://127.0.0.1:9"


def options(**changes: Any) -> NcmecOptions:
    return NcmecOptions.model_validate(table(URL, **changes))


def test_the_test_environment_unless_production_is_written() -> None:
    assert options(base_url=None).url == "https://exttest.cybertip.org/ispws"
    assert options(base_url=None, environment="production").url == "https://report.cybertip.org/ispws"
    assert options(base_url="https://host.example/x/", environment="production").url == "https://host.example/x"


def test_it_is_found_by_its_entry_point() -> None:
    settings = Settings.load(plugins=["ncmec"], actions={"authority": table(URL)})
    action = Plugins(settings).actions["authority"]
    assert isinstance(action, Action)
    assert (action.name, action.occasions) == ("authority", frozenset({Occasion.REPORT}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"environment": "prod"}, "actions.ncmec.environment: .*test.*production"),
        ({"base_url": "http://host.example"}, "actions.ncmec.base_url: .*https"),
        ({"base_url": "https://u:p@host.example"}, "actions.ncmec.base_url: must not hold credentials"),
        ({"base_url": "https://host.example/?x"}, "actions.ncmec.base_url: must not have a query"),
        ({"base_url": "host"}, "actions.ncmec.base_url: "),
        ({"username": ""}, "actions.ncmec.username: "),
        ({"username": "a:b"}, "actions.ncmec.username: "),
        ({"password_env": "NOT_SET_ANYWHERE"}, "actions.ncmec.password_env: .*not set"),
        ({"password_env": None}, "actions.ncmec: needs either password_env or password_file"),
        ({"password_file": __file__}, "actions.ncmec: needs either password_env or password_file"),
        ({"password_env": None, "password_file": "/nowhere/at/all"}, "actions.ncmec.password_file: "),
        ({"reporter": {}}, "actions.ncmec.reporter.email: is missing"),
        ({"reporter": {"email": "desk"}}, "actions.ncmec.reporter.email: is not an email address"),
        ({"reporter": {"email": "a@b.example", "age": 7}}, "actions.ncmec.reporter.age: unknown key"),
        ({"incident_type": "Spam"}, "actions.ncmec.incident_type: "),
        ({"occasions": ["ban"]}, "actions.ncmec.occasions"),
        ({"occasions": []}, "actions.ncmec.occasions"),
        ({"classify": "yes"}, "actions.ncmec.classify: "),
        ({"pasword": "x"}, "actions.ncmec.pasword: unknown key"),
    ],
)
def test_a_mistake_is_named_by_its_key(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        uploadguard_ncmec.uploadguard_actions({"ncmec": table(URL, **changes)})


def test_the_readme_has_every_option_and_an_example_that_loads() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    [action] = uploadguard_ncmec.uploadguard_actions(tomllib.loads(example)["actions"])
    assert action.name == "cybertipline"
    rows = {name for line in readme.splitlines() if line.startswith("| `") for name in re.findall("`([a-z_]+)`", line)}
    assert set(NcmecOptions.model_fields) - {"kind", "occasions"} <= rows


def test_tables_of_other_kinds_are_left_alone() -> None:
    assert uploadguard_ncmec.uploadguard_actions({"a": {"kind": "webhook"}, "b": {}}) == []


def test_nothing_secret_shows(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    action = make_action(URL, username="the-name", password_env=None, password_file=file)
    shown = [repr(action), repr(vars(action)), repr(options(username="the-name")), str(options(username="the-name"))]
    for text in shown:
        assert PASSWORD not in text
        assert "the-name" not in text
        assert "desk@" not in text
