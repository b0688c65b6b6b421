"""A made-up destination that files in two steps and counts what was filed, with an action for it."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Journal, Occasion, Receipt, State, Task
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Verdict

__all__ = ["Destination", "LostAnswerError", "TwoPhaseAction", "add_reports", "add_reports_at_once", "task_rows"]


class LostAnswerError(Exception):
    """The other side may have done it, or not."""


class Remote(Protocol):
    """What the action needs of a destination."""

    def open(self, key: str) -> str: ...
    def finish(self, remote_id: str) -> str: ...
    def retract(self, remote_id: str) -> str: ...


class Destination:
    """Opens, finishes and retracts reports; may forget open ones, as real ones do.

    ``mishap(step)`` is called before and after each step, and may raise: the caller then does not learn the answer.
    """

    def __init__(self, mishap: Callable[[str], None] = lambda step: None) -> None:
        self.mishap = mishap
        self.lock = threading.Lock()
        self.open_reports: dict[str, str] = {}
        self.finished: dict[str, str] = {}
        self.retracted: set[str] = set()
        self.finished_by_key: Counter[str] = Counter()
        self.opened_by_key: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def open(self, key: str) -> str:
        self.mishap("open")
        with self.lock:
            self.calls["open"] += 1
            remote_id = str(self.calls["open"])
            self.open_reports[remote_id] = key
            self.opened_by_key[key] += 1
        self.mishap("opened")
        return remote_id

    def finish(self, remote_id: str) -> str:
        self.mishap("finish")
        with self.lock:
            self.calls["finish"] += 1
            if remote_id in self.finished:
                answer = "already"
            elif remote_id in self.open_reports:
                self.finished[remote_id] = key = self.open_reports.pop(remote_id)
                self.finished_by_key[key] += 1
                answer = "done"
            else:
                answer = "unknown"
        self.mishap("finished")
        return answer

    def retract(self, remote_id: str) -> str:
        self.mishap("retract")
        with self.lock:
            self.calls["retract"] += 1
            if remote_id in self.finished:
                answer = "already"
            elif self.open_reports.pop(remote_id, None) is not None:
                self.retracted.add(remote_id)
                answer = "done"
            else:
                answer = "unknown"
        self.mishap("retracted")
        return answer

    def expire(self) -> None:
        """Forget all open reports."""
        with self.lock:
            self.open_reports.clear()


class TwoPhaseAction:
    """An action that files each report exactly once, as its journal lets it."""

    occasions = frozenset({Occasion.REPORT})

    def __init__(self, remote: Remote, name: str = "authority", *, notes: bool = True) -> None:
        self.remote = remote
        self.name = name
        self.notes = notes

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        remote_id = task.remote_id
        if task.cancelled:
            assert remote_id is not None
            if self.remote.retract(remote_id) == "already":
                raise RefusedError("it was finished already")
            return Receipt(remote_id)
        if task.state is State.PENDING:
            remote_id = self.remote.open(task.key)
            journal.opened(remote_id)
        assert remote_id is not None
        if task.state is not State.FINISHING:
            if self.notes:
                journal.note(uploaded=1)
            journal.finishing()
        if self.remote.finish(remote_id) == "unknown":
            journal.reopen()
            raise PostponedError("the report expired")
        return Receipt(remote_id, {"finished": True})


def add_reports(database: Database, count: int, *actions: str, within: timedelta = timedelta(hours=24)) -> list[int]:
    """Record so many blocked uploads with a report due to each of these actions; returns the tasks' ids."""
    plan = Plan({name: frozenset({Occasion.REPORT}) for name in actions or ("authority",)}, report_within=within)
    tasks = schema.tasks.c
    with database.writing() as connection:
        done = record(connection, [made_up_record(verdict=Verdict.BLOCK) for _ in range(count)], plan)
        mine = tasks.decision_id.in_([one.decision_id for one in done])
        return list(connection.execute(sa.select(tasks.id).where(mine).order_by(tasks.id)).scalars())


def add_reports_at_once(database: Database, count: int, action: str = "authority", *, first: int = 0) -> None:
    """The same for very many, without an audit entry each; numbered from ``first``."""
    now = datetime.now(UTC)
    found = made_up_record(verdict=Verdict.BLOCK)
    for start in range(first, first + count, 5000):
        numbers = range(start, min(first + count, start + 5000))
        with database.writing() as connection:
            ids = connection.execute(
                sa.insert(schema.decisions).returning(schema.decisions.c.id),
                [
                    {
                        "reference": f"soak-{number}",
                        "decided_at": now,
                        "verdict": "block",
                        "report_due": True,
                        "record": {**found, "reference": f"soak-{number}"},
                    }
                    for number in numbers
                ],
            ).scalars()
            rows = [
                {
                    "key": str(uuid.UUID(int=random.getrandbits(128), version=4)),
                    "action": action,
                    "occasion": "report",
                    "round": 0,
                    "state": "pending",
                    "decision_id": decision_id,
                    "created_at": now,
                    "due_at": now + timedelta(hours=24),
                    "next_at": now,
                    "notes": {},
                }
                for decision_id in ids
            ]
            connection.execute(sa.insert(schema.tasks), rows)


def task_rows(database: Database, *ids: int) -> list[Any]:
    """The tasks' rows, in order of their ids; all of them where none is named."""
    query = sa.select(schema.tasks).order_by(schema.tasks.c.id)
    with database.reading() as connection:
        return list(connection.execute(query.where(schema.tasks.c.id.in_(ids)) if ids else query).all())
