"""``uploadguard console``: the review console, and its own accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.opened import opened_database
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_warning
from uploadguard.cli.person import acting_option, acting_person
from uploadguard.cli.state import State
from uploadguard.cli.times import day_text, iso_time

if TYPE_CHECKING:
    from uploadguard.ledger.accounts import Accounts
    from uploadguard.ledger.people import Role

__all__ = ["console"]

_ROLES = ("review", "lead", "reveal", "evidence", "audit", "admin")

roles_option = click.option(
    "--role", "roles", type=click.Choice(_ROLES), multiple=True, required=True, help="May be given several times."
)


@click.group(invoke_without_command=True)
@click.option("--host", metavar="ADDRESS", help="The address to listen on, in place of console.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, in place of console.port; 0 takes a free one.")
@click.option("--root-path", metavar="PATH", default="", help="Under which path a proxy shows the console.")
@click.pass_context
def console(context: click.Context, host: str | None, port: int | None, root_path: str) -> Exit | None:
    """Run the review console; its commands make the accounts to sign in with.

    It speaks HTTP, for a proxy that does HTTPS, or for a browser on this machine.
    """
    if context.invoked_subcommand is not None:
        return None
    from uploadguard.errors import ConfigError

    try:
        from uploadguard.web.console import serving
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise ConfigError("the console needs the package uvicorn: pip install 'uploadguard[console]'") from error
    state: State = context.obj
    settings = state.load_settings()
    host, port = host or settings.console.host, settings.console.port if port is None else port
    with serving.console_server(settings, host, port, root_path=root_path) as server:
        if not server.accounts:
            report_warning("there are no accounts yet: `uploadguard console adduser NAME --role review` makes one")
        echo(f"The review console is at {server.url}")
        server.run()
    return Exit.OK


@console.command()
@click.argument("name")
@roles_option
@acting_option
@click.pass_obj
def adduser(state: State, name: str, roles: tuple[str, ...], acting: str | None) -> Exit:
    """Make the account NAME and print its password, which is shown this once."""
    with _accounts(state) as accounts:
        echo(accounts.add(name, _roles(roles), acting_person(acting)))
    return Exit.OK


@console.command()
@click.argument("name")
@acting_option
@click.pass_obj
def passwd(state: State, name: str, acting: str | None) -> Exit:
    """Give the account NAME a new password, print it, and end its sessions."""
    with _accounts(state) as accounts:
        echo(accounts.set_password(name, acting_person(acting)))
    return Exit.OK


@console.command()
@click.argument("name")
@roles_option
@acting_option
@click.pass_obj
def roles(state: State, name: str, roles: tuple[str, ...], acting: str | None) -> Exit:
    """Give the account NAME these roles in place of those it has."""
    with _accounts(state) as accounts:
        accounts.set_roles(name, _roles(roles), acting_person(acting))
    echo(f"{name} has the roles {', '.join(sorted(set(roles)))}.")
    return Exit.OK


@console.command()
@click.argument("name")
@acting_option
@click.pass_obj
def disable(state: State, name: str, acting: str | None) -> Exit:
    """Shut the account NAME out, and end its sessions. What it did stays in the log."""
    with _accounts(state) as accounts:
        accounts.disable(name, acting_person(acting))
    echo(f"{name} is shut out.")
    return Exit.OK


@console.command()
@click.argument("name")
@acting_option
@click.pass_obj
def enable(state: State, name: str, acting: str | None) -> Exit:
    """Let the account NAME in again, with its password."""
    with _accounts(state) as accounts:
        accounts.enable(name, acting_person(acting))
    echo(f"{name} may sign in again.")
    return Exit.OK


@console.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each account.")
@click.pass_obj
def users(state: State, as_json: bool) -> Exit:
    """Show the accounts."""
    with _accounts(state) as accounts:
        found = accounts.list()
    if as_json:
        for one in found:
            print_json(
                {
                    "name": one.name,
                    "roles": sorted(one.roles),
                    "disabled": one.disabled,
                    "created": iso_time(one.created_at),
                }
            )
        return Exit.OK
    if not found:
        echo("There are no accounts. `uploadguard console adduser NAME --role review` makes one.")
        return Exit.OK
    table = new_table("Name", "Roles", "State", "Since", fold=["Name", "Roles"])
    print_table(
        table,
        [
            (one.name, ", ".join(sorted(one.roles)), "shut out" if one.disabled else "", day_text(one.created_at))
            for one in found
        ],
    )
    return Exit.OK


@contextmanager
def _accounts(state: State) -> Iterator[Accounts]:
    from uploadguard.ledger.accounts import Accounts

    with opened_database(state.load_settings()) as database:
        yield Accounts(database)


def _roles(names: tuple[str, ...]) -> frozenset[Role]:
    from uploadguard.ledger.people import Role

    return frozenset(Role(name) for name in names)
