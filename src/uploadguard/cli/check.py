"""``uploadguard check``: verdicts on files, as an upload of them would get."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import EXIT_HELP, Exit, highest, of_verdict
from uploadguard.cli.hash import check_names
from uploadguard.cli.output import (
    STDIN,
    echo,
    file_fields,
    print_json,
    report_error,
    report_warning,
    verdict_style,
)
from uploadguard.cli.rows import Column, StreamedTable
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.models import Decision

__all__ = ["best_match", "check"]

_COLUMNS = (
    Column("Verdict", 11, styles=verdict_style()),
    Column("ms", 7, right=True),
    Column("Reasons", 18),
)


@click.command(epilog=EXIT_HELP)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--hashset",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The hash set to check against, in place of the configured one; with it no configuration is needed.",
)
@click.option("--tenant", metavar="NAME", help="Decide by this tenant's rules.")
@click.option("--explain", is_flag=True, help="Say for each file why, with lists and entries.")
@click.option("--show-hashes", is_flag=True, help="Print the hashes too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def check(
    state: State,
    files: tuple[str, ...],
    hashset: Path | None,
    tenant: str | None,
    explain: bool,
    show_hashes: bool,
    as_json: bool,
) -> Exit:
    """Check files as if they were uploaded; - is standard input."""
    check_names(files)
    from uploadguard.errors import MediaReadError
    from uploadguard.guard import Guard
    from uploadguard.models import Context

    overrides: dict[str, Any] = {} if hashset is None else {"hashset": {"path": hashset}}
    settings = state.load_settings(required=hashset is None, **overrides)
    if tenant is not None and tenant not in settings.tenants:
        report_warning(f"the configuration has no tenant {tenant!r}: the rules for all apply")
    codes: set[Exit] = set()
    table = None if as_json else StreamedTable(files, "File", _COLUMNS, "Match")
    with Guard(settings, record=False) as guard:
        guard.prewarm()
        for name in files:
            context = Context(filename=name if name != STDIN else None, tenant=tenant)
            try:
                decision = guard.check(name if name != STDIN else sys.stdin.buffer, context=context)
            except MediaReadError as error:
                report_error(str(error))
                if as_json:
                    print_json({**file_fields(name), "error": error.reason})
                codes.add(Exit.ERROR)
                continue
            codes.add(of_verdict(decision.verdict))
            explanation = guard.explain(decision) if explain else None
            if table is not None:
                table.add(*_row(name, decision))
                if explanation is not None:
                    echo("\n".join(f"  {line}" for line in explanation.splitlines()))
                if show_hashes:
                    _print_hashes(decision)
                continue
            record = {**file_fields(name), **decision.to_dict(include_hashes=show_hashes)}
            if explanation is not None:
                record["explanation"] = explanation
            print_json(record)
    return highest(codes)


def best_match(decision: Decision) -> str:
    """The weightiest match in a few words."""
    if not decision.matches:
        return ""
    match = decision.matches[0]
    how = match.signal_type if match.exact else f"{match.signal_type} {match.distance_bits} bits"
    variant = f" {match.variant}" if match.variant != "original" else ""
    source = f" ({match.source})" if match.source else ""
    return f"{match.list_name}: {how}{variant}{source}"


def _row(name: str, decision: Decision) -> tuple[str, ...]:
    total_ms = f"{decision.timings_ms['total']:.1f}"
    reasons = [*decision.reasons, *([f"{decision.shadow.label} but for shadow mode"] if decision.shadow else [])]
    return (name, decision.verdict.label, total_ms, ", ".join(reasons), best_match(decision))


def _print_hashes(decision: Decision) -> None:
    hashes = [item for item in decision.hashes if item.variant == "original"]
    width = max((len(item.signal_type) for item in hashes), default=0)
    for item in hashes:
        where = f" (frame {item.frame})" if item.frame else ""
        echo(f"    {item.signal_type:<{width}} {item.value.hex()}{where}")
