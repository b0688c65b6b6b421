"""Who acts on the command line: whoever can run it can do everything, and their name goes into the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from uploadguard.ledger.people import Person

__all__ = ["as_option", "person_of"]


def as_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--as``; its value is the parameter ``actor``, for :func:`person_of`."""
    option = click.option("--as", "actor", metavar="NAME", help="Who does this, for the audit log; you by default.")
    return option(command)


def person_of(actor: str | None) -> Person:
    """The person of that name, otherwise of the login name, with all roles."""
    import getpass

    from uploadguard.ledger.people import Person, Role

    if actor is not None and not actor.strip():
        raise click.BadParameter("give a name", param_hint="--as")
    return Person(actor.strip() if actor is not None else getpass.getuser(), frozenset(Role))
