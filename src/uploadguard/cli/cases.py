"""``uploadguard cases``: the review of uploads that a person must decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from uploadguard.cli.case_output import (
    case_record,
    case_row,
    detail_record,
    feedback_record,
    print_detail,
)
from uploadguard.cli.exits import Exit
from uploadguard.cli.opened import opened_ledger
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_error, report_warning
from uploadguard.cli.person import acting_option, acting_person
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.ledger.cases import Decided
    from uploadguard.ledger.ledger import Ledger

__all__ = ["cases"]

_STATUSES = ("open", "proposed", "confirmed", "dismissed")


@click.group()
def cases() -> None:
    """Review queued uploads: list, show, claim and decide their cases."""


@cases.command("list")
@click.option(
    "--status", "statuses", type=click.Choice(_STATUSES), multiple=True, help="Repeatable. [default: open, proposed]"
)
@click.option("--tenant", metavar="NAME", help="Only those of this tenant.")
@click.option("--uploader", metavar="NAME", help="Only those of this uploader.")
@click.option("--reason", metavar="CODE", help="Only those opened for this reason, as digest_match or timeout.")
@click.option("--claimed-by", metavar="NAME", help="Only those that NAME has claimed.")
@click.option("--unclaimed", is_flag=True, help="Only those that nobody has claimed.")
@click.option("--escalated/--not-escalated", default=None, help="Only those that wait for a lead, or do not.")
@click.option("--list", "list_name", metavar="NAME", help="Only those with a match of this list.")
@click.option("--text", metavar="TEXT", help="An uploader, an object's id, a decision's reference or a case's number.")
@click.option("--after", metavar="PLACE", help="Go on after the place that a listing ended with.")
@click.option(
    "--limit", type=click.IntRange(1, 500), default=50, show_default=True, metavar="N", help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each case, then one that sums up.")
@click.pass_obj
def list_cases(
    state: State, /, statuses: tuple[str, ...], unclaimed: bool, after: str | None, as_json: bool, **wanted: Any
) -> Exit:
    """List cases, the oldest first."""
    from uploadguard.ledger.cases import CaseStatus

    if unclaimed:
        if wanted["claimed_by"] is not None:
            raise click.UsageError("--claimed-by or --unclaimed, not both")
        wanted["claimed_by"] = ""
    with opened_ledger(state.load_settings()) as ledger:
        try:
            page = ledger.cases.list(
                statuses=[CaseStatus(status) for status in statuses or _STATUSES[:2]], after=after, **wanted
            )
        except ValueError:
            raise click.BadParameter("give the place that a listing ended with", param_hint="--after") from None
    if as_json:
        for case in page.cases:
            print_json(case_record(case))
        print_json({"kind": "summary", "cases": len(page.cases), "total": page.total, "next_after": page.next_after})
        return Exit.OK
    if not page.cases:
        echo("There are no such cases.")
        return Exit.OK
    table = new_table(
        *("Case", "Status", "Opened", "Verdict", "Reason", "Uploads", "Uploader", "Claimed by"),
        right=["Case", "Uploads"], fold=["Uploader"],
    )  # fmt: skip
    print_table(table, map(case_row, page.cases))
    if page.next_after is not None:
        echo(f"{page.total:,} in all. More: --after {page.next_after}")
    return Exit.OK


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@click.option("--hashes", is_flag=True, help="Show the uploads' hashes as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show(state: State, case_id: int, hashes: bool, as_json: bool) -> Exit:
    """Show a case: its uploads with what they match, what was done to it, and what came of it."""
    with opened_ledger(state.load_settings()) as ledger:
        detail = ledger.cases.show(case_id)
    if as_json:
        print_json(detail_record(detail, hashes=hashes))
    else:
        print_detail(detail, hashes=hashes)
    return Exit.OK


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@acting_option
@click.pass_obj
def claim(state: State, case_id: int, acting: str | None) -> Exit:
    """Say that you look at a case, so that others look at others. A claim lasts four hours."""
    with opened_ledger(state.load_settings()) as ledger:
        case = ledger.cases.claim(case_id, acting_person(acting))
    echo(f"Case {case.id} is claimed by {case.claimed_by}.")
    return Exit.OK


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@acting_option
@click.pass_obj
def unclaim(state: State, case_id: int, acting: str | None) -> Exit:
    """Leave a claimed case to others."""
    with opened_ledger(state.load_settings()) as ledger:
        case = ledger.cases.unclaim(case_id, acting_person(acting))
    echo(f"Case {case.id} is claimed by nobody.")
    return Exit.OK


@cases.command()
@click.argument("case_ids", metavar="ID...", type=int, nargs=-1, required=True)
@click.option("--confirm", "outcome", flag_value="confirm", help="It is abuse material: report and delete it.")
@click.option("--dismiss", "outcome", flag_value="dismiss", help="It is not: release it.")
@click.option("--note", metavar="TEXT", default="", help="Why; kept with the case.")
@click.option("--ban", is_flag=True, help="With --confirm: have the uploader shut out.")
@click.option("--no-remember", is_flag=True, help="Put no hash on a local list.")
@click.option("--remember-look", is_flag=True, help="With --dismiss: let all pass that looks exactly like it.")
@click.option("--no-feedback", is_flag=True, help="Keep no word on the entries that matched.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each case.")
@acting_option
@click.pass_obj
def decide(
    state: State,
    case_ids: tuple[int, ...],
    outcome: Literal["confirm", "dismiss"] | None,
    note: str,
    ban: bool,
    no_remember: bool,
    remember_look: bool,
    no_feedback: bool,
    yes: bool,
    as_json: bool,
    acting: str | None,
) -> Exit:
    """Confirm or dismiss cases, and bring what is remembered of them to this host's hash set at once."""
    if outcome is None:
        raise click.UsageError("give --confirm or --dismiss")
    if ban and outcome != "confirm":
        raise click.UsageError("--ban goes with --confirm")
    if remember_look and (outcome != "dismiss" or no_remember):
        raise click.UsageError("--remember-look goes with --dismiss, and without --no-remember")
    from uploadguard.actions import Occasion

    person = acting_person(acting)
    if not yes:
        which = f"case {case_ids[0]}" if len(case_ids) == 1 else f"{len(case_ids)} cases"
        click.confirm(f"{outcome.capitalize()} {which}, as {person.name}?", abort=True, err=True)
    with opened_ledger(state.load_settings()) as ledger:
        results = ledger.cases.decide(
            case_ids,
            outcome,
            person,
            note=note,
            ban=ban,
            remember=False if no_remember else "perceptual" if remember_look else True,
            feedback=not no_feedback,
        )
        for result in results:
            _tell(result, as_json=as_json)
        if not no_remember and any(result.status is not None and result.status.is_decided for result in results):
            _apply_local_lists(ledger, as_json=as_json)
        confirmed = any(result.status == "confirmed" for result in results)
        if confirmed and not any(Occasion.REPORT in action.occasions for action in ledger.actions.values()):
            report_warning("no action takes reports, so nobody is told: configure one in [actions]")
    return Exit.ERROR if any(result.error is not None for result in results) else Exit.OK


