"""Finds the line of every key in a TOML document, which :mod:`tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from typing import Final, TypeAlias

__all__ = ["KeyPath", "key_lines"]

KeyPath: TypeAlias = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(
    "|".join(
        (
            r'"""(?:[^\\]|\\.)*?"{3,5}(?!")',
            r"'''.*?'{3,5}(?!')",
            r'"(?:[^"\\]|\\.)*"',
            r"'[^']*'",
        )
    ),
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key and table of ``text``, by full path.

    ``text`` should be valid TOML: parse it first, for this stops without an error at what is not. The items of an
    array count from 0 in a path: ``("plugins", 1)``. A table that is only implied by a longer name has the line of
    the first such name.
    """
    scanner = _Scanner(text)
    with suppress(ValueError):  # a key without its line is still named in full
        scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.lines: dict[KeyPath, int] = {}
        self._line, self._counted = 1, 0

    def document(self) -> None:
        table: KeyPath = ()
        arrays: dict[KeyPath, int] = {}
        while self._next() != "":
            if self._take("[["):
                line, key = self._line_here(), self._key()
                path = _inside(arrays, key)
                arrays[path] = arrays.get(path, -1) + 1
                self._note(path, line)
                table = (*path, arrays[path])
                self._note(table, line)
                self._take("]]")
            elif self._take("["):
                line, key = self._line_here(), self._key()
                table = _inside(arrays, key)
                self._note(table, line)
                self._take("]")
            else:
                self._pair(table)

    def _pair(self, table: KeyPath) -> None:
        line = self._line_here()
        path = (*table, *self._key())
        self._note(path, line)
        self._take("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("{"):
            while not self._take("}"):
                self._pair(path)
                self._take(",")
        elif self._take("["):
            item = 0
            while not self._take("]"):
                self._note((*path, item), self._line_here())
                self._value((*path, item))
                self._take(",")
                item += 1
        else:
            found = _QUOTED.match(self.text, self.place) or _SCALAR.match(self.text, self.place)
            if found is None:
                raise ValueError("not valid TOML")
            self.place = found.end()

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            found = _BARE_KEY.match(self.text, self.place)
            if found is not None:
                parts.append(found.group())
            else:
                found = _QUOTED.match(self.text, self.place)
                if found is None:
                    raise ValueError("not valid TOML")
                parts.append(tomllib.loads(f"key = {found.group()}")["key"])
            self.place = found.end()
            self._skip(_SPACE)
            if not self.text.startswith(".", self.place):
                return tuple(parts)
            self.place += 1

    def _next(self) -> str:
        self._skip(_BLANK)
        return self.text[self.place : self.place + 1]

    def _take(self, token: str) -> bool:
        self._skip(_BLANK)
        found = self.text.startswith(token, self.place)
        self.place += len(token) if found else 0
        return found

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.place)
        self.place = found.end() if found is not None else self.place

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.place)
        self._counted = self.place
        return self._line

    def _note(self, path: KeyPath, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)


def _inside(arrays: dict[KeyPath, int], key: KeyPath) -> KeyPath:
    """The full path of a table name: inside the newest item of each array of tables that it passes through."""
    path: KeyPath = ()
    for part in key:
        if path in arrays:
            path = (*path, arrays[path])
        path = (*path, part)
    return path
