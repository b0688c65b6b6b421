"""``uploadguard evidence``: the preserved files of uploads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.newkey import make_key_file
from uploadguard.cli.opened import opened_ledger
from uploadguard.cli.output import echo, file_fields, new_table, print_json, print_table, size_text
from uploadguard.cli.person import acting_option, acting_person
from uploadguard.cli.state import State
from uploadguard.cli.times import day_text, iso_time

if TYPE_CHECKING:
    from uploadguard.ledger.evidence import EvidenceInfo

__all__ = ["evidence"]

_out = click.argument("out", type=click.Path(path_type=Path))
_decision = click.argument("decision_id", metavar="ID", type=int)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _words(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("say why")
    return value


_reason = click.option("--reason", required=True, metavar="TEXT", callback=_words, help="Why; kept in the audit log.")


@click.group()
def evidence() -> None:
    """Look at, hand out and destroy the preserved files of uploads.

    ID is that of a decision, as `list` shows it.
    """


@evidence.command("list")
@click.option("--case", "case_id", type=int, metavar="ID", help="Only those of this case.")
@click.option("--destroyed", is_flag=True, help="Those that are destroyed too.")
@click.option("--after", type=int, default=0, metavar="ID", help="Only those after this decision.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="So many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each file.")
@click.pass_obj
def list_files(options: State, case_id: int | None, destroyed: bool, after: int, limit: int, as_json: bool) -> Exit:
    """List preserved files, the oldest first."""
    with opened_ledger(options.load_settings()) as ledger:
        found = ledger.evidence.list(case_id=case_id, destroyed=destroyed, after=after, limit=limit)
    if as_json:
        for one in found:
            print_json(_record(one))
    elif not found:
        echo("There are no such files.")
    else:
        headings = ("Decision", "Case", "Size", "Media type", "Stored", "Keep until", "Viewed", "State")
        table = new_table(*headings, right=headings[:3], fold=["Media type"])
        print_table(table, (_row(one) for one in found))
        if len(found) == limit:
            echo(f"There may be more: --after {found[-1].decision_id}")
    return Exit.OK


@evidence.command()
@_decision
@_out
@_reason
@click.option("--clear", is_flag=True, help="In colour and sharp. It then counts as viewed.")
@click.option("--frame", type=click.IntRange(0), default=0, metavar="N", help="Which frame, from 0.  [default: 0]")
@acting_option
@_json
@click.pass_obj
def preview(
    options: State,
    decision_id: int,
    out: Path,
    reason: str,
    clear: bool,
    frame: int,
    acting: str | None,
    as_json: bool,
) -> Exit:
    """Write a small picture of the file of decision ID to OUT, a PNG: grey and blurred.

    It is made in a sandboxed process, and holds nothing of the file's own bytes.
    """
    _refuse_existing(out)
    with opened_ledger(options.load_settings()) as ledger:
        png = ledger.evidence.preview(decision_id, acting_person(acting), reason, clear=clear, frame=frame)
    return _write(out, png, decision_id, as_json=as_json)


@evidence.command()
@_decision
@_out
@_reason
@acting_option
@_json
@click.pass_obj
def export(options: State, decision_id: int, out: Path, reason: str, acting: str | None, as_json: bool) -> Exit:
    """Write the file of decision ID to OUT, as it was uploaded. Not decoded, not made harmless."""
    _refuse_existing(out)
    with opened_ledger(options.load_settings()) as ledger:
        found = ledger.evidence.export(decision_id, acting_person(acting), reason)
    return _write(out, found.data, decision_id, as_json=as_json)


@evidence.command()
@_decision
@click.option(
    "--order", required=True, metavar="TEXT", callback=_words, help="Whose order, as its file number; kept in the log."
)
@acting_option
@_json
@click.pass_obj
def destroy(options: State, decision_id: int, order: str, acting: str | None, as_json: bool) -> Exit:
    """Destroy the file of decision ID before its time. It cannot be had back; a legal hold forbids it."""
    with opened_ledger(options.load_settings()) as ledger:
        ledger.evidence.destroy(decision_id, acting_person(acting), order)
    if as_json:
        print_json({"decision": decision_id, "destroyed": True})
    else:
        echo(f"The file of decision {decision_id} is destroyed.")
    return Exit.OK


@evidence.command()
@_json
@click.pass_obj
def sweep(options: State, as_json: bool) -> Exit:
    """Destroy files whose time is over, and remove those that no decision leads to."""
    with opened_ledger(options.load_settings()) as ledger:
        removed = ledger.evidence.sweep()
    if as_json:
        print_json({"removed": removed})
    else:
        echo(f"{removed:,} files removed.")
    return Exit.OK


@evidence.command()
@acting_option
@_json
@click.pass_obj
def renew(options: State, acting: str | None, as_json: bool) -> Exit:
    """Encrypt every file with the first key of evidence.key_file, so that the other keys can be destroyed."""
    with opened_ledger(options.load_settings()) as ledger:
        renewed = ledger.evidence.renew(acting_person(acting))
    if as_json:
        print_json({"renewed": renewed})
    else:
        echo(f"{renewed:,} files encrypted anew.")
    return Exit.OK


@evidence.command()
@click.argument("file", type=click.Path(path_type=Path))
def newkey(file: Path) -> Exit:
    """Write a new random key to FILE, for evidence.key_file. Overwrites nothing.

    Only this user can read FILE. Keep a copy where the vault is not: without its key no file in it can be read.
    """
    return make_key_file(file)


def _refuse_existing(out: Path) -> None:
    """Before the file is opened, which is in the log for ever."""
    from uploadguard.errors import ConfigError

    if out.exists() or out.is_symlink():
        raise ConfigError("there is a file of that name; it is kept as it is", path=out)
    if not out.absolute().parent.is_dir():
        raise ConfigError("its directory is not there", path=out)


def _write(out: Path, data: bytes, decision_id: int, *, as_json: bool) -> Exit:
    from uploadguard.storage.files import write_new_file

    write_new_file(out, data)
    if as_json:
        print_json({"decision": decision_id, **file_fields(str(out)), "size_bytes": len(data)})
    else:
        echo(f"{out}: {size_text(len(data))}; only this user can read it")
    return Exit.OK


def _row(one: EvidenceInfo) -> list[str]:
    return [
        str(one.decision_id),
        "" if one.case_id is None else str(one.case_id),
        size_text(one.size_bytes),
        one.media_type or "unknown",
        day_text(one.stored_at),
        day_text(one.keep_until) or "for ever",
        day_text(one.viewed_at) or "no",
        f"destroyed {day_text(one.destroyed_at)}" if one.destroyed_at is not None else "held" if one.held else "kept",
    ]


def _record(one: EvidenceInfo) -> dict[str, Any]:
    return {
        "decision": one.decision_id,
        "case": one.case_id,
        "size_bytes": one.size_bytes,
        "media_type": one.media_type,
        "stored": iso_time(one.stored_at),
        "keep_until": iso_time(one.keep_until),
        "viewed": iso_time(one.viewed_at),
        "destroyed": iso_time(one.destroyed_at),
        "held": one.held,
    }