def _tell(result: Decided, *, as_json: bool) -> None:
    if as_json:
        status = result.status.value if result.status is not None else None
        print_json(
            {
                "case": result.case_id,
                "status": status,
                "proposed": result.proposed,
                "tasks": result.tasks,
                "error": result.error,
            }
        )
    elif result.error is not None:
        report_error(result.error)
    elif result.proposed:
        echo(f"Case {result.case_id} is proposed: somebody else must say the same.")
    elif result.status == "open":
        echo(f"Case {result.case_id} is escalated: you disagree with who proposed, so a lead must decide.")
    else:
        tasks = "1 task" if result.tasks == 1 else f"{result.tasks:,} tasks"
        echo(f"Case {result.case_id} is {result.status}; {tasks} for the outbox.")


def _apply_local_lists(ledger: Ledger, *, as_json: bool) -> None:
    """The decisions stand, whatever becomes of this: each Guard does it by itself within seconds."""
    from uploadguard.errors import UploadguardError

    try:
        changed = ledger.apply_local_lists()
    except UploadguardError as error:
        report_warning(f"the local lists could not be brought to this host's hash set now: {error}")
        return
    if changed and not as_json:
        echo("This host's hash set has it.")


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@click.option("--note", metavar="TEXT", required=True, help="Why; kept with the case.")
@acting_option
@click.pass_obj
def escalate(state: State, case_id: int, note: str, acting: str | None) -> Exit:
    """Leave a case to a lead."""
    with opened_ledger(state.load_settings()) as ledger:
        ledger.cases.escalate(case_id, acting_person(acting), note)
    echo(f"Case {case_id} is escalated.")
    return Exit.OK


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@click.option("--note", metavar="TEXT", required=True, help="Why; kept with the case.")
@acting_option
@click.pass_obj
def requeue(state: State, case_id: int, note: str, acting: str | None) -> Exit:
    """Open a decided case again, withdraw a proposal, or put an escalated case back.

    What a decision led to is taken back as far as it can be. A report that was filed stays filed.
    """
    with opened_ledger(state.load_settings()) as ledger:
        ledger.cases.requeue(case_id, acting_person(acting), note)
        _apply_local_lists(ledger, as_json=False)
    echo(f"Case {case_id} is in the queue.")
    return Exit.OK


@cases.command()
@click.argument("case_id", metavar="ID", type=int)
@click.argument("note", metavar="TEXT")
@acting_option
@click.pass_obj
def comment(state: State, case_id: int, note: str, acting: str | None) -> Exit:
    """Note something about a case."""
    if not note.strip():
        raise click.UsageError("a comment must say something")
    with opened_ledger(state.load_settings()) as ledger:
        ledger.cases.comment(case_id, acting_person(acting), note)
    echo(f"Case {case_id} has the comment.")
    return Exit.OK


@cases.command()
@click.option("--all", "everything", is_flag=True, help="What was sent already as well.")
@click.option("--sent", "sent", type=int, multiple=True, metavar="ID", help="Note that this was sent. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each.")
@click.pass_obj
def feedback(state: State, everything: bool, sent: Sequence[int], as_json: bool) -> Exit:
    """Show which lists' entries were found right or wrong, for those who keep the lists."""
    with opened_ledger(state.load_settings()) as ledger:
        if sent:
            ledger.cases.feedback_sent(sent)
            return Exit.OK
        found = ledger.cases.feedback(unsent=not everything)
    if as_json:
        for one in found:
            print_json(feedback_record(one))
    elif not found:
        echo("There is none.")
    else:
        table = new_table("ID", "List", "Entry", "Opinion", "Case", "By", right=["ID", "Case"], fold=["Entry"])
        print_table(
            table, ([one.id, one.list_name, one.entry_id, one.opinion, one.case_id, one.actor] for one in found)
        )
    return Exit.OK
