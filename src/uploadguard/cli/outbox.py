"""``uploadguard outbox``: the worker, and what people and monitors do with its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.opened import opened_ledger
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_error, report_warning
from uploadguard.cli.person import acting_option, acting_person
from uploadguard.cli.state import State as Options
from uploadguard.cli.times import iso_time, time_text

if TYPE_CHECKING:
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.ledger.outbox import ActionStatus, OutboxStatus, TaskInfo

__all__ = ["outbox"]

_STATES = ("pending", "opened", "finishing", "refused", "filed", "cancelled")
_AT_ONCE = 500


@click.group()
def outbox() -> None:
    """Carry out reports and callbacks, and look after them."""


@outbox.command()
@click.option("--once", is_flag=True, help="Carry out what is due now, and end.")
@click.option("--threads", type=click.IntRange(1, 64), metavar="N", help="Tasks at once, in place of outbox.threads.")
@click.pass_obj
def run(options: Options, once: bool, threads: int | None) -> Exit:
    """Carry tasks out until stopped. Several may run at once, on one host or many."""
    from uploadguard.cli.outbox_run import run_worker

    with opened_ledger(options.load_settings()) as ledger:
        return run_worker(ledger, once=once, threads=threads)


@outbox.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(options: Options, as_json: bool) -> Exit:
    """Show how many tasks are how far; ends with 4 if somebody must look."""
    from uploadguard.ledger.outbox import Outbox

    with opened_ledger(options.load_settings()) as ledger:
        found = Outbox(ledger.database, ledger.settings.outbox, actions=ledger.actions).status()
    if as_json:
        print_json(_status_record(found))
    elif not found.actions:
        echo("There are no tasks, and no action is configured.")
    else:
        table = new_table(
            "Action", *(name.capitalize() for name in _STATES), "Late", "Oldest", "Next deadline",
            right=[*(name.capitalize() for name in _STATES), "Late"], fold=["Action"],
        )  # fmt: skip
        print_table(table, (_status_row(one) for one in found.actions))
        for problem in _problems(found):
            report_warning(problem)
    return Exit.ALARM if found.needs_attention else Exit.OK


def _status_row(one: ActionStatus) -> list[str]:
    from uploadguard.actions import State

    counts = [f"{one.counts.get(State(name), 0):,}" for name in _STATES]
    return [one.action, *counts, f"{one.late:,}", time_text(one.oldest_at), time_text(one.next_deadline)]


def _problems(found: OutboxStatus) -> Iterator[str]:
    if found.late:
        yield f"{_counted(found.late, 'report')} not filed, with the deadline near or over"
    if found.refused:
        yield f"{_counted(found.refused, 'task')} refused: `uploadguard outbox list --state refused` says why"
    for one in found.actions:
        if one.known is False and one.waiting:
            yield f"{_counted(one.waiting, 'task')} waiting for {one.action}, which the configuration does not have"


def _status_record(found: OutboxStatus) -> dict[str, Any]:
    from uploadguard.actions import State

    return {
        "needs_attention": found.needs_attention,
        "waiting": found.waiting,
        "late": found.late,
        "refused": found.refused,
        "no_action": found.no_action,
        "oldest": iso_time(found.oldest_at),
        "next_deadline": iso_time(found.next_deadline),
        "actions": [
            {
                "action": one.action,
                "known": one.known,
                **{name: one.counts.get(State(name), 0) for name in _STATES},
                "late": one.late,
                "oldest": iso_time(one.oldest_at),
                "next_deadline": iso_time(one.next_deadline),
            }
            for one in found.actions
        ],
    }


@outbox.command("list")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only these; repeatable.")
@click.option("--action", metavar="NAME", help="Only those of this action.")
@click.option("--case", "case_id", type=int, metavar="ID", help="Only those of this case.")
@click.option("--late", is_flag=True, help="Only reports whose deadline is near or over.")
@click.option("--after", type=int, metavar="ID", help="Only those after this one.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="So many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each task.")
@click.pass_obj
def list_tasks(
    options: Options,
    states: tuple[str, ...],
    action: str | None,
    case_id: int | None,
    late: bool,
    after: int | None,
    limit: int,
    as_json: bool,
) -> Exit:
    """List tasks, the oldest first."""
    from uploadguard.actions import State

    with opened_ledger(options.load_settings()) as ledger:
        found = ledger.outbox.list(
            states=[State(name) for name in states] or None,
            action=action,
            case_id=case_id,
            late=late or None,
            after=after,
            limit=limit,
        )
    if as_json:
        for one in found:
            print_json(_task_record(one))
    elif not found:
        echo("There are no such tasks.")
    else:
        table = new_table(
            *("Task", "Action", "For", "State", "Case", "Attempts", "Deadline", "Next", "Remark"),
            right=["Task", "Case", "Attempts"],
            fold=["Action", "Remark"],
        )
        print_table(table, (_task_row(one) for one in found))
        if len(found) == limit:
            echo(f"There may be more: --after {found[-1].id}")
    return Exit.OK


def _task_row(one: TaskInfo) -> list[str]:
    return [
        str(one.id),
        one.action,
        one.occasion.value,
        _state(one),
        "" if one.case_id is None else str(one.case_id),
        str(one.attempts),
        time_text(one.due_at) + (" late" if one.late else ""),
        time_text(one.next_at) if one.state.is_open else "",
        one.error or "",
    ]


def _state(one: TaskInfo) -> str:
    return f"{one.state.value}, to be retracted" if one.cancelled and one.state.is_open else one.state.value


def _task_record(one: TaskInfo) -> dict[str, Any]:
    return {
        "id": one.id,
        "key": one.key,
        "action": one.action,
        "occasion": one.occasion.value,
        "state": one.state.value,
        "decision": one.decision_id,
        "case": one.case_id,
        "created": iso_time(one.created_at),
        "due": iso_time(one.due_at),
        "next": iso_time(one.next_at) if one.state.is_open else None,
        "done": iso_time(one.done_at),
        "attempts": one.attempts,
        "running": one.running,
        "remote_id": one.remote_id,
        "error": one.error,
        "cancelled": one.cancelled,
        "late": one.late,
    }


@outbox.command()
@click.argument("task_id", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show(options: Options, task_id: int, as_json: bool) -> Exit:
    """Show the task ID, with what its action noted."""
    with opened_ledger(options.load_settings()) as ledger:
        one = ledger.outbox.show(task_id)
    if as_json:
        print_json({**_task_record(one), "notes": dict(one.notes)})
        return Exit.OK
    rows: list[tuple[str, object]] = [
        ("action", one.action),
        ("for", one.occasion.value),
        ("state", _state(one) + (" (a worker has it)" if one.running else "")),
        ("decision", one.decision_id),
        ("case", "none" if one.case_id is None else one.case_id),
        ("asked for", time_text(one.created_at)),
        ("deadline", (time_text(one.due_at) or "none") + (" late" if one.late else "")),
        ("attempts", one.attempts),
        *([("next attempt", time_text(one.next_at))] if one.state.is_open else []),
        *([("done", time_text(one.done_at))] if one.done_at is not None else []),
        ("key", one.key),
        ("remote id", one.remote_id or "none"),
        *([("remark", one.error)] if one.error else []),
        *((f"note: {name}", value) for name, value in one.notes.items()),
    ]
    print_table(new_table("Task", str(one.id), fold=[str(one.id)]), rows)
    return Exit.OK


@outbox.command()
@click.argument("task_ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--refused", is_flag=True, help="All that were refused.")
@click.option("--action", metavar="NAME", help="With --refused: only those of this action.")
@acting_option
@click.pass_obj
def retry(options: Options, task_ids: tuple[int, ...], refused: bool, action: str | None, acting: str | None) -> Exit:
    """Have refused tasks tried again, once what was wrong is mended; and waiting ones at once."""
    from uploadguard.errors import LedgerError

    if bool(task_ids) == refused:
        raise click.UsageError("give the IDs of tasks, or --refused")
    if action is not None and not refused:
        raise click.UsageError("--action goes with --refused")
    person = acting_person(acting)
    code, done = Exit.OK, 0
    with opened_ledger(options.load_settings()) as ledger:
        for task_id in task_ids or _refused(ledger, action):
            try:
                ledger.outbox.retry(task_id, person)
                done += 1
            except LedgerError as error:
                report_error(str(error))
                code = Exit.ERROR
    echo(f"{_counted(done, 'task')} to be tried again.")
    return code


def _refused(ledger: Ledger, action: str | None) -> Iterator[int]:
    from uploadguard.actions import State

    after = None
    while found := ledger.outbox.list(states=[State.REFUSED], action=action, after=after, limit=_AT_ONCE):
        yield from (one.id for one in found)
        after = found[-1].id


@outbox.command()
@click.argument("task_id", metavar="ID", type=int)
@click.option("--note", required=True, metavar="TEXT", help="Why; kept with the task.")
@acting_option
@click.pass_obj
def cancel(options: Options, task_id: int, note: str, acting: str | None) -> Exit:
    """Take the task ID back; what was opened at the other side already is retracted."""
    from uploadguard.actions import State

    with opened_ledger(options.load_settings()) as ledger:
        ledger.outbox.cancel(task_id, acting_person(acting), note)
        one = ledger.outbox.show(task_id)
    echo(f"Task {task_id} is cancelled." if one.state is State.CANCELLED else f"Task {task_id} will be retracted.")
    return Exit.OK


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
