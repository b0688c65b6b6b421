"""docs/hooks.md shows every hook with its exact signature."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from uploadguard import hookspecs

TEXT = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("uploadguard_")}


def test_there_are_hooks_and_no_others_in_the_document() -> None:
    assert len(HOOKS) == 13
    assert re.findall(r"^## (\w+)$", TEXT, re.MULTILINE) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_signature_stands_in_the_document(name: str) -> None:
    signature = str(inspect.signature(HOOKS[name])).replace("'", "")
    assert f"## {name}\n\n```\n{name}{signature}\n```\n" in TEXT


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_what_it_is_for(name: str) -> None:
    assert inspect.getdoc(HOOKS[name])
