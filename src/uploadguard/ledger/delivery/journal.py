"""The journal: what an action tells of a task, committed under the task's lease."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Evidence, State
from uploadguard.errors import ActionError, LeaseLostError, PostponedError, RefusedError
from uploadguard.ledger import schema
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.leases import Lease

__all__ = ["TakenBackError", "TaskJournal", "Written", "update_under_lease"]


class TakenBackError(PostponedError):
    """A person took the task back while it was carried out."""

    def __init__(self) -> None:
        super().__init__("taken back meanwhile")


class Written(enum.Enum):
    """What became of a change under a lease."""

    KEPT = enum.auto()
    KEPT_CANCELLED = enum.auto()
    """Kept; but the task was taken back."""
    CONTRADICTED = enum.auto()
    """Nothing was changed, since the task was taken back meanwhile, or not any more."""
    LOST = enum.auto()
    """Nothing was changed: another worker has the task."""


def update_under_lease(
    connection: Connection, lease: Lease, values: Mapping[str, Any], *, cancelled: bool | None = None
) -> Written:
    """Change the task's row, if this worker still has it; and, unless None, only if it is ``cancelled`` or not."""
    tasks = schema.tasks.c
    mine = sa.and_(tasks.id == lease.id, tasks.lease == lease.token)
    condition = mine if cancelled is None else sa.and_(mine, tasks.cancelled == cancelled)
    found = connection.execute(
        sa.update(schema.tasks).where(condition).values(**values).returning(tasks.cancelled)
    ).scalar_one_or_none()
    if found is not None:
        return Written.KEPT_CANCELLED if found else Written.KEPT
    if cancelled is None:
        return Written.LOST
    still = connection.execute(sa.select(tasks.id).where(mine)).scalar_one_or_none()
    return Written.LOST if still is None else Written.CONTRADICTED


class TaskJournal:
    """A :class:`~uploadguard.actions.Journal` that commits to the database, together with those of other threads."""

    def __init__(
        self,
        lease: Lease,
        progress: GroupCommit[Written],
        evidence: Callable[[int, str], Evidence | None] | None,
    ) -> None:
        assert lease.task is not None
        self._lease = lease
        self._task = lease.task
        self._progress = progress
        self._evidence = evidence

    def opened(self, remote_id: str) -> None:
        """See :meth:`uploadguard.actions.Journal.opened`.

        Raises :class:`~uploadguard.errors.ActionError` where the task was opened under another name before.
        """
        if not isinstance(remote_id, str) or not remote_id or "\0" in remote_id:
            raise ActionError("the action named no id of what it opened")
        if self._lease.state is not State.PENDING and self._lease.remote_id != remote_id:
            raise ActionError("the action opened a second report without a word that the first is gone")
        # Kept in any case: what was opened must be found again, to be retracted if need be.
        self._keep({"state": State.OPENED.value, "remote_id": remote_id})
        self._lease.state, self._lease.remote_id = State.OPENED, remote_id

    def note(self, **facts: Any) -> None:
        """See :meth:`uploadguard.actions.Journal.note`."""
        notes = {**self._lease.notes, **json.loads(json.dumps(facts, allow_nan=False))}
        self._keep({"notes": notes}, cancelled=self._unless_finishing())
        self._lease.notes = notes

    def finishing(self) -> None:
        """See :meth:`uploadguard.actions.Journal.finishing`.

        From here on the task cannot be taken back. Raises :class:`~uploadguard.errors.PostponedError` if it was.
        """
        if self._task.cancelled:
            raise RefusedError("the action wanted to file what was taken back")
        self._keep({"state": State.FINISHING.value}, cancelled=self._unless_finishing())
        self._lease.state = State.FINISHING

    def reopen(self) -> None:
        """See :meth:`uploadguard.actions.Journal.reopen`."""
        written = self._keep({"state": State.PENDING.value, "remote_id": None, "notes": {}})
        self._lease.state, self._lease.remote_id, self._lease.notes = State.PENDING, None, {}
        if written is Written.KEPT_CANCELLED and not self._task.cancelled:
            raise TakenBackError

    def evidence(self) -> Evidence | None:
        """See :meth:`uploadguard.actions.Journal.evidence`."""
        self._check(self._progress.write(self._lease.id, partial(_look, lease=self._lease)))
        return self._evidence(self._lease.decision_id, self._task.action) if self._evidence is not None else None

    def _unless_finishing(self) -> bool | None:
        """Whether the task must be taken back, or not, for the journal to go on."""
        return None if self._lease.state is State.FINISHING else self._task.cancelled

    def _keep(self, values: Mapping[str, Any], *, cancelled: bool | None = None) -> Written:
        if self._lease.ended:
            raise LeaseLostError(_LOST)
        change = partial(update_under_lease, lease=self._lease, values=values, cancelled=cancelled)
        return self._check(self._progress.write(self._lease.id, change))

    def _check(self, written: Written) -> Written:
        if written is Written.LOST:
            self._lease.ended = True
            raise LeaseLostError(_LOST)
        if written is Written.CONTRADICTED:
            raise TakenBackError
        return written


_LOST = "the task is not this worker's any more"


def _look(connection: Connection, lease: Lease) -> Written:
    """Change nothing, but tell whether this worker still has the task."""
    tasks = schema.tasks.c
    mine = sa.select(tasks.id).where(tasks.id == lease.id, tasks.lease == lease.token)
    return Written.LOST if connection.execute(mine).scalar_one_or_none() is None else Written.KEPT
