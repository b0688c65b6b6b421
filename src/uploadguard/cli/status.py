"""``uploadguard status``: how protection stands on this machine, with a worker started to prove it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import new_table, print_json, print_table, report_error, report_warning
from uploadguard.cli.services import service_records, service_text
from uploadguard.cli.state import NOTHING_LISTED, STALE, State
from uploadguard.cli.times import iso_time

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.guard import GuardStatus
    from uploadguard.media.codecs import Hole

__all__ = ["status", "why_not_ready"]

_SHOWN = "`uploadguard lists status` shows them"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(state: State, as_json: bool) -> Exit:
    """Open the hash set, start a worker, and say what is loaded, what is enforced, and which codecs decode.

    Ends with 1 where checks could not be answered, and where uploads cannot be isolated as the configuration asks; with
    4 where somebody must look: the hash set is stale, a list is held back or tripped, or decisions wait in the spool.
    """
    from uploadguard.guard import Guard
    from uploadguard.media.codecs import codec_versions, refused_codecs
    from uploadguard.opening import open_hashset

    settings = state.load_settings()
    with Guard(settings) as guard:
        guard.prewarm()
        found = guard.status()
        services = service_records(settings, guard.plugins)
    staged = [item.list_name for item in open_hashset(settings).staging.changes()]
    codecs = codec_versions()
    holes = refused_codecs(codecs)
    if as_json:
        print_json(_record(found, staged, services, codecs, holes))
    else:
        print_table(new_table("What", "State", fold=["State"]), _rows(found, staged, services, codecs))
        for hole in holes:
            report_warning(f"{hole}: upgrade it")
        if found.stale:
            report_warning(STALE)
        if found.ready and not found.entries and not services:
            report_warning(NOTHING_LISTED)
        if found.breaker_error is not None:
            report_error(found.breaker_error)
        elif found.tripped:
            report_warning("lists that matched too much only queue: `uploadguard lists status` says which and why")
        for problem in why_not_ready(settings, found):
            report_error(problem)
    if not found.ready:
        return Exit.ERROR
    waits = found.ledger is not None and found.ledger.spool.files > 0
    held = staged or found.tripped or found.breaker_error is not None
    return Exit.ALARM if found.stale or held or waits else Exit.OK


def why_not_ready(settings: Settings, found: GuardStatus) -> list[str]:
    """What keeps checks from being answered."""
    from uploadguard.opening import empty_text

    if found.ready:
        return []
    if found.entries or settings.hashset.allow_empty:
        return ["decisions cannot be kept: `uploadguard ledger status` says why"]
    return [empty_text(settings)]


def _rows(
    found: GuardStatus, staged: list[str], services: dict[str, dict[str, str]], codecs: dict[str, str]
) -> Iterator[tuple[str, str]]:
    yield "ready", "no" if not found.ready else "yes, but every check fails: stale" if found.stale else "yes"
    yield "generation", str(found.generation)
    yield "entries", f"{found.entries:,}"
    yield "last updated", _age(found.updated_at) + (": stale" if found.stale else "")
    yield "oldest list", _age(found.oldest_at)
    if found.breaker_error is not None:
        yield "tripped lists", "unknown, so all count as tripped"
    else:
        yield "tripped lists", f"{len(found.tripped)}: {_SHOWN}" if found.tripped else "none"
    yield "staged lists", f"{len(staged)}: {_SHOWN}" if staged else "none"
    for name, service in services.items():
        yield "match service", f"{name}: {service_text(service)}{_owed(found, name, service)}"
    if gone := sum(count for name, count in (found.late or {}).items() if name not in services):
        yield "match service", f"no longer configured: {gone:,} answer(s) still to come, not asked for"
    yield "decisions", _kept(found)
    yield "fail open", ", ".join(found.fail_open) or "nothing"
    yield "isolation", found.sandbox.isolation
    if found.sandbox.pool is not None:
        for name, value in found.sandbox.layers.to_dict().items():
            yield f"  {name}", str(value) if type(value) is int and value else "in force" if value else "not to be had"
    yield from codecs.items()


def _owed(found: GuardStatus, name: str, service: dict[str, str]) -> str:
    if service["mode"] != "prefetch":
        return ""
    owed = f"{found.late.get(name, 0):,}" if found.late is not None else "an unknown number of"
    return f"; {owed} answer(s) still to come"


def _kept(found: GuardStatus) -> str:
    if found.ledger is None:
        return "not kept: ledger.path is not set"
    waiting = f"; {found.ledger.spool.files} file(s) in the spool" if found.ledger.spool.files else ""
    where = {"database": "kept in the database", "spool": "kept in the spool", "refusing": "refused"}
    error = f": {found.ledger.error}" if found.ledger.error is not None else ""
    return where[found.ledger.into] + error + waiting


def _age(updated_at: datetime | None) -> str:
    if updated_at is None:
        return "never"
    hours = (datetime.now(UTC) - updated_at).total_seconds() / 3600
    age = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
    return f"{updated_at.isoformat()}, {age} ago"


def _record(
    found: GuardStatus,
    staged: list[str],
    services: dict[str, dict[str, str]],
    codecs: dict[str, str],
    holes: list[Hole],
) -> dict[str, Any]:
    return {
        "ready": found.ready,
        "generation": found.generation,
        "entries": found.entries,
        "updated_at": iso_time(found.updated_at),
        "oldest_at": iso_time(found.oldest_at),
        "stale": found.stale,
        "tripped": list(found.tripped),
        "breaker_error": found.breaker_error,
        "staged": staged,
        "matchers": services,
        "late": found.late,
        "ledger": asdict(found.ledger) if found.ledger is not None else None,
        "fail_open": list(found.fail_open),
        "isolation": found.sandbox.isolation,
        "layers": found.sandbox.layers.to_dict() if found.sandbox.pool is not None else None,
        "codecs": codecs,
        "known_holes": [str(hole) for hole in holes],
    }
