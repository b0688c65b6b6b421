"""Leases: which worker has which task, by the clock of the database.

A lease is a random token in the task's row, with the time until which it holds. Whoever writes to the row names the
token, so that a worker whose lease ran out, and went to another, changes nothing any more.

On PostgreSQL all times are the server's, so that hosts may disagree about the time. On SQLite they are the host's,
which all workers share, and taken once the database is locked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Occasion, State, Task
from uploadguard.ledger import schema
from uploadguard.ledger.codec import from_record
from uploadguard.ledger.database import Database

__all__ = ["Clock", "Lease", "Leases"]

_TOKEN_BYTES = 16


class Clock:
    """The database's clock, as SQL."""

    def __init__(self, database: Database) -> None:
        self._is_sqlite = database.is_sqlite

    def now(self) -> sa.ColumnElement[Any]:
        """The time. To be called within the transaction that it is used in."""
        return self.after(0.0)

    def after(self, wait_s: float) -> sa.ColumnElement[Any]:
        """The time so many seconds from now."""
        wait = timedelta(seconds=wait_s)
        if self._is_sqlite:
            return sa.literal(datetime.now(UTC) + wait, schema.Utc)
        now: sa.ColumnElement[Any] = sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))
        return now + sa.literal(wait, sa.Interval) if wait_s else now

    def read(self, connection: Connection) -> datetime:
        """The time, as a value."""
        found: datetime = connection.execute(sa.select(sa.type_coerce(self.now(), schema.Utc))).scalar_one()
        return found


@dataclass(slots=True, eq=False)
class Lease:
    """A task that this worker has. ``task`` is None where its record cannot be read; ``problem`` then says why.

    ``state``, ``remote_id`` and ``notes`` follow the journal. ``since`` is when the action got it, by the monotonic
    clock; None before and after that. ``held_at``: when it certainly held, by that clock. ``ended``: it is known to be
    lost, or given up.
    """

    id: int
    token: str
    action: str
    decision_id: int
    state: State
    attempts: int
    cancelled: bool
    remote_id: str | None
    notes: dict[str, Any]
    task: Task | None
    held_at: float
    problem: str = ""
    since: float | None = None
    ended: bool = False


class Leases:
    """Taking, keeping and giving back leases of ``lease_s`` seconds."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self.clock = Clock(database)

    def claim(self, wanted: Mapping[str, int], due_by: datetime | None = None) -> list[Lease]:
        """Take due tasks of these actions, at most so many of each; what has the first deadline comes first.

        ``due_by`` leaves out what became due after that.
        """
        if not wanted:
            return []
        token = secrets.token_hex(_TOKEN_BYTES)
        began = time.monotonic()
        with self._database.changing() as connection:
            ids: list[int] = []
            for action, limit in wanted.items():
                ids += self._due(connection, action, limit, due_by)
            if not ids:
                return []
            tasks = schema.tasks
            connection.execute(
                sa.update(tasks)
                .where(tasks.c.id.in_(ids))
                .values(lease=token, lease_until=self.clock.after(self._lease_s), attempts=tasks.c.attempts + 1)
            )
            rows = connection.execute(_WITH_RECORD.where(tasks.c.id.in_(ids))).all()
        return sorted((_lease(row, token, began) for row in rows), key=lambda lease: ids.index(lease.id))

    def _due(self, connection: Connection, action: str, limit: int, due_by: datetime | None) -> Iterable[int]:
        tasks = schema.tasks.c
        query = (
            sa.select(tasks.id)
            .where(
                schema.OPEN_TASKS,
                tasks.action == action,
                tasks.next_at <= (self.clock.now() if due_by is None else due_by),
                sa.or_(tasks.lease.is_(None), tasks.lease_until < self.clock.now()),
            )
            .order_by(tasks.claim_order, tasks.id)
            .limit(limit)
        )
        return connection.execute(query.with_for_update(skip_locked=True)).scalars().all()

    def renew(self, held: Sequence[Lease]) -> None:
        """Hold these for another ``lease_s`` seconds; those that were lost stay so."""
        began = time.monotonic()
        with self._database.changing() as connection:
            ids = self._mine(connection, held)
            if ids:
                connection.execute(
                    sa.update(schema.tasks)
                    .where(schema.tasks.c.id.in_(ids))
                    .values(lease_until=self.clock.after(self._lease_s))
                )
        renewed = set(ids)
        for lease in held:
            if lease.id in renewed:
                lease.held_at = began

    def is_held(self, lease: Lease) -> bool:
        """Whether a task that is not begun yet is still this worker's. Where that is not certain, since the process
        stood still or the database was down, it is renewed first."""
        if time.monotonic() - lease.held_at > self._lease_s / 2:
            self.renew([lease])
        return time.monotonic() - lease.held_at <= self._lease_s / 2

    def give_back(self, held: Sequence[Lease]) -> None:
        """Let others have these at once: they were not begun."""
        tasks = schema.tasks.c
        with self._database.changing() as connection:
            ids = self._mine(connection, held)
            if ids:
                values = {"lease": None, "lease_until": None, "attempts": tasks.attempts - 1}
                connection.execute(sa.update(schema.tasks).where(tasks.id.in_(ids)).values(**values))

    def _mine(self, connection: Connection, held: Sequence[Lease]) -> list[int]:
        """Those still held. A row that is being written to just now is left out, so as not to wait for it."""
        tasks = schema.tasks.c
        query = sa.select(tasks.id).where(
            tasks.id.in_([lease.id for lease in held]), tasks.lease.in_({lease.token for lease in held})
        )
        return list(connection.execute(query.with_for_update(skip_locked=True)).scalars())


_WITH_RECORD = (
    sa.select(
        schema.tasks,
        schema.decisions.c.record,
        schema.cases.c.status.label("case_status"),
        schema.cases.c.decided_at.label("case_decided_at"),
        schema.evidence.c.viewed_at,
    )
    .join(schema.decisions, schema.decisions.c.id == schema.tasks.c.decision_id)
    .outerjoin(schema.cases, schema.cases.c.id == schema.tasks.c.case_id)
    .outerjoin(schema.evidence, schema.evidence.c.decision_id == schema.tasks.c.decision_id)
)


def _lease(row: Any, token: str, held_at: float) -> Lease:
    state = State(row.state)
    lease = Lease(
        id=row.id,
        token=token,
        action=row.action,
        decision_id=row.decision_id,
        state=state,
        attempts=row.attempts,
        cancelled=row.cancelled,
        remote_id=row.remote_id,
        notes=dict(row.notes or {}),
        task=None,
        held_at=held_at,
    )
    try:
        recorded = from_record(row.record)
        occasion = Occasion(row.occasion)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        lease.problem = f"the record of the decision cannot be read ({type(error).__name__})"
        return lease
    lease.task = Task(
        id=row.id,
        key=row.key,
        action=row.action,
        occasion=occasion,
        state=state,
        decision=recorded.decision,
        context=recorded.context,
        decided_at=recorded.decided_at,
        created_at=row.created_at,
        due_at=row.due_at,
        case_id=row.case_id,
        confirmed_at=row.case_decided_at if row.case_status == "confirmed" else None,
        # Of this very file: another one of its case may have been looked at, and this one not.
        viewed=row.viewed_at is not None,
        attempts=row.attempts,
        remote_id=row.remote_id,
        notes=MappingProxyType(dict(row.notes or {})),
        # What is being filed cannot be taken back.
        cancelled=row.cancelled and state is State.OPENED,
    )
    return lease
