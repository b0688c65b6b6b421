"""The lines of keys in TOML, with tomllib as the judge of what the keys are."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.config_toml import key_lines

_BARE = st.text("abcdef-_09", min_size=1, max_size=4)
_ODD = st.text("a.\"'#=[]{}\\\n é", max_size=4)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _literal_or_basic(text: str) -> str:
    return _quoted(text) if "'" in text or "\n" in text else f"'{text}'"


_VALUES = st.sampled_from(
    [
        "1",
        "-1.5e3",
        "true",
        "1979-05-27 07:32:00",
        '"a # = ] } \\" b"',
        "'a # \" = ]'",
        '"""a\nb = "" 2 \\""" # c\n"""',
        "'''a\n[b]\n''''",
        '""""quoted""""',
        '""',
        "''",
        '""""""',
        "[1, # one ] \n 2,\n]",
        "[[1], ['a]'], []]",
        "{}",
        "{ x = 1, 'y.z' = { w = \"}\" } }",
        "[{ x = 1 },\n { x = 2 }]",
    ]
)


@given(st.data())
def test_every_key_is_found_on_its_line(data: st.DataObject) -> None:
    """Each pair is written to a table of its own, so that the line of each key is known."""
    names = data.draw(st.lists(_BARE | _ODD, unique=True, max_size=6))
    text = ""
    expected: dict[tuple[str | int, ...], int] = {}
    for index, name in enumerate(names):
        text += data.draw(st.sampled_from(["", "\n", "# [x]\n", "  \n\t# y = 1\n"]))
        written = (
            _literal_or_basic(name) if data.draw(st.booleans()) or not re.fullmatch(r"[A-Za-z0-9_-]+", name) else name
        )
        value = data.draw(_VALUES)
        line = text.count("\n") + 1
        if data.draw(st.booleans()):
            text += f" [t{index} . {written}] # c\nkey={value}\n"
            expected |= {(f"t{index}", name): line, (f"t{index}", name, "key"): line + 1}
        else:
            text += f"[[items]]\nkey . {written} = {value} # c\n"
            item = sum(1 for path in expected if path[0] == "items")
            expected[("items", item, "key", name)] = line + 1
    parsed = tomllib.loads(text)
    found = key_lines(text)
    assert {path: found[path] for path in expected} == expected
    assert {path for path in found if path} == set(_paths(parsed))


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, below in items for one in ((*path, key), *_paths(below, (*path, key)))]


@pytest.mark.parametrize(
    "text", ["a", "a = ", "a = [1", "a = {", "[a", '"', 'a = "', "= 1", "a = {b", "[[a]", "a = [}"]
)
def test_what_is_not_toml_ends_without_an_error(text: str) -> None:
    key_lines(text)


@given(st.text("a.=[]{}\"'#\\\n, ", max_size=30))
def test_any_text_ends_without_an_error(text: str) -> None:
    key_lines(text)


def test_tables_inside_arrays_of_tables() -> None:
    text = "[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2\n[[a.c]]\ny = 3\n[[a.c]]\ny = 4\n"
    found = key_lines(text)
    assert set(found) == set(_paths(tomllib.loads(text)))
    assert (found["a", 0, "b", "x"], found["a", 1, "b", "x"], found["a", 1, "c", 1, "y"]) == (3, 6, 10)
