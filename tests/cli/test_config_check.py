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


@pytest.mark.parametrize(
    ("test_list", "rule", "warned"),
    [(True, "", False), (True, "report = true", True), (True, "report = false", False), (False, "", False)],
)
def test_reports_of_the_test_picture_are_warned_of(
    deployment: Deployment, test_list: bool, rule: str, warned: bool
) -> None:
    rules = f"[policy.lists.uploadguard-test]\n{rule}\n" if rule else ""
    switch = f"[hashset]\ntest_list = {str(test_list).lower()}\n"
    record = _checked(f'{rules}{switch}[ledger]\npath = "ledger"\n{_action("report")}')
    assert any("test picture" in warning for warning in record["warnings"]) is warned
    assert not any("does not hold" in warning for warning in record["warnings"])


def test_match_services_are_shown_and_rules_for_them_are_in_order(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MADE_UP_PASSWORD", "made-up")
    table = 'kind = "eokm"\nusername = "host"\npassword_env = "MADE_UP_PASSWORD"\n'
    record = _checked(
        'plugins = ["eokm"]\n[policy.lists.second]\nverdict = "queue"\n'
        f'[ledger]\npath = "ledger"\n[matchers.first]\n{table}on_failure = "block"\n'
        f'[matchers.second]\n{table}mode = "prefetch"\n'
    )
    assert record["problems"] == []
    assert record["matchers"] == {
        "first": {"mode": "inline", "on_failure": "block"},
        "second": {"mode": "prefetch", "on_failure": "queue"},
    }
    assert not any("does not hold" in warning for warning in record["warnings"])
    assert "second: prefetch; queue where it does not answer" in run("config", "check").stdout
