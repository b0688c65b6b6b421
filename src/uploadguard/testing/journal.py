"""A journal without an outbox, for tests of actions: it keeps one task's state, and can fail or die at any call."""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType
from typing import Any

from uploadguard.actions import Evidence, State, Task

__all__ = ["ScriptedJournal", "WorkerDied"]


class WorkerDied(BaseException):
    """Stands for ``kill -9``: nothing that handles errors should handle it."""


class ScriptedJournal:
    """Keeps what an action tells it. :attr:`task` is the task as the next attempt gets it.

    ``calls`` has the names of all calls so far. :meth:`fail_at` makes one of them raise, before or after its effect.
    """

    def __init__(self, task: Task, evidence: Evidence | None = None) -> None:
        self.task = task
        self.calls: list[str] = []
        self._evidence = evidence
        self._fail_at: int | None = None
        self._error: BaseException = WorkerDied()
        self._committed = False

    def fail_at(self, number: int | None, error: BaseException | None = None, *, committed: bool = False) -> None:
        """Raise ``error`` (:class:`WorkerDied`) at the call of this number, counted from 0, and all after it.

        ``committed`` says whether that call takes effect first. None: fail no more.
        """
        self.calls.clear()
        self._fail_at = number
        self._error = error if error is not None else WorkerDied()
        self._committed = committed

    def next_attempt(self) -> Task:
        """The task for another attempt, counted."""
        self.task = dataclasses.replace(self.task, attempts=self.task.attempts + 1)
        return self.task

    def opened(self, remote_id: str) -> None:
        """The other side gave this id."""
        self._call("opened", state=State.OPENED, remote_id=remote_id)

    def note(self, **facts: Any) -> None:
        """Merge facts into the notes, by way of JSON as the ledger does."""
        merged = json.loads(json.dumps({**self.task.notes, **facts}, allow_nan=False))
        self._call("note", notes=MappingProxyType(merged))

    def finishing(self) -> None:
        """The last step is about to be taken."""
        self._call("finishing", state=State.FINISHING)

    def reopen(self) -> None:
        """Back to pending, without notes."""
        self._call("reopen", state=State.PENDING, remote_id=None, notes=MappingProxyType({}))

    def evidence(self) -> Evidence | None:
        """What it was made with."""
        self._call("evidence")
        return self._evidence

    def _call(self, name: str, **changes: Any) -> None:
        fails = self._fail_at is not None and len(self.calls) >= self._fail_at
        first = fails and len(self.calls) == self._fail_at
        self.calls.append(name)
        if not fails or (first and self._committed):
            self.task = dataclasses.replace(self.task, **changes)
        if fails:
            raise self._error
