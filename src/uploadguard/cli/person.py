"""Who acts on the command line: whoever can run it with the ledger's database at hand may do all."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from uploadguard.ledger.people import Person

__all__ = ["acting_option", "acting_person"]


def acting_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--as``, which a command takes as ``acting``."""
    option = click.option(
        "--as", "acting", metavar="NAME", help="Who does this, as the audit log has it. [default: your login name]"
    )
    return option(command)


def acting_person(acting: str | None) -> Person:
    """The person of that name, else of the login name, with all roles."""
    from uploadguard.ledger.people import Person, Role, is_machine

    if acting is not None and not acting.strip():
        raise click.BadParameter("give a name", param_hint="--as")
    name = acting or getpass.getuser()
    if is_machine(name):
        raise click.BadParameter("that name is the library's own in the audit log; give yours", param_hint="--as")
    return Person(name, frozenset(Role))
