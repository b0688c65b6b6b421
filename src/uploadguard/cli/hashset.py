"""``uploadguard hashset``: looking after the files that uploads are looked up in."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.newkey import make_key_file
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_error, report_warning, size_text
from uploadguard.cli.progress import ProgressBar
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.hashset import BucketSkew, HashSet, ListStats
    from uploadguard.hashset.directory import EncryptedFiles

__all__ = ["hashset"]


@click.group()
def hashset() -> None:
    """Verify, measure, compact, roll back and encrypt the hash set."""


def _open(state: State) -> HashSet:
    from uploadguard.opening import open_hashset

    return open_hashset(state.load_settings())


@hashset.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def verify(state: State, as_json: bool) -> Exit:
    """Read every file of the hash set and compare checksums. Ends with 1 if one is missing or damaged."""
    result = _open(state).verify()
    if as_json:
        print_json(
            {
                "ok": result.ok,
                "generation": result.generation,
                "segments": result.segments,
                "size_bytes": result.size_bytes,
                "problems": [
                    {"file": problem.path.name, "reason": problem.reason, "in_force": problem.in_force}
                    for problem in result.problems
                ],
                "leftovers": [path.name for path in result.leftovers],
            }
        )
        return Exit.OK if result.ok else Exit.ERROR
    for problem in result.problems:
        place = "" if problem.in_force else " (not in force)"
        report_error(f"{problem.path}{place}: {problem.reason}")
    rows = [
        ("generation", str(result.generation)),
        ("segments", f"{result.segments:,}"),
        ("size", size_text(result.size_bytes)),
        ("problems", f"{len(result.problems):,}"),
    ]
    if result.leftovers:
        rows.append(("leftovers", f"{len(result.leftovers):,}: of a writer at work, or gone with the next change"))
    print_table(new_table("Hash set", "all in order" if result.ok else "damaged"), rows)
    return Exit.OK if result.ok else Exit.ERROR


@hashset.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def stats(state: State, as_json: bool) -> Exit:
    """Show what the hash set holds: entries, sizes, age, and how evenly perceptual hashes are spread."""
    opened = _open(state)
    found, files = opened.stats(), opened.encrypted_files()
    if as_json:
        print_json(
            {
                "generation": found.generation,
                "created": found.created_at.isoformat(),
                "age_s": round(found.age_s),
                "size_bytes": found.size_bytes,
                "previous": list(found.previous),
                "previous_bytes": found.previous_bytes,
                "staged_bytes": found.staged_bytes,
                "files": files.files,
                "encrypted_files": files.encrypted,
                "files_as_configured": files.as_configured,
                "lists": [_list_record(item) for item in found.lists],
            }
        )
        return Exit.OK
    previous = ", ".join(map(str, found.previous)) or "none"
    rows = [
        ("generation", str(found.generation)),
        ("age", str(timedelta(seconds=round(found.age_s)))),
        ("size", size_text(found.size_bytes)),
        ("previous", f"{previous}; {size_text(found.previous_bytes)} more"),
        ("encrypted", _encrypted_text(files)),
    ]
    if found.staged_bytes:
        rows.insert(4, ("staged", size_text(found.staged_bytes)))
    print_table(new_table("Hash set", ""), rows)
    if not found.lists:
        return Exit.OK
    echo()
    table = new_table(
        "List", "Signal type", "Hashes", "Entries", "Dead", "Segments", "Size", "Fullest line", "Overflow",
        right=["Hashes", "Entries", "Dead", "Segments", "Size", "Fullest line", "Overflow"], fold=["List"],
    )  # fmt: skip
    print_table(table, [row for item in found.lists for row in _list_rows(item)])
    return Exit.OK


def _encrypted_text(files: EncryptedFiles) -> str:
    text = f"{files.encrypted} of {files.files} files"
    if files.as_configured < files.files:
        text += f"; {files.files - files.as_configured} not as configured: `uploadguard hashset compact` rewrites them"
    return text


def _list_record(item: ListStats) -> dict[str, Any]:
    return {
        "name": item.info.name,
        "role": item.info.role,
        "entries": item.info.entries,
        "dead_entries": item.info.dead_entries,
        "segments": item.info.segments,
        "size_bytes": item.size_bytes,
        "updated": item.info.updated_at.isoformat(),
        "hashes": dict(item.info.hashes),
        "buckets": {name: _skew_record(skew) for name, skew in item.skew.items()},
    }


def _skew_record(skew: BucketSkew) -> dict[str, Any]:
    return {
        "lines": skew.lines,
        "rows": skew.rows,
        "fullest_line": skew.fullest_line,
        "overflowing_lines_share": round(skew.overflowing_lines_share, 6),
        "overflowing_rows_share": round(skew.overflowing_rows_share, 6),
    }


def _skew_texts(skew: BucketSkew | None) -> tuple[str, str]:
    """The fullest line, and how many rows are in overflow; nothing where hashes are not in tables."""
    if skew is None or not skew.lines:
        return "", ""
    return f"{skew.fullest_line:,}", f"{skew.overflowing_rows_share:.2%}"


def _list_rows(item: ListStats) -> list[tuple[str, ...]]:
    """A row for each signal type; the first has what is said of the whole list."""
    info = item.info
    whole = (f"{info.entries:,}", f"{info.dead_entries:,}", f"{info.segments:,}", size_text(item.size_bytes))
    rows: list[tuple[str, ...]] = []
    for name, count in info.hashes.items() or [("none", 0)]:
        buckets = _skew_texts(item.skew.get(name))
        rows.append((info.name if not rows else "", name, f"{count:,}", *(whole if not rows else ("",) * 4), *buckets))
    return rows


@hashset.command()
@click.option("--keep-previous", is_flag=True, help="Leave the previous generations, and all their files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def compact(state: State, keep_previous: bool, as_json: bool) -> Exit:
    """Rewrite each list that was changed as one file, and drop the previous generations.

    After that nothing that was removed is on the disk any more, and there is nothing to roll back to. Lists whose files
    are not encrypted as configured are rewritten too. Checks go on undisturbed.
    """
    with ProgressBar() as bar:
        done = _open(state).compact(
            keep_previous=keep_previous,
            compiling=lambda name, done_bytes, total_bytes: bar.show(f"compacting {name}", done_bytes, total_bytes),
        )
    if as_json:
        print_json(
            {
                "generation": done.generation,
                "lists": done.lists,
                "dead_entries": done.dead_entries,
                "before_bytes": done.before_bytes,
                "after_bytes": done.after_bytes,
                "kept_previous": done.kept_previous,
            }
        )
        return Exit.OK
    rows = [
        ("lists rewritten", f"{done.lists:,}"),
        ("dead entries dropped", f"{done.dead_entries:,}"),
        ("size before", size_text(done.before_bytes)),
        ("size after", size_text(done.after_bytes)),
        ("previous generations", "kept" if done.kept_previous else "dropped"),
    ]
    print_table(new_table("Generation", str(done.generation)), rows)
    return Exit.OK


@hashset.command()
@click.option("--to", "generation", type=click.IntRange(min=0), metavar="N", help="The generation; else the latest.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def rollback(state: State, generation: int | None, yes: bool, as_json: bool) -> Exit:
    """Put a previous generation's lists in force again. Asks first; where nobody can answer, --yes is needed.

    The generation in force until then becomes a previous one: another rollback takes this one back.
    """
    opened = _open(state)
    previous = opened.previous_generations
    target = generation if generation is not None else next(iter(previous), None)
    before = opened.generation
    if not yes and target in previous:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on; give --yes to roll back")
        if not click.confirm(f"Put generation {target} in force in place of {before}?", err=True):
            echo("Nothing was changed.")
            return Exit.OK
    now = opened.rollback(target)
    if as_json:
        print_json({"generation": now, "restored": target, "replaced": before})
    else:
        echo(f"Generation {target} is in force again, as generation {now}, in place of {before}.")
    if not any(info.role == "deny" and info.entries for info in opened.lists()):
        report_warning("no list to match uploads against is left: checks will raise until one is imported")
    return Exit.OK


@hashset.command()
@click.argument("file", type=click.Path(path_type=Path))
def newkey(file: Path) -> Exit:
    """Write a new random key to FILE, for hashset.encryption.key_file. Overwrites nothing.

    Only this user can read FILE. Keep a copy where the hash set is not: without its key it cannot be read.
    """
    return make_key_file(file)
