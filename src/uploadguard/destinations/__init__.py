"""Where reports and callbacks go: the built-in kinds of ``[actions.NAME]``, and what other kinds can be made of.

A kind's module is imported once a table asks for it; :func:`builtin_actions` is what the built-in plugin answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from uploadguard.actions import Action
from uploadguard.destinations.options import OptionsError, plain_error

__all__ = ["KINDS", "builtin_actions"]

KINDS: Mapping[str, str] = {
    "file": "uploadguard.destinations.file:FileDrop",
    "webhook": "uploadguard.destinations.webhook:Webhook",
    "xarf": "uploadguard.destinations.xarf:XarfReporter",
}
"""The built-in kinds: module and class."""


def builtin_actions(tables: Mapping[str, Mapping[str, Any]], error: OptionsError = plain_error) -> list[Action]:
    """The actions of those tables whose kind is built in. Raises :class:`~uploadguard.errors.ConfigError`."""
    return [_class_of(table["kind"])(name, table, error) for name, table in tables.items() if _is_ours(table)]


def _is_ours(table: Mapping[str, Any]) -> bool:
    kind = table.get("kind")
    return isinstance(kind, str) and kind in KINDS


def _class_of(kind: str) -> Callable[[str, Mapping[str, Any], OptionsError], Action]:
    module, _, name = KINDS[kind].partition(":")
    made: Callable[[str, Mapping[str, Any], OptionsError], Action] = getattr(import_module(module), name)
    return made
