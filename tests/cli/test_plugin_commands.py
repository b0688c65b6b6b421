"""Commands that plugins add: found by their entry points, imported only when asked for, and told clearly if broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import run, start

Install = Callable[[str, str], None]

GREETING = """
import click

@click.group()
def group():
    '''Greetings.'''

@group.command()
@click.option('--loud', is_flag=True)
@click.pass_obj
def greet(options, loud):
    '''Say hello.'''
    click.echo(f'{options.config_path}: ' + ('HELLO' if loud else 'hello'))

not_a_command = 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package whose metadata name these entry points, and the module ``a_plugins_commands``."""
    (tmp_path / "a_plugins_commands.py").write_text(GREETING)
    monkeypatch.syspath_prepend(tmp_path)

    def add(package: str, points: str) -> None:
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[uploadguard.commands]\n{points}\n")

    return add


@pytest.fixture(autouse=True)
def _not_imported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "a_plugins_commands", raising=False)


def test_a_plugins_command_runs_with_the_programs_options(install: Install) -> None:
    install("greeter", "greetings = a_plugins_commands:group")
    result = run("--config", "x.toml", "greetings", "greet", "--loud")
    assert (result.exit_code, result.stdout) == (0, "x.toml: HELLO\n")


def test_the_help_outlasts_half_a_package(install: Install, tmp_path: Path) -> None:
    install("greeter", "greetings = a_plugins_commands:group")
    (tmp_path / "greeter-1.0.dist-info" / "METADATA").unlink()
    result = run("--help")
    assert result.exit_code == 0, result.output
    assert "greetings" in result.stdout


def test_the_help_names_it_and_its_package_without_importing_it(install: Install, tmp_path: Path) -> None:
    install("greeter", "greetings = a_plugins_commands:group")
    (tmp_path / "a_plugins_commands.py").write_text("raise SystemExit('imported')")
    text = run("--help").stdout
    assert "Commands of plugins:" in text
    assert ["greetings", "greeter"] in [line.split() for line in text.splitlines()]
    assert "a_plugins_commands" not in sys.modules


def test_other_commands_import_none(install: Install, tmp_path: Path) -> None:
    install("greeter", "greetings = a_plugins_commands:group")
    (tmp_path / "a_plugins_commands.py").write_text("print('imported')")
    result = start("testpicture", "--help", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 0
    assert b"imported" not in result.stdout


def test_a_plugin_takes_no_name_from_a_built_in_command(install: Install) -> None:
    install("greeter", "check = a_plugins_commands:group")
    assert "greet" not in run("check", "--help").stdout
    assert "greeter" not in run("--help").stdout


def test_a_name_that_nobody_adds_is_a_wrong_command_line() -> None:
    result = run("greetings")
    assert result.exit_code == 2
    assert "No such command 'greetings'" in result.stderr


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("nowhere_at_all:group", "could not be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("a_plugins_commands:missing", "could not be imported: AttributeError"),
        ("a_plugins_commands:not_a_command", "is no click command"),
    ],
)
def test_a_broken_one_is_named_without_a_traceback(install: Install, point: str, said: str) -> None:
    install("greeter", f"greetings = {point}")
    result = run("greetings", "greet")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: plugin 'greetings': ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_one_name_from_two_packages_is_refused_by_name(install: Install) -> None:
    install("greeter", "greetings = a_plugins_commands:group")
    install("welcomer", "greetings = elsewhere:group")
    result = run("greetings", "greet")
    assert result.exit_code == 1
    assert "several packages add this command: greeter and welcomer" in result.stderr
