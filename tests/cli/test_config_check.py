"""What ``config check`` says of the ledger and of actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Deployment, run


def _action(occasion: str) -> str:
    return f'\n[actions.drop]\nkind = "file"\npath = "reports.jsonl"\noccasions = ["{occasion}"]\n'


def _checked(text: str) -> dict[str, Any]:
    Path("uploadguard.toml").write_text(text)
    found: dict[str, Any] = json.loads(run("config", "check", "--json").stdout)
    return found


@pytest.mark.parametrize(
    ("ledger", "action", "warned"),
    [
        (True, _action("report"), False),
        (True, _action("delete"), True),
        (True, "", True),
        (False, _action("report"), True),
        (False, "", False),
    ],
)
def test_reports_that_would_go_nowhere(deployment: Deployment, ledger: bool, action: str, warned: bool) -> None:
    record = _checked(('[ledger]\npath = "ledger"\n' if ledger else "") + action)
    assert any("nothing is reported" in warning for warning in record["warnings"]) is warned
    assert record["problems"] == []
    assert record["ledger"].endswith("ledger" if ledger else "nothing is kept")
    assert set(record["actions"]) == ({"drop"} if action else set())


def test_no_address_of_a_database_is_shown(deployment: Deployment) -> None:
    record = _checked('[ledger]\npath = "ledger"\nurl = "postgresql://user:word@127.0.0.1:1/db"\n')
    assert record["ledger"].startswith("PostgreSQL, with a spool in ")
    assert "word" not in record["ledger"]


def test_a_slip_in_an_action_is_told_once(deployment: Deployment) -> None:
    problems = _checked('[ledger]\npath = "ledger"\n' + _action("reprot"))["problems"]
    assert len([problem for problem in problems if "reprot" in problem]) == 1
