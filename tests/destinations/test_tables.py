"""The tables of ``[actions]``: from a configuration file to actions, and what is wrong with one, with its line."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.destinations.tasks import CONTEXT, MATCH, made_up_decision, made_up_task
from uploadguard.actions import Occasion, SelectiveAction
from uploadguard.config import Settings
from uploadguard.destinations import KINDS
from uploadguard.destinations.file import FileDropOptions
from uploadguard.destinations.mail import SmtpOptions
from uploadguard.destinations.webhook import WebhookOptions
from uploadguard.destinations.xarf import XarfOptions
from uploadguard.errors import ConfigError
from uploadguard.plugins import Plugins
from uploadguard.testing.journal import ScriptedJournal

SECRET = "whsec_" + "A" * 32


def load(directory: Path, text: str) -> Plugins:
    path = directory / "uploadguard.toml"
    path.write_text(text)
    return Plugins(Settings.load(path))


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, text)
    return caught.value.problems


def test_each_kind_is_made(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    made = load(
        tmp_path,
        """
        [actions.drop]
        kind = "file"
        path = "out/reports.jsonl"
        occasions = ["report", "release"]

        [actions.host]
        kind = "webhook"
        url = "https://hooks.images.example/"
        secret_file = "secret"
        lists = ["one", "two"]

        [actions.hotline]
        kind = "xarf"
        url = "https://reports.authority.example/"
        reporter = { org = "Example", contact = "abuse@images.example", domain = "images.example" }
        """,
    ).actions
    assert {name: type(action).__name__ for name, action in made.items()} == {
        "drop": "FileDrop",
        "host": "Webhook",
        "hotline": "XarfReporter",
    }
    assert all(name == action.name for name, action in made.items())
    assert made["drop"].occasions == {Occasion.REPORT, Occasion.RELEASE}
    assert made["host"].occasions == {Occasion.REPORT}
    assert repr(made["host"]) == "Webhook('host')"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    drop = load(tmp_path, '[actions.drop]\nkind = "file"\npath = "out/reports.jsonl"').actions["drop"]
    task = made_up_task()
    drop.deliver(task, ScriptedJournal(task))
    assert (tmp_path / "out" / "reports.jsonl").is_file()


def test_only_the_decisions_of_some_lists(tmp_path: Path) -> None:
    drop = load(tmp_path, '[actions.drop]\nkind = "file"\npath = "a"\nlists = ["mine"]').actions["drop"]
    assert isinstance(drop, SelectiveAction)
    for match, wanted in (
        (dataclasses.replace(MATCH, list_name="mine"), True),
        (dataclasses.replace(MATCH, list_name="mine", allow=True), False),
        (MATCH, False),
    ):
        assert drop.wants(made_up_decision(matches=(match,)), CONTEXT, Occasion.REPORT) is wanted
    every = load(tmp_path, '[actions.drop]\nkind = "file"\npath = "a"').actions["drop"]
    assert isinstance(every, SelectiveAction)
    assert every.wants(made_up_decision(matches=()), CONTEXT, Occasion.REPORT)


def test_what_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    found = problems(tmp_path, '[actions.drop]\nkind = "file"\npath = "a"\nmax_byte = 3\nlists = "one"\n')
    assert [one.partition(":")[0] for one in found] == ["line 4", "line 5"]
    assert found[0].startswith("line 4: actions.drop.max_byte: unknown key; did you mean max_bytes?")
    (one,) = problems(tmp_path, '[actions.host]\nkind = "webhook"\nurl = "http://a.example/"\nsecret_env = "PATH"\n')
    assert one.startswith("line 3: actions.host.url: must begin with https://")
    (one,) = problems(tmp_path, '[actions.host]\nkind = "webhok"\n')
    assert one.startswith("line 2: actions.host.kind: no plugin makes actions of this kind")
    (one,) = problems(tmp_path, '[actions.host]\npath = "a"\n')
    assert "is missing" in one


def test_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    (one,) = problems(
        tmp_path, f'[actions.host]\nkind = "webhook"\nurl = "https://me:{SECRET}@a/"\nsecret_env = "PATH"\n'
    )
    assert SECRET not in one


def test_kinds_are_imported_when_they_are_asked_for() -> None:
    modules = sorted({kind.partition(":")[0] for kind in KINDS.values()} | {"httpx", "smtplib"})
    code = f"import sys, uploadguard, uploadguard.plugins; print([m for m in {modules!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_httpx_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    with pytest.raises(ConfigError, match=r"uploadguard\[reports\]"):
        load(tmp_path, '[actions.host]\nkind = "webhook"\nurl = "https://a.example/"\nsecret_env = "HOOK_SECRET"\n')


DOCUMENT = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text()
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_the_configurations_of_the_documentation_work(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLOADGUARD_HOOK_SECRET", SECRET)
    monkeypatch.setenv("HOTLINE_TOKEN", "token")
    (tmp_path / "mail-password").write_text("password")
    assert len(load(tmp_path, text).actions) == 1


def test_every_option_stands_in_the_documentation() -> None:
    assert len(CONFIGURATIONS) == 4
    for options in (FileDropOptions, WebhookOptions, XarfOptions, SmtpOptions):
        for name in options.model_fields:
            assert re.search(rf"\b{name}\b", DOCUMENT), name
