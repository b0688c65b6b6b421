"""What all kinds of actions have in common: the options of their tables, which decisions they want, their secrets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, Field, Strict, ValidationError

from uploadguard.actions import Occasion
from uploadguard.config_problems import sentences_of
from uploadguard.config_sources import key_text
from uploadguard.config_toml import KeyPath
from uploadguard.config_types import Section, UniqueNames
from uploadguard.errors import ConfigError, PostponedError
from uploadguard.models import Context, Decision

__all__ = [
    "Destination",
    "DestinationOptions",
    "EnvName",
    "OptionsError",
    "Secret",
    "SecretFile",
    "TimeoutS",
    "checked",
    "plain_error",
    "read_options",
]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

OptionsError: TypeAlias = Callable[[Iterable[tuple[KeyPath, str]]], ConfigError]
"""Makes the error of problems: their key paths, each with a sentence. ``Settings.error`` is one that knows lines."""

_MAX_SECRET_BYTES = 65536


def plain_error(problems: Iterable[tuple[KeyPath, str]]) -> ConfigError:
    """An error that names the keys."""
    return ConfigError([f"{key_text(path)}: {text}" for path, text in problems])


def read_options(
    model: type[M], name: str, table: Mapping[str, Any], error: OptionsError = plain_error, *, section: str = "actions"
) -> M:
    """The options in the table ``[SECTION.NAME]``. Raises :class:`~uploadguard.errors.ConfigError`, without values."""
    try:
        return model.model_validate(dict(table))
    except ValidationError as problem:
        found = [((section, name, *path), text) for path, text in sentences_of(problem, model)]
    raise error(found)


def checked(check: Callable[[], T], name: str, key: str, error: OptionsError) -> T:
    """What ``check`` gives; its ``ValueError`` as what is wrong with the key ``key`` of ``[actions.NAME]``."""
    try:
        return check()
    except ValueError as problem:
        found = [(("actions", name, key), str(problem))]
    raise error(found)


def _some(occasions: tuple[str, ...]) -> tuple[str, ...]:
    if not occasions:
        raise ValueError("must not be empty")
    if len(set(occasions)) < len(occasions):
        raise ValueError("the same occasion stands there twice")
    return occasions


class DestinationOptions(Section):
    """What every kind takes."""

    kind: str
    occasions: Annotated[tuple[Literal["report", "release", "delete", "ban"], ...], AfterValidator(_some)] = ("report",)
    lists: UniqueNames = ()


class Destination:
    """The half of an :class:`~uploadguard.actions.Action` that follows from its options; ``deliver`` is the other."""

    def __init__(self, name: str, options: DestinationOptions) -> None:
        self._name = name
        self._occasions = frozenset(map(Occasion, options.occasions))
        self._lists = frozenset(options.lists)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @property
    def name(self) -> str:
        """The name of its table."""
        return self._name

    @property
    def occasions(self) -> frozenset[Occasion]:
        """What it wants tasks for."""
        return self._occasions

    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:  # noqa: ARG002
        """Whether it wants a task for this decision: one that matched one of its ``lists``, where it has any."""
        return not self._lists or any(m.list_name in self._lists for m in decision.matches if not m.allow)


class Secret:
    """A secret in an environment variable or a file. It is read anew each time, so a file can be replaced meanwhile."""

    __slots__ = ("_env", "_file")

    def __init__(self, env: str | None, file: Path | None) -> None:
        self._env = env
        self._file = file

    def __repr__(self) -> str:
        return "Secret(<redacted>)"

    def __bool__(self) -> bool:
        """Whether there is one at all."""
        return self._env is not None or self._file is not None

    def text(self) -> str:
        """All of it, without line ends around. Raises :class:`~uploadguard.errors.PostponedError`."""
        try:
            return _read_file(self._file) if self._file is not None else _read_variable(self._env or "")
        except ValueError as error:
            raise PostponedError(f"there is no secret: its option {error}") from None

    def words(self) -> list[str]:
        """Its words, where it is several secrets, apart by white space. Raises as :meth:`text`."""
        return self.text().split()


def _read_variable(name: str) -> str:
    found = os.environ.get(name, "").strip("\r\n")
    if not found.strip():
        raise ValueError("names an environment variable that is not set, or empty")
    return found


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SECRET_BYTES + 1)
        found = data.decode("utf-8").strip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot be read from its file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is in a file that is not UTF-8 text") from None
    if not found.strip() or len(data) > _MAX_SECRET_BYTES:
        raise ValueError("is in a file that is empty, or too large for one")
    return found


def _checked_variable(name: str) -> str:
    _read_variable(name)
    return name


def _checked_file(path: Path) -> Path:
    _read_file(path)
    return path


EnvName = Annotated[str, Field(min_length=1), AfterValidator(_checked_variable)]
"""The name of an environment variable that is set."""

SecretFile = Annotated[Path, AfterValidator(_checked_file)]
"""A file with a secret in it."""

TimeoutS = Annotated[float, Strict(), Field(ge=0.1, le=60, allow_inf_nan=False)]
"""How long one attempt may take, in seconds: an action has a minute."""
