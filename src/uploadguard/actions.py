"""What is done about decisions away from the upload's path: reports to authorities, and the host's own callbacks.

A decision, or a person who decides a case, leaves a :class:`Task` in the outbox, in the transaction that records it. A
worker hands each task to its :class:`Action`, again and again until it is done. So an action runs at least once, and
must expect that an earlier attempt died at any point: what it must remember it tells its :class:`Journal`, which
commits before it returns.

Where the other side files in two steps (open, then finish), nothing is ever filed twice::

    pending --opened(id)--> opened --finishing()--> finishing --deliver() returns--> filed
       ^                                                |
       `----------------- reopen() ---------------------'   the other side no longer knows the id

Where it takes a report in one step, a lost answer means that it is sent again, with the same :attr:`Task.key`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from uploadguard.models import Context, Decision

__all__ = ["Action", "Evidence", "Journal", "Occasion", "Receipt", "SelectiveAction", "State", "Task"]


class Occasion(enum.StrEnum):
    """What a task is for."""

    REPORT = "report"
    """Tell the authority: a confirmed case, or a block by a rule that makes a report due."""
    RELEASE = "release"
    """A person found a queued upload harmless: serve it."""
    DELETE = "delete"
    """A person confirmed a queued upload: remove it, and its copies."""
    BAN = "ban"
    """A person asks that the uploader be shut out."""


class State(enum.StrEnum):
    """How far a task is."""

    PENDING = "pending"
    OPENED = "opened"
    """The other side gave an id, and no more is certain."""
    FINISHING = "finishing"
    """All was handed over; whether the other side took the last step is not known yet."""
    FILED = "filed"
    """Done."""
    REFUSED = "refused"
    """The other side will not take it as it is: a person must look."""
    CANCELLED = "cancelled"
    """Taken back before it was filed."""

    @property
    def is_open(self) -> bool:
        """Whether a worker still has something to do."""
        return self in _OPEN


_OPEN = frozenset({State.PENDING, State.OPENED, State.FINISHING})


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to be done by one action.

    ``key`` is a UUID, the same in each attempt: the idempotency key, and the reference a receiver can recognise a
    repetition by. ``remote_id`` is what the other side called it when it was opened, ``notes`` what the action noted in
    earlier attempts. ``case_id`` is None for what no person decided; ``confirmed_at`` and ``viewed`` are of that
    person: when, and whether anybody looked at the file itself (true only if uploadguard showed it, clear). Times are
    UTC with zone. ``cancelled`` is set where an opened task was taken back: retract it, or raise
    :class:`~uploadguard.errors.RefusedError` if it turns out to be filed already.
    """

    id: int
    key: str
    action: str
    occasion: Occasion
    state: State
    decision: Decision
    context: Context
    decided_at: datetime
    created_at: datetime
    due_at: datetime | None = None
    case_id: int | None = None
    confirmed_at: datetime | None = None
    viewed: bool = False
    attempts: int = 0
    remote_id: str | None = None
    notes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    cancelled: bool = False

    def __repr__(self) -> str:
        return f"Task({self.id}, {self.action}, {self.occasion}, {self.state})"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The preserved file of an upload. Getting it is in the audit log."""

    data: bytes
    media_type: str | None

    def __repr__(self) -> str:
        return f"Evidence(<{len(self.data)} bytes>)"


@dataclass(frozen=True, slots=True)
class Receipt:
    """That it is done. ``remote_id`` is the other side's name for it; ``facts`` are kept with the task, as JSON."""

    remote_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Journal(Protocol):
    """How an action remembers. Every call has committed when it returns.

    Each raises :class:`~uploadguard.errors.LeaseLostError` where another worker has taken the task over, since this one
    took too long: give up at once, and do nothing more on the other side.
    """

    def opened(self, remote_id: str) -> None:
        """The other side gave this id. To be called before anything else is done under it."""

    def note(self, **facts: Any) -> None:
        """Keep JSON values for later attempts; they are merged into :attr:`Task.notes`."""

    def finishing(self) -> None:
        """The last step is about to be taken."""

    def reopen(self) -> None:
        """The other side no longer knows the id, so nothing was filed under it: back to pending, without notes."""

    def evidence(self) -> Evidence | None:
        """The upload's file, if it was preserved (``[evidence]``)."""


@runtime_checkable
class Action(Protocol):
    """Carries tasks out. Shared between threads; one call at a time for one task."""

    @property
    def name(self) -> str:
        """Unique; stands in the outbox, so it must stay the same: the name of its table in ``[actions]``."""

    @property
    def occasions(self) -> frozenset[Occasion]:
        """What it wants tasks for."""

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        """Do it, within a minute, and return once it is certain that it is done. Runs on a thread of the worker's.

        Raises :class:`~uploadguard.errors.PostponedError` (try again; later than the usual wait if it says so) or
        :class:`~uploadguard.errors.RefusedError` (a person must look). Anything else it raises counts as postponed.
        """


@runtime_checkable
class SelectiveAction(Action, Protocol):
    """An action that does not want a task for each decision."""

    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:
        """Whether it wants a task for this. Asked in the transaction that records it: no I/O. Raising means yes."""
