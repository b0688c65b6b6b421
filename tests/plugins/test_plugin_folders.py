"""Each plugin in ``plugins/`` is a package of its own, laid out as the example is, with real hooks or commands."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from uploadguard import hookspecs
from uploadguard.cli.plugin_commands import COMMANDS_GROUP
from uploadguard.plugins import ENTRY_POINT_GROUP

ROOT = Path(__file__).parents[2] / "plugins"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    with (folder / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def hooks(thing: object) -> dict[str, Any]:
    """What the plugin marked with ``hookimpl``."""
    return {
        name: function
        for name, function in inspect.getmembers(thing, callable)
        if getattr(function, f"{hookspecs.PROJECT}_impl", None) is not None
    }


def test_the_example_is_among_them() -> None:
    assert "uploadguard-example" in [folder.name for folder in FOLDERS]


def loaded(target: str) -> Any:
    """What an entry point leads to."""
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_layout(folder: Path) -> None:
    package = folder.name.replace("-", "_")
    assert project(folder)["project"]["name"] == folder.name
    for name in ("README.md", f"src/{package}/__init__.py", f"src/{package}/py.typed"):
        assert (folder / name).is_file()
    assert list((folder / "tests").glob("test_*.py"))


def test_no_two_test_modules_have_one_name() -> None:
    """They are imported by their bare names."""
    names = [path.name for folder in FOLDERS for path in (folder / "tests").glob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_entry_points_give_hooks_that_exist_or_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder / "src")
    groups = project(folder)["project"]["entry-points"]
    assert groups
    assert set(groups) <= {ENTRY_POINT_GROUP, COMMANDS_GROUP}
    for name, target in groups.get(COMMANDS_GROUP, {}).items():
        assert name == folder.name.removeprefix("uploadguard-")
        assert isinstance(loaded(target), click.Command)
    for name, target in groups.get(ENTRY_POINT_GROUP, {}).items():
        assert name == folder.name.removeprefix("uploadguard-")
        implemented = hooks(loaded(target))
        assert implemented
        for hook, function in implemented.items():
            specified = inspect.signature(getattr(hookspecs, hook)).parameters
            assert set(inspect.signature(function).parameters) <= set(specified)


def test_the_readme_of_the_example_names_what_it_gives() -> None:
    text = (ROOT / "uploadguard-example" / "README.md").read_text()
    for name in ("`blockmean`", "`.hashlines`", "`newcomers`", 'plugins = ["example"]'):
        assert name in text
