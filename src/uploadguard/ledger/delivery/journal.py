"""The journal: what an action tells of a task, committed under the task's lease."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from uploadguard.actions import Evidence, State
from uploadguard.errors import ActionError, LeaseLostError, PostponedError, RefusedError
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.leases import Lease
from uploadguard.ledger.delivery.rows import Written, has_lease, update_under_lease

__all__ = ["TakenBackError", "TaskJournal"]


class TakenBackError(PostponedError):
    """A person took the task back while it was carried out."""

    def __init__(self) -> None:
        super().__init__("taken back meanwhile")


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
        lease = self._lease

        def look(connection: Connection) -> Written:
            return Written.KEPT if has_lease(connection, lease.id, lease.token) else Written.LOST

        self._check(self._progress.write(lease.id, look))
        return self._evidence(self._lease.decision_id, self._task.action) if self._evidence is not None else None

    def _unless_finishing(self) -> bool | None:
        """Whether the task must be taken back, or not, for the journal to go on."""
        return None if self._lease.state is State.FINISHING else self._task.cancelled

    def _keep(self, values: Mapping[str, Any], *, cancelled: bool | None = None) -> Written:
        if self._lease.ended:
            raise LeaseLostError(_LOST)
        lease = self._lease
        return self._check(
            self._progress.write(
                lease.id,
                lambda connection: update_under_lease(connection, lease.id, lease.token, values, cancelled=cancelled),
            )
        )

    def _check(self, written: Written) -> Written:
        if written is Written.LOST:
            self._lease.ended = True
            raise LeaseLostError(_LOST)
        if written is Written.CONTRADICTED:
            raise TakenBackError
        return written


_LOST = "the task is not this worker's any more"
