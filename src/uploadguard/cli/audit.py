"""``uploadguard audit``: the audit log, and whether it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.lists import size_bytes_of
from uploadguard.cli.opened import opened_database
from uploadguard.cli.output import STDIN, echo, new_table, print_json, print_table, report_error, report_warning
from uploadguard.cli.progress import ProgressBar
from uploadguard.cli.state import State
from uploadguard.cli.times import iso_time, time_text

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.ledger.audit import AuditEntry
    from uploadguard.ledger.audit_verify import AuditReport
    from uploadguard.ledger.checkpoints import Checkpoint, PublicKey
    from uploadguard.ledger.database import Database

__all__ = ["audit"]

_FLUSHED = 1000


@click.group()
def audit() -> None:
    """Show, verify, sign and export the audit log."""


@audit.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--key",
    "keys",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A public key that signed it, in PEM. [default: that of ledger.signing_key_file]",
)
@click.option(
    "--checkpoints",
    "exported",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Checkpoints that `audit checkpoint --export` wrote and that were kept elsewhere.",
)
@click.option(
    "--from", "first", metavar="N", type=click.IntRange(1), default=1, help="The number that FILE begins with."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def verify(
    state: State, file: Path | None, keys: tuple[Path, ...], exported: tuple[Path, ...], first: int, as_json: bool
) -> Exit:
    """Find any entry that was changed, taken out, put in or moved, in the ledger or in an exported FILE.

    Ends with 4 where the log is not whole. What was cut off at the end together with its checkpoints, and a log that
    was replaced, is found only by checkpoints that were kept elsewhere: give them with --checkpoints.
    """
    if file is None and first != 1:
        raise click.UsageError("--from goes with FILE; the ledger's log is always verified as a whole")
    from uploadguard.ledger.audit_files import verify_file
    from uploadguard.ledger.audit_verify import verify as verify_log
    from uploadguard.ledger.checkpoints import read_checkpoints

    settings = state.load_settings(required=file is None)
    public_keys = _public_keys(settings, keys)
    checkpoints = [one for path in exported for one in read_checkpoints(path)]
    if file is None:
        with opened_database(settings) as database, ProgressBar(counted=True) as bar:
            report = verify_log(
                database,
                public_keys=public_keys,
                checkpoints=checkpoints,
                progress=lambda done, total: bar.show("verifying", done, total),
            )
    else:
        size_bytes = size_bytes_of(file)
        with _reading(file) as lines, ProgressBar() as bar:
            report = verify_file(
                lines,
                public_keys=public_keys,
                checkpoints=checkpoints,
                first=first,
                progress=lambda done: bar.show("verifying", done, size_bytes),
            )
    if as_json:
        print_json(_record(report))
    else:
        _print(report)
    return Exit.OK if report.ok else Exit.ALARM


@contextmanager
def _reading(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == STDIN:
        yield sys.stdin.buffer
        return
    with file.open("rb") as lines:
        yield lines


def _public_keys(settings: Settings, keys: tuple[Path, ...]) -> list[PublicKey]:
    from uploadguard.ledger.checkpoints import read_public_keys, read_signing_key

    if keys:
        return read_public_keys(keys)
    configured = settings.ledger.signing_key_file
    return [read_signing_key(configured).public] if configured is not None else []


def _print(report: AuditReport) -> None:
    signed_at, since = (
        time_text(at, seconds=True) or "an unknown time" for at in (report.signed_at, report.unprotected_since)
    )
    rows = [
        ("entries", f"{report.entries:,}: {report.first:,} to {report.last:,}" if report.entries else "none"),
        ("checkpoints", f"{report.checkpoints:,}"),
        ("exported checkpoints", f"{report.exported:,}"),
        ("signed up to", f"entry {report.signed_to:,}, {signed_at}" if report.signed_to else "nothing"),
        ("not signed yet", f"{report.unprotected:,}{f', since {since}' if report.unprotected else ''}"),
        ("faults", f"{report.faults_total:,}"),
    ]
    print_table(new_table("Audit log", "verified" if report.ok else "NOT WHOLE"), rows)
    if report.faults:
        echo()
        table = new_table("Entry", "Fault", "Meaning", right=["Entry"], fold=["Meaning"])
        print_table(table, ((fault.seq, fault.kind, fault.text) for fault in report.faults))
        if report.faults_total > len(report.faults):
            echo(f"... and {report.faults_total - len(report.faults):,} more")
    for warning in report.warnings:
        report_warning(warning)
    if report.faults:
        report_error(f"the audit log is not whole; the first fault is at entry {report.faults[0].seq}")


def _record(report: AuditReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "first": report.first,
        "last": report.last,
        "entries": report.entries,
        "checkpoints": report.checkpoints,
        "exported": report.exported,
        "signed_to": report.signed_to,
        "signed_at": iso_time(report.signed_at),
        "unprotected": report.unprotected,
        "unprotected_since": iso_time(report.unprotected_since),
        "faults": [{"seq": one.seq, "kind": one.kind.value, "text": one.text} for one in report.faults],
        "faults_total": report.faults_total,
        "warnings": list(report.warnings),
    }


@audit.command("list")
@click.option("--limit", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--before", metavar="N", type=click.IntRange(1), help="Those before the entry of this number.")
@click.option("--actor", metavar="NAME", help="What this person did, or guard, outbox, system.")
@click.option("--action", metavar="NAME", help="One kind of act, as case.decide.")
@click.option("--subject", metavar="NAME", help="What was done to this record, as case:12.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each entry.")
@click.pass_obj
def list_command(
    state: State,
    limit: int,
    before: int | None,
    actor: str | None,
    action: str | None,
    subject: str | None,
    as_json: bool,
) -> Exit:
    """Show the latest entries, the last one first: who did what to which record, and when."""
    from uploadguard.ledger.audit import canonical, list_entries

    with opened_database(state.load_settings()) as database:
        found = list_entries(database, before=before, limit=limit, actor=actor, action=action, subject=subject)
    if as_json:
        for entry in found:
            print_json(_entry_record(entry))
        return Exit.OK
    if not found:
        echo("No such entry.")
        return Exit.OK
    table = new_table("Entry", "When (UTC)", "Who", "What", "Record", "Detail", right=["Entry"], fold=["Who", "Detail"])
    rows = (
        (
            entry.seq,
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.actor,
            entry.action,
            entry.subject,
            canonical(entry.detail) if entry.detail else "",
        )
        for entry in found
    )
    print_table(table, rows)
    return Exit.OK


def _entry_record(entry: AuditEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": iso_time(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": dict(entry.detail),
    }


@audit.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--from", "first", metavar="N", type=click.IntRange(1), help="Begin with the entry of this number.")
@click.option("--resume", is_flag=True, help="Go on where FILE, of an earlier export, ends.")
@click.pass_obj
def export(state: State, file: Path | None, first: int | None, resume: bool) -> Exit:
    """Write the log to a new FILE, or to standard output, as NDJSON that `audit verify FILE` verifies.

    Pieces that follow one another may be put together.
    """
    named = file if file is not None and str(file) != STDIN else None
    if resume and (named is None or first is not None):
        raise click.UsageError("--resume goes with FILE, and without --from")
    from uploadguard.ledger.audit_files import end_of_export, export_log

    with opened_database(state.load_settings()) as database, ProgressBar(counted=True) as bar:
        if named is None:
            _write(export_log(database, first or 1), sys.stdout.buffer, bar)
            return Exit.OK
        last, size_bytes = end_of_export(named) if resume else ((first or 1) - 1, 0)
        with named.open("r+b") if resume else _new_file(named) as output:
            output.truncate(size_bytes)
            output.seek(size_bytes)
            written = _write(export_log(database, last + 1), output, bar)
            output.flush()
            os.fsync(output.fileno())
    echo(f"{named}: {written:,} lines were written")
    return Exit.OK


def _new_file(path: Path) -> IO[bytes]:
    from uploadguard.errors import AuditError

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AuditError(f"{path}: is there already; --resume goes on with it") from None
    return os.fdopen(descriptor, "wb")


def _write(lines: Iterator[bytes], output: IO[bytes], bar: ProgressBar) -> int:
    written = 0
    for line in lines:
        output.write(line)
        written += 1
        if written % _FLUSHED == 0:
            bar.show("exporting", written, None)
    output.flush()
    return written


@audit.command()
@click.option(
    "--export",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Add the checkpoints that FILE does not have yet to its end; - prints the last one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def checkpoint(state: State, file: Path | None, as_json: bool) -> Exit:
    """Sign the log as it is now, with the key of ledger.signing_key_file, unless nothing came since the last time.

    Where no key is set, --export writes out the checkpoints that are there.
    """
    from uploadguard.ledger.checkpoints import Checkpointer, checkpoint_line, export_checkpoints

    settings = state.load_settings()
    with opened_database(settings) as database:
        made = None
        if file is None or settings.ledger.signing_key_file is not None:
            made = Checkpointer(database, settings).run()
        found = _checkpoints(database)
    if file is not None and str(file) == STDIN:
        for one in found[-1:]:
            click.echo(checkpoint_line(one))
        return Exit.OK
    added = export_checkpoints(found, file) if file is not None else 0
    if as_json:
        print_json(
            {
                "made": made is not None,
                "seq": found[-1].seq if found else None,
                "at": iso_time(found[-1].at) if found else None,
                "key": found[-1].key_id if found else None,
                "exported": added,
            }
        )
        return Exit.OK
    if made is not None:
        echo(f"Signed up to entry {made.seq:,} with the key {made.key_id}.")
    elif found:
        echo(f"Nothing came since the last checkpoint, of entry {found[-1].seq:,}.")
    else:
        echo("The log has no checkpoint.")
    if file is not None:
        echo(f"{file}: {added:,} were added")
    return Exit.OK


def _checkpoints(database: Database) -> list[Checkpoint]:
    from uploadguard.errors import AuditError
    from uploadguard.ledger.checkpoints import Checkpoint, load_checkpoints

    with database.reading() as connection:
        found = load_checkpoints(connection)
    checkpoints = [one for one in found if isinstance(one, Checkpoint)]
    if len(checkpoints) < len(found):
        raise AuditError("a checkpoint of the audit log is damaged; `uploadguard audit verify` says more")
    return checkpoints


@audit.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public", metavar="FILE", type=click.Path(path_type=Path), help="Write the public key to this file.")
def newkey(file: Path, public: Path | None) -> Exit:
    """Write a new key to FILE, for ledger.signing_key_file, and print its public key. Overwrites nothing.

    Only this user can read FILE. The public key is for those who verify: keep it where the ledger is not.
    """
    from uploadguard.errors import ConfigError
    from uploadguard.ledger.checkpoints import write_signing_key
    from uploadguard.storage.files import write_new_file

    path = file
    try:
        key = write_signing_key(path)
        if public is not None:
            path = public
            write_new_file(path, key.public.pem.encode("ascii"))
            path.chmod(0o644)
    except FileExistsError:
        raise ConfigError("there is a file of that name; it is kept as it is", path=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=path) from None
    echo(f"{file}: a new key, of id {key.public.id}; only this user can read it")
    click.echo(key.public.pem, nl=False)
    return Exit.OK


@audit.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def publickey(state: State, file: Path | None) -> Exit:
    """Print the public key of the key in FILE, or else of ledger.signing_key_file: for those who verify."""
    from uploadguard.errors import ConfigError
    from uploadguard.ledger.checkpoints import read_signing_key

    path = file or state.load_settings().ledger.signing_key_file
    if path is None:
        raise ConfigError("ledger.signing_key_file is not set; `uploadguard audit newkey FILE` makes a key")
    click.echo(read_signing_key(path).public.pem, nl=False)
    return Exit.OK
