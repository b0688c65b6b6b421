"""``uploadguard console``: accounts, and what stands in the way of running it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.config import Settings
from uploadguard.ledger.accounts import Accounts
from uploadguard.ledger.database import open_database
from uploadguard.ledger.people import Person, Role


@pytest.fixture
def settings(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("UPLOADGUARD_LEDGER__PATH", str(deployment.path / "review"))
    found = Settings.load(deployment.path / "uploadguard.toml")
    open_database(found, create=True).close()
    return found


def verify(settings: Settings, name: str, password: str) -> Person | None:
    database = open_database(settings)
    try:
        return Accounts(database).verify(name, password)
    finally:
        database.close()


def test_an_account_from_its_making_to_its_end(settings: Settings) -> None:
    assert "no accounts" in run("console", "users").stdout
    made = run("console", "adduser", "ann", "--role", "review", "--role", "reveal")
    assert made.exit_code == 0
    password = made.stdout.strip()
    assert verify(settings, "ann", password) == Person("ann", frozenset({Role.REVIEW, Role.REVEAL}))
    record = json.loads(run("console", "users", "--json").stdout)
    assert (record["name"], record["roles"], record["disabled"]) == ("ann", ["reveal", "review"], False)
    assert run("console", "roles", "ann", "--role", "lead").exit_code == 0
    renewed = run("console", "passwd", "ann", "--as", "root").stdout.strip()
    assert verify(settings, "ann", password) is None
    assert verify(settings, "ann", renewed) == Person("ann", frozenset({Role.LEAD}))
    assert run("console", "disable", "ann").exit_code == 0
    assert verify(settings, "ann", renewed) is None
    assert "shut out" in run("console", "users").stdout
    assert run("console", "enable", "ann").exit_code == 0
    assert verify(settings, "ann", renewed) is not None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("adduser", "a b", "--role", "review"), 1, "letters"),
        (("adduser", "ann"), 2, "--role"),
        (("adduser", "ann", "--role", "boss"), 2, "boss"),
        (("passwd", "nobody"), 1, "no account"),
        (("disable", "nobody"), 1, "no account"),
    ],
)
def test_what_cannot_be_done_is_said(settings: Settings, words: tuple[str, ...], code: int, said: str) -> None:
    result = run("console", *words)
    assert result.exit_code == code
    assert said in result.output


def test_a_port_that_is_taken_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("console", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "cannot listen" in result.output


def test_without_a_ledger_it_says_what_to_set(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLOADGUARD_LEDGER__PATH", raising=False)
    config = deployment.path / "without.toml"
    config.write_text('[hashset]\npath = "hashset"\n')
    result = run("--config", config, "console")
    assert result.exit_code == 1
    assert "ledger.path" in result.output


@pytest.mark.parametrize("package", ["starlette", "jinja2", "uvicorn", "argon2"])
def test_a_missing_package_names_the_extra(settings: Settings, package: str, tmp_path: Path) -> None:
    words = ["console", "adduser", "ann", "--role", "review"] if package == "argon2" else ["console", "--port", "0"]
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from uploadguard.cli import program\nprogram.main({words!r}, prog_name='uploadguard')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "uploadguard[console]" in result.stderr
