"""``uploadguard lists update``: single entries of a list."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.lists import reading_options, require_signal_type, size_bytes_of
from uploadguard.cli.output import STDIN, file_fields, hash_counts, new_table, print_json, print_table
from uploadguard.cli.progress import ImportProgress
from uploadguard.cli.staged import end_of_change, trial_row
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.importing import FileUpdate

__all__ = ["update"]


@click.command()
@click.argument("name")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--remove-ids",
    "ids_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A text file with the ids of entries to remove, one a line.",
)
@reading_options
@click.option("--strict", is_flag=True, help="Change nothing if a line is bad.")
@click.option("--stage", is_flag=True, help="Only stage it: `uploadguard lists activate` puts it in force.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each bad line, then one that sums up.")
@click.pass_obj
def update(
    state: State,
    name: str,
    file: Path | None,
    ids_file: Path | None,
    format_name: str | None,
    signal_type: str | None,
    columns: dict[str, str],
    delimiter: str | None,
    strict: bool,
    stage: bool,
    as_json: bool,
) -> Exit:
    """Change single entries of the list NAME: remove some by their ids, then add those of FILE.

    An entry of FILE replaces those of the same id; each must have an id. Writes a small file, whatever the list's size.
    """
    if file is None and ids_file is None:
        raise click.UsageError("nothing to do: give FILE, --remove-ids, or both")
    if as_json and file is not None:
        state.error_record = {"kind": "error", **file_fields(str(file))}
    from uploadguard.errors import HeldListError
    from uploadguard.importing import update_from_file
    from uploadguard.opening import open_hashset
    from uploadguard.plugins import Plugins

    settings = state.load_settings()
    plugins = Plugins(settings)
    require_signal_type(signal_type, plugins)
    shown = "standard input" if file is not None and str(file) == STDIN else str(file)
    started = time.perf_counter()
    with ImportProgress(shown, size_bytes_of(file) if file is not None else None, as_json=as_json) as progress:
        held: HeldListError | None = None
        try:
            done = update_from_file(
                open_hashset(settings),
                name,
                sys.stdin.buffer if file is not None and str(file) == STDIN else file,
                plugins,
                removed=_ids(ids_file) if ids_file is not None else (),
                format_name=format_name,
                signal_type=signal_type,
                columns=columns,
                delimiter=delimiter,
                strict=strict,
                stage=stage,
                watcher=progress,
            )
        except HeldListError as error:
            held, done = error, cast("FileUpdate", error.outcome)
    elapsed_s = time.perf_counter() - started
    if as_json:
        named = file_fields(str(file)) if file is not None else {"file": None}
        print_json({"kind": "summary", **named, **done.to_dict(), "elapsed_s": round(elapsed_s, 3)})
    else:
        _print(done, elapsed_s)
    return end_of_change(name, held, is_staged=not done.update.in_force)


def _ids(path: Path) -> Iterator[str]:
    """The lines that are not blank."""
    from uploadguard.errors import ListFormatError

    with path.open(encoding="utf-8-sig") as lines:
        try:
            yield from (line.strip() for line in lines if line.strip())
        except UnicodeDecodeError:
            raise ListFormatError("is not UTF-8 text", path=path) from None


def _print(done: FileUpdate, elapsed_s: float) -> None:
    info = done.update.info
    rows = [
        ("entries added", f"{done.update.added:,}"),
        ("entries removed", f"{done.update.removed:,}"),
        ("bad lines", f"{done.bad_lines:,}"),
        *(("ignored hashes", f"{count:,}: {reason}") for reason, count in done.ignored.items()),
        ("list now" if done.update.in_force else "list then", f"{info.entries:,} entries; {hash_counts(info.hashes)}"),
        ("generation", str(done.update.generation)),
        ("seconds", f"{elapsed_s:.1f}"),
    ]
    if done.judgement is not None:
        rows.append(trial_row(done.judgement))
    title = "Updated" if done.update.in_force else "Staged"
    print_table(new_table(title, info.name, fold=[info.name]), rows)
