"""What people and monitors do with the outbox: look at tasks, try one again, take one back.

Workers, which carry tasks out, are in :mod:`uploadguard.ledger.outbox_worker`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Occasion, State
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import CaseStateError, UnknownRecordError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role

__all__ = ["UNDONE", "ActionStatus", "Outbox", "OutboxStatus", "TaskInfo", "cancel_tasks", "is_late"]

_COLUMNS = (
    *("id", "key", "action", "occasion", "state", "decision_id", "case_id", "created_at", "due_at", "next_at"),
    *("attempts", "remote_id", "error", "cancelled", "done_at", "notes", "lease_until"),
)
UNDONE = (State.PENDING, State.OPENED, State.FINISHING, State.REFUSED)
"""Neither done nor taken back."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as it stands. Times are UTC with zone.

    ``error`` says why the last attempt failed, or what a person who took the task back said. ``late``: it is not filed,
    and its deadline is over or nearer than ``outbox.alarm_before_h``. ``running``: a worker has it now. ``notes`` is
    what the action noted; it may hold hashes.
    """

    id: int
    key: str
    action: str
    occasion: Occasion
    state: State
    decision_id: int
    case_id: int | None
    created_at: datetime
    due_at: datetime | None
    next_at: datetime
    attempts: int
    remote_id: str | None
    error: str | None
    cancelled: bool
    done_at: datetime | None
    late: bool
    running: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ActionStatus:
    """The tasks of one action, counted by state; states without any are left out.

    ``oldest_at``: since when the oldest waits that is neither done nor taken back; ``next_deadline``: the first of
    these. ``known``: whether the configuration has the action; None where that was not asked.
    """

    action: str
    counts: Mapping[State, int]
    oldest_at: datetime | None = None
    next_deadline: datetime | None = None
    late: int = 0
    known: bool | None = None

    @property
    def waiting(self) -> int:
        """Tasks that a worker still has something to do for."""
        return sum(count for state, count in self.counts.items() if state.is_open)


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """The outbox at one time, by action in order of their names."""

    at: datetime
    actions: tuple[ActionStatus, ...]

    @property
    def counts(self) -> Mapping[tuple[str, State], int]:
        """Tasks by action and state; those without any are left out."""
        return {(one.action, state): count for one in self.actions for state, count in one.counts.items()}

    @property
    def waiting(self) -> int:
        """Tasks that a worker still has something to do for."""
        return sum(one.waiting for one in self.actions)

    @property
    def oldest_at(self) -> datetime | None:
        """Since when the oldest task waits that is neither done nor taken back."""
        return min((one.oldest_at for one in self.actions if one.oldest_at is not None), default=None)

    @property
    def next_deadline(self) -> datetime | None:
        """The first deadline of these."""
        return min((one.next_deadline for one in self.actions if one.next_deadline is not None), default=None)

    @property
    def late(self) -> int:
        """Reports whose deadline is over or near."""
        return sum(one.late for one in self.actions)

    @property
    def refused(self) -> int:
        """Tasks that a person must look at."""
        return sum(one.counts.get(State.REFUSED, 0) for one in self.actions)

    @property
    def no_action(self) -> int:
        """Tasks to be done whose action the configuration does not have."""
        return sum(one.waiting for one in self.actions if one.known is False)

    @property
    def needs_attention(self) -> bool:
        """Whether somebody must look."""
        return bool(self.late or self.refused or self.no_action)


class Outbox:
    """Shared between threads. ``actions`` are the names of those configured, for :meth:`status`, where known."""

    def __init__(self, database: Database, settings: OutboxSettings, *, actions: Collection[str] | None = None) -> None:
        self._database = database
        self._alarm_before = timedelta(hours=settings.alarm_before_h)
        self._actions = None if actions is None else frozenset(actions)

    def list(
        self,
        *,
        states: Collection[State] | None = None,
        action: str | None = None,
        case_id: int | None = None,
        decision_id: int | None = None,
        late: bool | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[TaskInfo]:
        """Tasks in the order of their ids, from the first after the id ``after``."""
        now = datetime.now(UTC)
        tasks = schema.tasks.c
        query = sa.select(*(tasks[name] for name in _COLUMNS)).order_by(tasks.id).limit(limit)
        for column, value in ((tasks.action, action), (tasks.case_id, case_id), (tasks.decision_id, decision_id)):
            if value is not None:
                query = query.where(column == value)
        if states is not None:
            query = query.where(tasks.state.in_([state.value for state in states]))
        if late is not None:
            is_late_now = is_late(now + self._alarm_before)
            query = query.where(is_late_now if late else sa.not_(sa.func.coalesce(is_late_now, sa.false())))
        if after is not None:
            query = query.where(tasks.id > after)
        with self._database.reading() as connection:
            return [self._info(row, now) for row in connection.execute(query)]

    def show(self, task_id: int) -> TaskInfo:
        """One task. Raises :class:`~uploadguard.errors.UnknownRecordError`."""
        tasks = schema.tasks.c
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(*(tasks[name] for name in _COLUMNS)).where(tasks.id == task_id)
            ).one_or_none()
        if row is None:
            raise UnknownRecordError(f"there is no task {task_id}")
        return self._info(row, datetime.now(UTC))

    def status(self, *, done: bool = True) -> OutboxStatus:
        """Counts, and what waits longest. Without ``done`` filed and cancelled tasks are not counted: much faster."""
        now = datetime.now(UTC)
        tasks = schema.tasks.c
        undone = tasks.state.in_([state.value for state in UNDONE])
        counting = sa.select(tasks.action, tasks.state, sa.func.count().label("tasks"))
        counting = counting.group_by(tasks.action, tasks.state)
        waiting = (
            sa.select(
                tasks.action,
                sa.func.min(tasks.created_at, type_=schema.Utc).label("oldest_at"),
                sa.func.min(tasks.due_at, type_=schema.Utc).label("next_deadline"),
                sa.func.count(sa.case((is_late(now + self._alarm_before), 1))).label("late"),
            )
            .where(undone)
            .group_by(tasks.action)
        )
        with self._database.reading() as connection:
            counted = connection.execute(counting if done else counting.where(undone)).all()
            oldest = {row.action: row for row in connection.execute(waiting)}
        by_action: dict[str, dict[State, int]] = {name: {} for name in self._actions or ()}
        for row in counted:
            by_action.setdefault(row.action, {})[State(row.state)] = row.tasks
        found = []
        for name, counts in sorted(by_action.items()):
            known = None if self._actions is None else name in self._actions
            of = oldest.get(name)
            found.append(
                ActionStatus(name, counts, known=known)
                if of is None
                else ActionStatus(name, counts, of.oldest_at, of.next_deadline, of.late, known)
            )
        return OutboxStatus(now, tuple(found))

    def retry(self, task_id: int, person: Person) -> None:
        """Have a refused task tried again, from where it was; and one that waits for its next attempt at once.

        Needs the role ``lead``. Raises :class:`~uploadguard.errors.NotPermittedError`,
        :class:`~uploadguard.errors.UnknownRecordError`, and :class:`~uploadguard.errors.CaseStateError` for a task that
        is done or was taken back.
        """
        person.require(Role.LEAD)
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            row = _locked(connection, task_id)
            state = State(row.state)
            if state not in UNDONE:
                raise CaseStateError(f"task {task_id} is {state}: there is nothing to try again")
            values: dict[str, Any] = {"next_at": now, "alarmed_at": None}
            if state is State.REFUSED:
                values |= {"state": row.refused_in or State.PENDING.value, "refused_in": None}
            _update(connection, task_id, **values)
            audit.append(
                connection, person.name, "task.retry", f"task:{task_id}", action_name=row.action, was=state.value
            )

    def cancel(self, task_id: int, person: Person, note: str) -> None:
        """Take a task back: see :func:`cancel_tasks`. ``note``, which must say something, is kept with it.

        A refused one that was taken back before, and could not be retracted, ends here. Needs the role ``lead``. Raises
        :class:`~uploadguard.errors.NotPermittedError`, :class:`~uploadguard.errors.UnknownRecordError`, and
        :class:`~uploadguard.errors.CaseStateError` for a task that is done, or is being filed already.
        """
        person.require(Role.LEAD)
        if not note.strip():
            raise CaseStateError("say why the task is taken back")
        with self._database.writing() as connection:
            row = _locked(connection, task_id)
            state = State(row.state)
            if state is State.FINISHING or state not in UNDONE:
                what = "being filed" if state is State.FINISHING else str(state)
                raise CaseStateError(f"task {task_id} is {what}: it cannot be taken back any more")
            _cancel(connection, row, person.name, datetime.now(UTC), note.strip())

    def _info(self, row: Any, now: datetime) -> TaskInfo:
        values = {name: getattr(row, name) for name in _COLUMNS if name != "lease_until"}
        state = State(row.state)
        late = (
            state in UNDONE and not row.cancelled and row.due_at is not None and row.due_at < now + self._alarm_before
        )
        running = state.is_open and row.lease_until is not None and row.lease_until > now
        values |= {"occasion": Occasion(row.occasion), "state": state, "late": late, "running": running}
        return TaskInfo(**values)


def is_late(before: datetime) -> sa.ColumnElement[bool]:
    """Whether a task is not filed, though its deadline is before that time."""
    tasks = schema.tasks.c
    return sa.and_(
        tasks.state.in_([state.value for state in UNDONE]), tasks.cancelled.is_(sa.false()), tasks.due_at < before
    )


def cancel_tasks(connection: Connection, task_ids: Iterable[int], actor: str, now: datetime) -> Counter[State]:
    """Take tasks back, in a transaction of ``Database.writing``; returns how many were in which state.

    One that was never opened is cancelled, at once or by the worker that has it. One that was opened is given to its
    action once more, to retract it. One that is being filed, is done or was cancelled stays as it is.
    """
    found: Counter[State] = Counter()
    for task_id in sorted(set(task_ids)):
        row = _locked(connection, task_id)
        found[State(row.state)] += 1
        if State(row.state) in (State.PENDING, State.OPENED, State.REFUSED):
            _cancel(connection, row, actor, now, None)
    return found


def _cancel(connection: Connection, row: Any, actor: str, now: datetime, note: str | None) -> None:
    """A task that is pending, opened or refused."""
    state, refused_in = State(row.state), State(row.refused_in or State.PENDING)
    if state is State.REFUSED:
        ends = row.cancelled or refused_in is State.PENDING
    else:
        ends = state is State.PENDING and row.lease is None
    values: dict[str, Any] = {"cancelled": True, "next_at": now, "refused_in": None}
    if note is not None:
        values["error"] = note
    if ends:
        values |= {"state": State.CANCELLED.value, "done_at": now, "lease": None, "lease_until": None}
    elif state is State.REFUSED:
        values["state"] = State.OPENED.value
    _update(connection, row.id, **values)
    what = "task.cancelled" if ends else "task.cancel"
    audit.append(connection, actor, what, f"task:{row.id}", action_name=row.action, was=state.value)


def _locked(connection: Connection, task_id: int) -> Any:
    tasks = schema.tasks.c
    row = connection.execute(
        sa.select(tasks.id, tasks.action, tasks.state, tasks.cancelled, tasks.lease, tasks.refused_in)
        .where(tasks.id == task_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise UnknownRecordError(f"there is no task {task_id}")
    return row


def _update(connection: Connection, task_id: int, **values: Any) -> None:
    connection.execute(sa.update(schema.tasks).where(schema.tasks.c.id == task_id).values(**values))
