"""docs/command-line.md has every command, option and exit code, and shows the JSON that commands really print."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.cli import program
from uploadguard.cli.exits import Exit

JSON_BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)
SHELL_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
TEXT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{prefix}{name}", command
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(program))


def test_every_command_has_a_section_and_every_section_of_a_command_is_one() -> None:
    assert set(SECTIONS) - {"Exit codes", "JSON"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_its_commands_section(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert f"`{option}" in SECTIONS[name] or f" {option}" in SECTIONS[name], option


def test_the_programs_own_options_stand_at_the_top() -> None:
    top = TEXT[: TEXT.index("\n## ")]
    for parameter in program.params:
        assert f"| `{parameter.opts[0]}" in top


def test_the_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", SECTIONS["Exit codes"], re.MULTILINE))
    assert rows == {str(code.value): code.meaning for code in Exit}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_commands_with_options_that_exist(name: str) -> None:
    examples = re.findall(r"^(?:.*\| )?(uploadguard .*)$", "".join(SHELL_BLOCK.findall(SECTIONS[name])), re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" < ")[0])[1:]
        assert " ".join(words).startswith(name)
        # Under the program, as it is run: a command keeps the names of its help option from its first context.
        with click.Context(program, **program.context_settings) as parent:
            COMMANDS[name].make_context(name, words[len(name.split()) :], parent=parent)


def test_the_json_is_as_shown(deployment: Deployment) -> None:
    deployment.write("hashes.csv", b"md5\n" + b"1" * 31 + b"\n" + b"0123456789abcdef" * 2 + b"\n")
    deployment.write("new.csv", b"id,md5\n17," + b"fedcba9876543210" * 2 + b"\n")
    deployment.write("fresh.txt", b"0123456789abcdef" * 2 + b"\n")
    run("lists", "add", "fresh", "fresh.txt", "--stage")
    printed = {
        "JSON": run("hash", "--json", "nope.jpg"),
        "lists add": run("lists", "add", "hotline", "hashes.csv", "--json"),
        "lists update": run("lists", "update", "hotline", "new.csv", "--json"),
        "lists status": run("lists", "status", "--json"),
        "lists activate": run("lists", "activate", "fresh", "--json"),
        "lists try": run("lists", "try", "hotline", "--json"),
        "lists sample": run("lists", "sample", "other.jpg", "--output", "sample.jsonl", "--json"),
        "lists rollback": run("lists", "rollback", "hotline", "--json", "--yes"),
        "hash": run("hash", "--json", "listed.jpg"),
        "check": run("check", "--json", "mirrored.jpg"),
        "status": run("status", "--json"),
        "hashset verify": run("hashset", "verify", "--json"),
        "hashset stats": run("hashset", "stats", "--json"),
        "hashset rollback": run("hashset", "rollback", "--json", "--yes"),
        "hashset compact": run("hashset", "compact", "--json"),
        "config check": run("config", "check", "--json"),
        "bench": run("bench", "other.jpg", "--json", "--seconds", "0.2", "--workers", "1", "--budget", "p99=80ms"),
    }
    for name, result in printed.items():
        shown = [json.loads(line) for block in JSON_BLOCK.findall(SECTIONS[name]) for line in block.splitlines()]
        real = [json.loads(line) for line in result.stdout.splitlines()][: len(shown)]
        assert [list(record) for record in shown] == [list(record) for record in real], name
        for key in ("media", "matches", "lists", "hashset", "pictures", "loaded", "budgets", "safety", "trials"):
            for left, right in zip(shown, real, strict=True):
                assert keys(left.get(key)) == keys(right.get(key))


def keys(value: object) -> object:
    if isinstance(value, list):
        return keys(value[0]) if value else None
    return list(value) if isinstance(value, dict) else None
