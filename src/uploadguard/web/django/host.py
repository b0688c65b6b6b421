"""What the host set up: the setting UPLOADGUARD, and this process's one Guard, opened when it is first needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from uploadguard.config import Settings
from uploadguard.errors import UploadguardError
from uploadguard.guard import Guard
from uploadguard.models import Context
from uploadguard.web.answers import Shape
from uploadguard.web.arriving import Queue
from uploadguard.web.intake import Hold, Intake
from uploadguard.web.opened import OpenedOnce

__all__ = ["Host", "close_guard", "context_of", "get_guard", "get_intake", "read_host"]

_CALLABLES = ("HOLD", "CONTEXT", "SHAPE")
_KEYS = ("CONFIG", "OVERRIDES", "QUEUE", *_CALLABLES)


@dataclass(frozen=True, slots=True)
class Host:
    """The setting UPLOADGUARD, read."""

    config: str | os.PathLike[str] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    queue: Queue = "answer"
    hold: Hold | None = None
    context: Callable[[Any, str | None], Context] | None = None
    shape: Shape | None = None

    def load_settings(self) -> Settings:
        """The library's own settings. Raises :class:`~uploadguard.errors.ConfigError`."""
        return Settings.load(self.config, **self.overrides)


def read_host() -> Host:
    """Read the setting. Raises ``ImproperlyConfigured``, which names the key."""
    table = getattr(django_settings, "UPLOADGUARD", None)
    if not isinstance(table, Mapping):
        raise ImproperlyConfigured('set UPLOADGUARD = {"CONFIG": BASE_DIR / "uploadguard.toml"}')
    unknown = [str(key) for key in table if key not in _KEYS]
    if unknown:
        raise ImproperlyConfigured(f"UPLOADGUARD has no key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    queue = table.get("QUEUE", "answer")
    if queue not in ("answer", "pass"):
        raise ImproperlyConfigured('UPLOADGUARD["QUEUE"] must be "answer" or "pass"')
    overrides = table.get("OVERRIDES") or {}
    if not isinstance(overrides, Mapping):
        raise ImproperlyConfigured('UPLOADGUARD["OVERRIDES"] must be a mapping of the library\'s settings')
    found = {key.lower(): _callable(key, table.get(key)) for key in _CALLABLES}
    return Host(table.get("CONFIG"), overrides, queue, **found)


def _callable(key: str, value: Any) -> Any:
    """A callable, or the dotted path of one."""
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise ImproperlyConfigured(f'UPLOADGUARD["{key}"] cannot be imported: {error}') from error
    if value is not None and not callable(value):
        raise ImproperlyConfigured(f'UPLOADGUARD["{key}"] must be callable, or the dotted path of a callable')
    return value


def _open() -> tuple[Host, Intake]:
    host = read_host()
    try:
        guard = Guard(host.load_settings())
    except UploadguardError as error:
        raise ImproperlyConfigured(f"uploads cannot be checked: {error}") from error
    return host, Intake(guard, hold=host.hold, queue=host.queue, shape=host.shape)


_OPENED: OpenedOnce[tuple[Host, Intake]] = OpenedOnce(_open, lambda opened: opened[1].guard.close())


def get_guard() -> Guard:
    """This process's Guard, opened if it was not yet: for what else the host wants to know of it.

    Raises ``ImproperlyConfigured`` where it cannot be opened.
    """
    return get_intake().guard


def get_intake() -> Intake:
    """The Guard with what the host says of the answers. Raises ``ImproperlyConfigured``."""
    return _OPENED.get()[1]


def close_guard(**_signal: Any) -> None:
    """Close it, if it is open; the next upload opens another one. At exit this is done anyway."""
    _OPENED.close()


def setting_changed(*, setting: str, **_signal: Any) -> None:
    """A test overrides Django's settings."""
    if setting == "UPLOADGUARD":
        close_guard()


def context_of(request: Any, filename: str | None) -> Context:
    """What is known of an upload. ``request`` is None where only the file is at hand."""
    host = _OPENED.get()[0]
    if request is None:
        return Context(filename=filename)
    if host.context is not None:
        return host.context(request, filename)
    port = str(request.META.get("REMOTE_PORT") or "")
    return Context(
        filename=filename,
        ip=cast("str | None", request.META.get("REMOTE_ADDR") or None),
        port=int(port) if port.isdecimal() else None,
    )
