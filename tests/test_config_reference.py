"""What is written out from the settings model, and what the documentation says of it."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from uploadguard.config import Settings
from uploadguard.config_reference import render_default_toml, render_settings_table
from uploadguard.config_schema import walk
from uploadguard.models import Verdict
from uploadguard.policy import SignalDefaults, resolve
from uploadguard.policy_rules import DEFAULT_FAILURE_VERDICTS

ROOT = Path(__file__).parent.parent
TYPES = {
    "md5": SignalDefaults(0, 128, digest=True),
    "sha256": SignalDefaults(0, 256, digest=True),
    "pdq": SignalDefaults(31, 256, digest=False),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("UPLOADGUARD_"):
            monkeypatch.delenv(name)


def write(directory: Path, text: str) -> Path:
    path = directory / "uploadguard.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_file_is_the_rendered_one() -> None:
    assert (ROOT / "uploadguard.example.toml").read_text(encoding="utf-8") == render_default_toml()


def test_it_loads_and_holds_the_defaults(tmp_path: Path) -> None:
    settings = Settings.load(write(tmp_path, render_default_toml()))
    paths = {"hashset": {"path"}, "ledger": {"path"}}
    assert settings.model_dump(exclude=paths) == Settings().model_dump(exclude=paths)
    assert settings.hashset.path == tmp_path / Settings().hashset.path
    assert settings.ledger.path == tmp_path / "ledger"  # what init makes


def test_every_setting_stands_in_it_and_its_examples_load(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=\S)", "", render_default_toml(), flags=re.MULTILINE)
    Settings.load(write(tmp_path, text)).decision_policy(TYPES)
    table = tomllib.loads(text)
    for setting in walk(Settings):
        value: Any = table
        for part in setting.path:
            value = value[part]
        assert setting.meaning
    assert leaves(Settings().model_dump()) <= leaves(table)


def test_the_settings_table_of_the_documentation_is_the_rendered_one() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- settings: [^>]*-->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found is not None
    assert found.group(1) == render_settings_table()


def test_the_failure_table_of_the_documentation_is_the_default() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `(\w+)` \|$", text, re.MULTILINE)
    assert rows == [(code.value, verdict.label) for code, verdict in DEFAULT_FAILURE_VERDICTS.items()]


def test_every_toml_block_of_the_documentation_loads(tmp_path: Path) -> None:
    blocks = documentation_blocks("toml")
    assert blocks
    for block in blocks:
        Settings.load(write(tmp_path, block)).decision_policy(TYPES)


def test_the_python_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    (block,) = documentation_blocks("python")
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["settings"].media.max_pixels == 50_000_000


def test_the_worked_example_of_the_documentation_is_right(tmp_path: Path) -> None:
    (block,) = (one for one in documentation_blocks("toml") if "national" in one)
    policy = Settings.load(write(tmp_path, block)).decision_policy(TYPES)
    rows = re.findall(
        r"^\| (?:`(\w+)`|any other), (\w+) \| (?:none|`(\w+)`) \| (\w+) \| (\d+) \| (yes|no) \|",
        (ROOT / "docs/configuration.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 6
    for list_name, signal_type, tenant, verdict, limit, report in rows:
        found = resolve(policy, list_name=list_name or None, signal_type=signal_type, tenant=tenant or None)
        assert found[:3] == (Verdict.from_label(verdict), int(limit), report == "yes")


def leaves(table: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of the values in nested tables."""
    found: set[tuple[str, ...]] = set()
    for key, value in table.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key)}
    return found


def documentation_blocks(language: str) -> list[str]:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
