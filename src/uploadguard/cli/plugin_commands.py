"""Commands of plugins: entry points in the group ``uploadguard.commands``, each a click command by its name.

None is imported until its name is asked for, so that the program's help stays quick whatever is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from uploadguard.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["COMMANDS_GROUP", "load_command", "packages_by_command"]

COMMANDS_GROUP = "uploadguard.commands"


def packages_by_command() -> Mapping[str, str]:
    """The commands that installed packages add, in order, each with its package's name. Imports none of them."""
    from importlib import metadata

    points = metadata.entry_points(group=COMMANDS_GROUP)
    return {point.name: _package_of(point) for point in sorted(points, key=lambda one: one.name)}


def _package_of(point: EntryPoint) -> str:
    """The package's name; empty where what is installed of it does not tell."""
    try:
        return (point.dist.name or "") if point.dist is not None else ""
    except Exception:  # noqa: BLE001 - half of another package must not take the program's help away
        return ""


def load_command(name: str) -> click.Command | None:
    """Import the command of that name; None if no package adds one.

    Raises :class:`~uploadguard.errors.PluginError` for one that cannot be imported, that is no command, or that two
    packages add.
    """
    from importlib import metadata

    points = tuple(metadata.entry_points(group=COMMANDS_GROUP, name=name))
    if not points:
        return None
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted({_package_of(point) for point in points}))
        raise PluginError(name, f"several packages add this command: {packages}")
    try:
        command = points[0].load()
    except Exception as error:
        raise PluginError(name, f"its command could not be imported: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise PluginError(name, f"its entry point in {COMMANDS_GROUP} is no click command")
    return command
