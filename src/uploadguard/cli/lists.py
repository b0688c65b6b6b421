"""``uploadguard lists``: the lists of the hash set."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from uploadguard.cli.breaker import print_trips, read_trips, trip_record
from uploadguard.cli.exits import Exit
from uploadguard.cli.output import (
    STDIN,
    echo,
    file_fields,
    hash_counts,
    new_table,
    print_json,
    print_table,
    problems_of,
    report_error,
    report_warning,
    size_text,
)
from uploadguard.cli.progress import ImportProgress
from uploadguard.cli.staged import end_of_change, print_staged, staged_record, trial_row
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.hashset import HashSet, ListInfo
    from uploadguard.importing import ListImport
    from uploadguard.plugins import Plugins

__all__ = ["lists", "reading_options", "require_signal_type", "size_bytes_of"]


@click.group()
def lists() -> None:
    """Import, show and remove hash lists."""


def _columns(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for value in values:
        key, equals, column = value.partition("=")
        if not (key and equals and column):
            raise click.BadParameter("give KEY=COLUMN, as in md5=Hash or sha1=3")
        if key in mapping:
            raise click.BadParameter("the same KEY stands there twice")
        mapping[key] = column
    return mapping


_READING_OPTIONS = (
    click.option("--format", "format_name", metavar="NAME", help="txt, csv, jsonl, vics, icse, or a plugin's."),
    click.option("--signal-type", metavar="NAME", help="What kind of hash a file of bare hashes holds."),
    click.option(
        "--column",
        "columns",
        metavar="KEY=COLUMN",
        multiple=True,
        callback=_columns,
        help="Where a table has what: KEY is a signal type, id or category, COLUMN a heading or a number from 1.",
    ),
    click.option("--delimiter", metavar="CHAR", help="What separates a table's columns."),
)


def reading_options(command: Callable[..., Exit]) -> Callable[..., Exit]:
    """The options that say how to read a list file."""
    for option in reversed(_READING_OPTIONS):
        command = option(command)
    return command


@lists.command()
@click.argument("name")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@reading_options
@click.option("--allow", is_flag=True, help="An allow-list: reviewed files that are to pass.")
@click.option("--replace", is_flag=True, help="Put the entries in place of those of the list of that name.")
@click.option("--allow-shrink", is_flag=True, help="With --replace: take a file far smaller than the list it replaces.")
@click.option("--append", is_flag=True, help="Add the entries to the list of that name.")
@click.option("--strict", is_flag=True, help="Import nothing if a line is bad.")
@click.option("--stage", is_flag=True, help="Only stage it: `uploadguard lists activate` puts it in force.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each bad line, then one that sums up.")
@click.pass_obj
def add(
    state: State,
    name: str,
    file: Path,
    format_name: str | None,
    signal_type: str | None,
    columns: dict[str, str],
    delimiter: str | None,
    allow: bool,
    replace: bool,
    allow_shrink: bool,
    append: bool,
    strict: bool,
    stage: bool,
    as_json: bool,
) -> Exit:
    """Import FILE as the list NAME; - is standard input.

    The format and the delimiter are found out where no option names them. Bad lines are reported and left out. The list
    is tried on ordinary pictures; beyond the bounds of [safety] it is only staged, and this ends with 4. Uploads are
    checked against the old hash set until the import is done, and go on being so if it fails or is held.
    """
    if replace and append:
        raise click.UsageError("--replace or --append, not both")
    if as_json:
        state.error_record = {"kind": "error", **file_fields(str(file))}
    from uploadguard.errors import HeldListError
    from uploadguard.importing import import_list
    from uploadguard.opening import open_hashset
    from uploadguard.plugins import Plugins

    settings = state.load_settings()
    plugins = Plugins(settings)
    require_signal_type(signal_type, plugins)
    hashset = open_hashset(settings)
    present = _present(hashset, name)
    if present is not None and not replace:
        _require_match(present, append=append, allow=allow)
    started = time.perf_counter()
    shown = str(file) if str(file) != STDIN else "standard input"
    with ImportProgress(shown, size_bytes_of(file), as_json=as_json) as progress:
        held: HeldListError | None = None
        try:
            done = import_list(
                hashset,
                name,
                file if str(file) != STDIN else sys.stdin.buffer,
                plugins,
                format_name=format_name,
                signal_type=signal_type,
                columns=columns,
                delimiter=delimiter,
                role="allow" if allow else "deny",
                replace=replace,
                append=append,
                strict=strict,
                stage=stage,
                allow_shrink=allow_shrink,
                watcher=progress,
            )
        except HeldListError as error:
            held, done = error, cast("ListImport", error.outcome)
    elapsed_s = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "kind": "summary",
                **file_fields(str(file)),
                **done.to_dict(),
                "new_list": present is None,
                "elapsed_s": round(elapsed_s, 3),
            }
        )
    else:
        _print_import(shown, done, elapsed_s, "new list" if present is None else "replaced" if replace else "added to")
    return end_of_change(name, held, is_staged=not done.in_force)


def require_signal_type(name: str | None, plugins: Plugins) -> None:
    """Refuse the name of a signal type that is not registered."""
    if name is not None and name not in plugins.signal_types:
        raise click.BadParameter(
            f"no such signal type; there are: {', '.join(sorted(plugins.signal_types))}", param_hint="--signal-type"
        )


def size_bytes_of(file: Path) -> int | None:
    """The size of a regular file."""
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None


def _present(hashset: HashSet, name: str) -> ListInfo | None:
    """The list of that name."""
    return next((info for info in hashset.lists() if info.name == name), None)


def _require_match(present: ListInfo, *, append: bool, allow: bool) -> None:
    """Say, in terms of this command, where the hash set would refuse an import for the list that is there."""
    from uploadguard.errors import ListError

    if not append:
        raise ListError(
            f"there is a list {present.name!r} already: --replace puts the file in its place, --append adds to it"
        )
    if (present.role == "allow") != allow:
        kind, how = ("an", "give --allow to append to it") if not allow else ("no", "append to it without --allow")
        raise ListError(f"the list {present.name!r} is {kind} allow-list: {how}, or use --replace")


def _print_import(shown: str, done: ListImport, elapsed_s: float, what: str) -> None:
    rows = [
        ("list", what),
        ("role", done.info.role),
        ("file", f"{shown} ({done.format})"),
        ("entries", f"{done.entries:,}"),
        *((f"{signal} hashes", f"{count:,}") for signal, count in done.hashes.items()),
        ("bad lines", f"{done.bad_lines:,}"),
        *(("ignored hashes", f"{count:,}: {reason}") for reason, count in done.ignored.items()),
        ("generation", str(done.generation)),
        ("seconds", f"{elapsed_s:.1f}"),
    ]
    if done.info.segments > 1:
        when = "list now" if done.in_force else "list then"
        rows.append((when, f"{done.info.entries:,} entries; {hash_counts(done.info.hashes)}"))
    if done.judgement is not None:
        rows.append(trial_row(done.judgement))
    print_table(new_table("Imported" if done.in_force else "Staged", done.info.name, fold=[done.info.name]), rows)


@lists.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each list.")
@click.pass_obj
def status(state: State, as_json: bool) -> Exit:
    """Show the lists of the hash set, and what is staged.

    Ends with 4 where a list is tripped or a staged change waits, and with 1 where the hash set or the file of tripped
    lists is damaged.
    """
    from uploadguard.errors import HashSetError
    from uploadguard.opening import open_hashset

    settings = state.load_settings()
    hashset = open_hashset(settings)
    code = Exit.OK
    sizes_bytes: dict[str, int] = {}
    try:
        sizes_bytes = _sizes_bytes(hashset)
    except HashSetError as error:
        report_error(problems_of(error)[0])
        code = Exit.ERROR
    infos = hashset.lists()
    built_in = _built_in() if settings.hashset.test_list else None
    trips = read_trips(settings)
    if trips is None:
        code = Exit.ERROR
    staged = {item.list_name: item for item in hashset.staging.changes()}
    if code is Exit.OK and (trips or staged):
        code = Exit.ALARM
    if as_json:
        for info in infos:
            marks = {"tripped": trip_record(trips, info.name), "staged": staged_record(staged.pop(info.name, None))}
            print_json({**_record(info, sizes_bytes.get(info.name)), **marks})
        for item in staged.values():  # new lists
            marks = {"tripped": trip_record(trips, item.list_name), "staged": staged_record(item)}
            print_json({"name": item.list_name, "role": item.after.role, "entries": 0, **marks})
        if built_in is not None:
            print_json(built_in)
        shown_before = {info.name for info in infos} | staged.keys()
        for name in (trips or {}).keys() - shown_before:  # a match service, or a list that is gone
            print_json({"name": name, "role": None, "tripped": trip_record(trips, name)})
        return code
    if not infos:
        echo("The hash set holds no list. `uploadguard lists add NAME FILE` imports one.")
        if built_in is None:
            print_staged(staged.values())
            print_trips(trips)
            return code
        echo()
    table = new_table(
        "Name", "Role", "Entries", "Hashes", "Added", "Source", "Size",
        right=["Entries", "Size"], fold=["Name", "Hashes", "Source"],
    )  # fmt: skip
    rows = [
        (
            info.name,
            info.role,
            f"{info.entries:,}",
            hash_counts(info.hashes),
            f"{info.added_at:%Y-%m-%d}",
            info.source,
            size_text(sizes_bytes[info.name]) if info.name in sizes_bytes else "damaged",
        )
        for info in infos
    ]
    if built_in is not None:
        rows.append(
            (
                built_in["name"],
                built_in["role"],
                built_in["entries"],
                hash_counts(built_in["hashes"]),
                "",
                "built-in",
                "",
            )
        )
    print_table(table, rows)
    print_staged(staged.values())
    print_trips(trips)
    return code


def _record(info: ListInfo, size_bytes: int | None) -> dict[str, Any]:
    return {
        "name": info.name,
        "role": info.role,
        "entries": info.entries,
        "hashes": dict(info.hashes),
        "added": info.added_at.isoformat(),
        "updated": info.updated_at.isoformat(),
        "source": info.source,
        "size_bytes": size_bytes,
    }


def _built_in() -> dict[str, Any]:
    """The built-in test list, as :func:`_record` has others."""
    from uploadguard.testing.testlist import TEST_LIST_NAME, entries

    listed = list(entries())
    hashes = Counter(name for entry in listed for name, _ in entry.hashes)
    return {
        "name": TEST_LIST_NAME,
        "role": "deny",
        "entries": len(listed),
        "hashes": dict(hashes),
        "added": None,
        "updated": None,
        "source": "built-in",
        "size_bytes": None,
        "tripped": None,
    }


def _sizes_bytes(hashset: HashSet) -> dict[str, int]:
    """Each list's size on disk."""
    generation = hashset.load(verify=False, prepare=False)
    try:
        sizes: dict[str, int] = {}
        for segment in generation.segments:
            name = segment.metadata.list_name
            sizes[name] = sizes.get(name, 0) + segment.size_bytes
        return sizes
    finally:
        generation.close()


@lists.command()
@click.argument("name")
@click.option("--purge", is_flag=True, help="Drop the previous generations, so that its files go at once.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(state: State, name: str, purge: bool, yes: bool) -> Exit:
    """Remove the list NAME. Asks first; where nobody can answer, --yes is needed."""
    from uploadguard.errors import UnknownListError
    from uploadguard.opening import open_hashset

    hashset = open_hashset(state.load_settings())
    found = _present(hashset, name)
    if found is None:
        raise UnknownListError("there is no list of that name in the hash set; `uploadguard lists status` shows all")
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on; give --yes to remove the list")
        question = f"Remove the list {found.name!r} with {found.entries:,} entries? Nothing will match them any more."
        if not click.confirm(question, err=True):
            echo("Nothing was changed.")
            return Exit.OK
    if any(item.list_name == name for item in hashset.staging.changes()):
        report_warning("what is staged for the list goes with it")
    hashset.remove_list(name, purge=purge)
    echo(f"Removed {found.name}: {found.entries:,} entries. Generation {hashset.generation} is in force.")
    if not any(info.role == "deny" for info in hashset.lists()):
        report_warning("no list to match uploads against is left: none can be checked until one is imported")
    return Exit.OK
