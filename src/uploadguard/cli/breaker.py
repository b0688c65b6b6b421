"""``uploadguard lists reset``, and what ``lists status`` says of tripped lists: those that matched too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo, new_table, print_table, problems_of, report_error
from uploadguard.cli.state import State
from uploadguard.cli.times import iso_time, time_text

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.tripped import Trip, TrippedFile

__all__ = ["print_trips", "read_trips", "reset", "trip_record"]

_UNKNOWN = {"at": None, "matched": None, "checks": None}


def _file(settings: Settings) -> TrippedFile:
    from uploadguard.opening import hashset_keys
    from uploadguard.tripped import TrippedFile

    return TrippedFile(settings.hashset.path, hashset_keys(settings))


def read_trips(settings: Settings) -> Mapping[str, Trip] | None:
    """The tripped lists by name; None where they cannot be known, which is said on standard error."""
    from uploadguard.errors import HashSetError

    try:
        return _file(settings).read().trips
    except HashSetError as error:
        report_error(problems_of(error)[0])
        return None


def trip_record(trips: Mapping[str, Trip] | None, name: str) -> dict[str, Any] | None:
    """What is known of a list's trip as JSON types; None where it is not tripped."""
    from uploadguard.lists.local import LOCAL_LISTS

    if trips is None:
        return _UNKNOWN if name not in LOCAL_LISTS else None
    trip = trips.get(name)
    return {"at": iso_time(trip.at), "matched": trip.matched, "checks": trip.checks} if trip is not None else None


def print_trips(trips: Mapping[str, Trip] | None) -> None:
    """Print the tripped lists as a table, if there are any, and what that means."""
    if not trips:
        return
    echo()
    table = new_table("Tripped", "Since", "Matched", "Of checks", right=["Matched", "Of checks"], fold=["Tripped"])
    print_table(
        table,
        (
            [one.list_name, time_text(one.at), f"{one.matched:,} files, {one.percent:.1f} %", f"{one.checks:,}"]
            for one in trips.values()
        ),
    )
    echo("What they match is only queued, and not reported unasked. `uploadguard lists reset NAME` ends that.")


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them, also where it cannot be read any more which they are.")
@click.pass_obj
def reset(state: State, names: tuple[str, ...], every: bool) -> Exit:
    """Believe the lists NAME again that were tripped because they matched too much.

    Look first at what they matched: `uploadguard cases list`. Within hashset.refresh_s their matches block and are
    reported again, as the rules say.
    """
    from uploadguard.errors import UnknownListError

    if bool(names) == every:
        raise click.UsageError("name the lists to reset, or give --all")
    file = _file(state.load_settings())
    if every:
        file.clear()
        echo("No list is tripped any more.")
        return Exit.OK
    unknown = set(names) - file.read().trips.keys()
    if unknown:
        named = ", ".join(repr(name) for name in sorted(unknown))
        raise UnknownListError(f"not tripped: {named}; `uploadguard lists status` shows which lists are")
    for name in sorted(file.remove(names)):
        echo(f"{name} is not tripped any more.")
    return Exit.OK
