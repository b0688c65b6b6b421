"""``uploadguard ledger``: the ledger as a whole."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.opened import opened_database, opened_ledger
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_error, report_warning, size_text
from uploadguard.cli.person import acting_option, acting_person
from uploadguard.cli.progress import ProgressBar
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.ledger.database import Database
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.ledger.people import Person
    from uploadguard.ledger.retention import HeldKind, PurgeReport

__all__ = ["ledger"]

_KIND_NAMES = {
    "not_scanned": "decisions that nothing came of",
    "blocked": "blocked uploads",
    "dismissed": "dismissed cases",
    "confirmed": "confirmed cases",
}


@click.group()
def ledger() -> None:
    """Make, show and purge the ledger, and hold records of it."""


@ledger.command()
@click.pass_obj
def upgrade(state: State) -> Exit:
    """Make the ledger's tables, or bring them to the version that this uploadguard works with.

    Do so before the workers of a new version start. Several processes may do it at once.
    """
    from uploadguard.ledger.migrations import HEAD

    with opened_database(state.load_settings(), create=True) as database:
        kind = _kind(database)
    echo(f"The ledger's tables, on {kind}, are of version {HEAD}.")
    return Exit.OK


def _kind(database: Database) -> str:
    return "SQLite" if database.is_sqlite else "PostgreSQL"


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(state: State, as_json: bool) -> Exit:
    """Show what the ledger holds. Ends with 4 where decisions wait in the spool for the database."""
    with opened_ledger(state.load_settings()) as opened:
        record = _status(opened)
    waiting = bool(record["spool"]["files"] or record["spool"]["damaged"])
    if as_json:
        print_json(record)
    else:
        spool = record["spool"]
        rows = [
            ("database", f"{record['database']}, version {record['version']}"),
            ("decisions", f"{record['decisions']:,}"),
            *((f"{name} cases", f"{count:,}") for name, count in record["cases"].items()),
            *((f"{name} tasks", f"{count:,}") for name, count in record["tasks"].items()),
            ("under legal hold", f"{record['held']:,}"),
            ("audit log", f"{record['audit_entries']:,} entries"),
            ("spool", f"{spool['files']} files, {size_text(spool['size_bytes'])}; {spool['damaged']} damaged"),
        ]
        print_table(new_table("What", "State"), rows)
        if waiting:
            report_warning(
                "decisions wait in the spool for the database; a Guard or `uploadguard outbox run` brings them"
            )
    return Exit.ALARM if waiting else Exit.OK


def _status(opened: Ledger) -> dict[str, Any]:
    import sqlalchemy as sa

    from uploadguard.ledger import schema
    from uploadguard.ledger.migrations import current

    def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        return sa.select(sa.func.count()).select_from(table).where(*where).scalar_subquery()

    cases, tasks = schema.cases.c, schema.tasks.c
    with opened.database.reading() as connection:
        version = current(connection)
        held = [count(table, table.c.legal_hold.is_(sa.true())) for table in (schema.cases, schema.decisions)]
        numbers = [count(schema.decisions), count(schema.audit), *held]
        decisions, entries, *held_counts = connection.execute(sa.select(*numbers)).one()
        by_status = connection.execute(sa.select(cases.status, sa.func.count()).group_by(cases.status)).all()
        by_state = connection.execute(sa.select(tasks.state, sa.func.count()).group_by(tasks.state)).all()
    spool = opened.spool.status()
    return {
        "database": _kind(opened.database),
        "version": version,
        "decisions": decisions,
        "cases": dict(sorted(by_status)),
        "tasks": dict(sorted(by_state)),
        "held": sum(held_counts),
        "audit_entries": entries,
        "spool": {"files": spool.files, "size_bytes": spool.size_bytes, "damaged": spool.damaged},
    }


@ledger.command()
@click.pass_obj
def readmit(state: State) -> Exit:
    """Record what the database would not take before, and the spool had set aside.

    For after an upgrade that mends the cause. What it still does not take stays where it is, and the command ends with
    1. Files that the disk damaged (*.damaged) are not tried: look at them, and take them away.
    """
    from uploadguard.errors import UploadguardError
    from uploadguard.ledger.recorder import take_records

    failed = done = 0
    with opened_ledger(state.load_settings()) as opened:
        for path, error in opened.spool.readmit(take_records(opened.database, opened.plan)):
            if error is None:
                done += 1
            else:
                failed += 1
                report_error(f"{path}: {error if isinstance(error, UploadguardError) else type(error).__name__}")
    echo(f"{done:,} recorded, {failed:,} left")
    return Exit.ERROR if failed else Exit.OK


@ledger.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@acting_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def purge(state: State, dry_run: bool, yes: bool, acting: str | None, as_json: bool) -> Exit:
    """Remove what is older than ledger.retention says. Asks first; where nobody can answer, --yes is needed.

    Never removes open cases, what is under a legal hold, or what is not reported yet. Preserved files whose time is
    over are destroyed first, since what they belong to is kept as long as they are.
    """
    from uploadguard.ledger.retention import purge as purge_ledger

    settings = state.load_settings()
    person = acting_person(acting)
    now = datetime.now(UTC)
    with opened_ledger(settings) as opened:
        if not dry_run and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is no terminal to ask on; give --yes to remove what is too old")
            _print(purge_ledger(opened.database, settings, now=now, dry_run=True))
            if not click.confirm("Remove this, and destroy preserved files whose time is over?", err=True):
                echo("Nothing was changed.")
                return Exit.OK
        vault = opened.vault
        if vault is not None and not dry_run:
            opened.evidence.sweep(now)
        with ProgressBar(counted=True) as bar:
            report = purge_ledger(
                opened.database,
                settings,
                now=now,
                dry_run=dry_run,
                person=person,
                remove_file=vault.remove if vault is not None else None,
                progress=lambda done, total: bar.show("purging", done, total),
            )
    if as_json:
        print_json(_record(report))
    else:
        _print(report)
    return Exit.OK


def _print(report: PurgeReport) -> None:
    heading = "To be removed" if report.dry_run else "Removed"
    table = new_table(
        heading, "Cases", "Decisions", "Tasks", "Kept: held", "Evidence", "Unfinished",
        right=["Cases", "Decisions", "Tasks", "Kept: held", "Evidence", "Unfinished"],
    )  # fmt: skip
    rows = [
        (
            _KIND_NAMES[name],
            *(f"{n:,}" for n in (one.cases, one.decisions, one.tasks, one.held, one.evidence, one.unfinished)),
        )
        for name, one in report.kinds.items()
    ]
    print_table(table, rows)
    echo(f"Hourly counts: {report.hours:,}; sent opinions: {report.feedback:,}.")


def _record(report: PurgeReport) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "dry_run": report.dry_run,
        **{name: asdict(one) for name, one in report.kinds.items()},
        "hours": report.hours,
        "feedback": report.feedback,
    }


def _named(_: click.Context, __: click.Parameter, value: str) -> tuple[HeldKind, int]:
    found = re.fullmatch(r"(case|decision):([0-9]{1,18})", value)
    if found is None:
        raise click.BadParameter("give case:NUMBER or decision:NUMBER")
    return "case" if found[1] == "case" else "decision", int(found[2])


@ledger.command()
@click.argument("record", metavar="RECORD", callback=_named)
@click.option("--note", metavar="TEXT", required=True, help="Why, as the order's file number. Name nobody.")
@acting_option
@click.pass_obj
def hold(state: State, record: tuple[HeldKind, int], note: str, acting: str | None) -> Exit:
    """Put RECORD, case:12 or decision:34, under a legal hold: nothing of it is purged or destroyed.

    A hold on a case covers its uploads, one on an upload keeps its case too. The note stands in the audit log for ever.
    """
    return _hold(state, record, note, acting_person(acting), held=True)


@ledger.command()
@click.argument("record", metavar="RECORD", callback=_named)
@click.option("--note", metavar="TEXT", required=True, help="Why, as the order's file number. Name nobody.")
@acting_option
@click.pass_obj
def unhold(state: State, record: tuple[HeldKind, int], note: str, acting: str | None) -> Exit:
    """End the legal hold of RECORD."""
    return _hold(state, record, note, acting_person(acting), held=False)


def _hold(state: State, record: tuple[HeldKind, int], note: str, person: Person, *, held: bool) -> Exit:
    from uploadguard.ledger.retention import hold as hold_record
    from uploadguard.ledger.retention import release_hold

    if not note.strip():
        raise click.BadParameter("say why", param_hint="--note")
    kind, record_id = record
    with opened_database(state.load_settings()) as database:
        changed = (hold_record if held else release_hold)(database, kind, record_id, person, note)
    now = "is under a legal hold" if held else "is under no legal hold of its own"
    echo(f"{kind}:{record_id} {now}{'' if changed else ', as it was'}.")
    return Exit.OK
