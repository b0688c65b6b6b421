"""Where settings come from: the TOML file and the environment, read into plain tables, with every value's origin."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from uploadguard.config_schema import Node, child, closest, root, walk
from uploadguard.config_toml import KeyPath, key_lines
from uploadguard.errors import ConfigError

__all__ = [
    "ENV_CONFIG",
    "ENV_PREFIX",
    "ConfigFile",
    "Environment",
    "Origin",
    "Problem",
    "StoredSource",
    "read_environment",
    "read_file",
]

ENV_PREFIX: Final = "UPLOADGUARD_"
ENV_CONFIG: Final = "UPLOADGUARD_CONFIG"
_ENV_NESTED: Final = "__"
_CONFIG_KEY: Final = ENV_CONFIG.removeprefix(ENV_PREFIX).lower()

# What a container platform sets for a network service that is called "uploadguard" or "uploadguard-something".
_SERVICE_LINK: Final = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``line`` is in the file, from 1; None for what does not stand there."""

    text: str
    line: int | None = None
    in_file: bool = False


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A TOML file as read. Relative paths in ``values`` are already resolved against the file's directory."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings in the environment, as nested tables, and the variables that look like settings but are none."""

    values: dict[str, Any] = field(default_factory=dict)
    names: Mapping[KeyPath, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """All that a configuration was read from."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    file: ConfigFile | None = None

    def problem(self, path: KeyPath, text: str) -> Problem:
        """A problem with the value at ``path``, placed where that value came from."""
        sentence = f"{key_text(path)}: {text}"
        if _holds(self.overrides, path):
            return Problem(f"keyword argument: {sentence}")
        if _holds(self.environment.values, path):
            names = (self.environment.names.get(path[:length]) for length in range(len(path), 0, -1))
            return Problem(f"environment variable {next(filter(None, names), ENV_PREFIX)}: {sentence}")
        if self.file is None:
            return Problem(sentence)
        lines = (
            self.file.lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in self.file.lines
        )
        return Problem(sentence, line=next(lines, None), in_file=True)


class StoredSource(PydanticBaseSettingsSource):
    """Hands pydantic-settings a table that is already read."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """One top-level value, its name, and that it needs no decoding."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def read_file(path: Path, model: type[BaseModel]) -> ConfigFile:
    """Read a TOML file for ``model``.

    Paths in it, and path settings that it leaves at their default, are resolved against its directory. Raises
    :class:`~uploadguard.errors.ConfigError` where there is no such file or it is not TOML, with the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError("no such file; `uploadguard init DIR` writes one with all defaults", path=path) from None
    except IsADirectoryError:
        raise ConfigError("is a directory; name the TOML file in it", path=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: not valid TOML: not UTF-8 text", path=path) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_text(str(error), text), path=path) from None
    _resolve_paths(values, model, path.absolute().parent)
    return ConfigFile(path, values, key_lines(text))


def read_environment(model: type[BaseModel], environ: Mapping[str, str]) -> Environment:
    """The settings of ``model`` in ``environ``: ``UPLOADGUARD_`` and the key path, in capitals, joined by ``__``.

    Values are TOML; text needs no quotes. Other programs' variables with the prefix are let be, as long as they
    neither contain ``__`` nor resemble a setting.
    """
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for name in sorted(environ):
        rest = name.removeprefix(ENV_PREFIX)
        if rest == name or name == ENV_CONFIG:
            continue
        path = tuple(rest.lower().split(_ENV_NESTED))
        node = _node_at(model, path)
        if node is None and _SERVICE_LINK.fullmatch(rest):
            continue
        if node is None:
            problems += _unknown_variable(name, path, model)
        elif node.is_table:
            problems.append(Problem(f"environment variable {name}: is a table; set its keys, as {name}__KEY"))
        else:
            _put(values, path, environ[name] if node.takes_text else _toml_or_text(environ[name]))
            names[path] = name
    return Environment(values, names, tuple(problems))


def key_text(path: KeyPath) -> str:
    """A key path as TOML writes it; items of lists count from 0, in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def _syntax_text(message: str, text: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if place is None:
        return f"not valid TOML: {message}"
    line = place.group(1) or str(text.rstrip("\n").count("\n") + 1)
    column = f", column {place.group(2)}" if place.group(2) else ""
    return f"line {line}{column}: not valid TOML: {message[: place.start()]}"


def _resolve_paths(values: dict[str, Any], model: type[BaseModel], directory: Path) -> None:
    for setting in walk(model):
        node = _node_at(model, setting.path)
        if node is None or node.annotation is not Path:
            continue
        table: Any = values
        for part in setting.path[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            value = table.get(setting.path[-1], setting.default)
            if isinstance(value, str | Path) and str(value):
                table[setting.path[-1]] = directory / value
    for kind in ("actions", "matchers"):
        _resolve_free_paths(values.get(kind), directory)


def _resolve_free_paths(tables: object, directory: Path) -> None:
    """The same in tables that plugins describe: for ``path`` and what ends in ``_file``."""
    waiting = list(tables.values()) if isinstance(tables, dict) else []
    while waiting:
        table = waiting.pop()
        if not isinstance(table, dict):
            continue
        for key, value in table.items():
            if isinstance(value, dict):
                waiting.append(value)
            elif isinstance(value, str) and value and (key == "path" or key.endswith("_file")):
                table[key] = str(directory / value)


def _node_at(model: type[BaseModel], path: KeyPath) -> Node | None:
    node: Node | None = root(model)
    for part in path:
        node = child(node, part) if node is not None and part != "" else None
    return node


def _unknown_variable(name: str, path: tuple[str, ...], model: type[BaseModel]) -> list[Problem]:
    """The problem with a variable that is no setting; none where it does not look like one either."""
    first = next(filter(None, path), "")
    if closest(first, [_CONFIG_KEY], cutoff=0.8) or first.startswith(_CONFIG_KEY):
        return [Problem(f"environment variable {name}: no such setting; did you mean {ENV_CONFIG}?")]
    guess = _similar_path(path, model)
    if guess is None and len(path) == 1 and path[0].split("_")[0] not in root(model).key_names():
        return []
    hint = f"; did you mean {ENV_PREFIX}{_ENV_NESTED.join(guess).upper()}?" if guess is not None else ""
    return [Problem(f"environment variable {name}: no such setting{hint}")]


def _similar_path(path: tuple[str, ...], model: type[BaseModel]) -> tuple[str, ...] | None:
    if len(path) == 1:  # a single underscore for two, or the table left out
        fixed = [setting.path for setting in walk(model) if not setting.below_free_key]
        flat = {setting[-1]: setting for setting in fixed} | {"_".join(setting): setting for setting in fixed}
        return flat.get(closest(path[0], flat, cutoff=0.8) or "")
    known = 0
    while _node_at(model, path[: known + 1]) is not None:
        known += 1
    parent = _node_at(model, path[:known])
    guess = closest(path[known], parent.key_names()) if parent is not None else None
    repaired = (*path[:known], guess, *path[known + 1 :]) if guess is not None else ()
    return repaired if _node_at(model, repaired) is not None and repaired else None


def _toml_or_text(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _holds(values: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(part, int):
            if not isinstance(values, list | tuple) or not 0 <= part < len(values):
                return False
        elif not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
