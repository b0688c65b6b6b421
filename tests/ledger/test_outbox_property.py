"""Whatever goes wrong, in whatever order: a report is finished at the destination at most once, and filed in the end.

The worker's parts are driven by one thread, so that each example can be run again. Things go wrong at every step that
an action takes: answers are lost, the destination forgets open reports, the process dies before or after a commit,
or stands still so long that another worker takes the task over and goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from tests.effort import tries
from tests.ledger.conftest import made_up_record
from tests.ledger.twophase import Destination, LostAnswerError, TwoPhaseAction, task_rows
from uploadguard.actions import Journal, Occasion, Receipt, State, Task
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import CaseStateError, RefusedError
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.leases import Lease, Leases
from uploadguard.ledger.delivery.outcomes import Settling, carry_out
from uploadguard.ledger.delivery.rows import Written
from uploadguard.ledger.outbox import Outbox
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, add_tasks, record
from uploadguard.models import Verdict

PLAN = Plan({"authority": frozenset({Occasion.REPORT})})
SOMEBODY = Person("somebody", frozenset(Role))
SETTINGS = OutboxSettings(first_wait_s=0.001, max_wait_s=0.001)
DEPTH = 2
FINISHED_ALREADY = "it was finished already"

FINE = "fine"
LOST_ANSWER = "lost answer"
CRASH = "crash"
FORGET = "the destination forgets open reports"
TAKEN_OVER = "stands still, and another worker goes on"
CANCEL, REVIVE, RETRY, REFUSE = "cancel", "revive", "retry", "refuse"
MISHAPS = st.sampled_from(
    [FINE] * 8 + [LOST_ANSWER, LOST_ANSWER, CRASH, CRASH, FORGET, TAKEN_OVER, CANCEL, REVIVE, REFUSE]
)
EVENTS = st.sampled_from(["work"] * 8 + ["claim and wait", "go on", FORGET, CANCEL, REVIVE, RETRY])


class Crashed(BaseException):
    """The process died."""


class Commits(GroupCommit[Written]):
    """A journal's commits, before and after which things go wrong."""

    def __init__(self, database: Database, mishap: Callable[[str], None]) -> None:
        super().__init__(database.changing)
        self._mishap = mishap

    def write(self, row_id: int, write: Callable[[Connection], Written]) -> Written:
        self._mishap("before commit")
        written = super().write(row_id, write)
        self._mishap("after commit")
        return written


class World:
    """One report, its destination, and workers that take turns."""

    def __init__(self, database: Database, what_next: Callable[[], str]) -> None:
        self.database = database
        self.what_next = what_next
        self.calm = False
        self.dead = False
        self.depth = 0
        self.waiting: list[Lease] = []
        self.there = Destination(self.mishap)
        self.leases = Leases(database, SETTINGS.lease_s)
        self.settling = Settling(database, SETTINGS)
        self.outbox = Outbox(database, SETTINGS)
        with database.writing() as connection:
            done = record(connection, [made_up_record(verdict=Verdict.BLOCK)], PLAN)
            self.decision_id = done[0].decision_id
            mine = schema.tasks.c.decision_id == self.decision_id
            self.task_id = connection.execute(sa.select(schema.tasks.c.id).where(mine)).scalar_one()

    @property
    def row(self) -> Any:
        return task_rows(self.database, self.task_id)[0]

    def mishap(self, step: str) -> None:
        """Something may go wrong at this step."""
        if self.dead:
            raise Crashed  # whatever the action does about it, a dead process does nothing more
        if self.calm:
            return
        what = self.what_next()
        if what == CRASH:
            self.dead = True
            raise Crashed
        if what == LOST_ANSWER and "commit" not in step:
            raise LostAnswerError
        if what == REFUSE and "commit" not in step:
            raise RefusedError("not like this")
        if what == TAKEN_OVER and self.depth < DEPTH:
            self.run_out()
            self.work()
        elif what != FINE:
            self.do(what)

    def do(self, what: str) -> None:
        """What may happen at any time."""
        if what == FORGET:
            self.there.expire()
        elif what == CANCEL:
            if self.row.state == State.REFUSED.value and self.row.cancelled:
                return  # who says so twice knows better than anybody here
            try:
                self.outbox.cancel(self.task_id, SOMEBODY, "changed my mind")
            except CaseStateError:
                assert State(self.row.state) in (State.FINISHING, State.FILED, State.CANCELLED)
        elif what == REVIVE:
            with self.database.writing() as connection:
                add_tasks(connection, PLAN, Occasion.REPORT, self.decision_id, None, now=datetime.now(UTC))
        elif what == RETRY:
            try:
                self.outbox.retry(self.task_id, SOMEBODY)
            except CaseStateError:
                assert State(self.row.state) in (State.FILED, State.CANCELLED)

    def run_out(self) -> None:
        """Let leases and waits be over."""
        past = datetime.now(UTC) - timedelta(days=1)
        with self.database.changing() as connection:
            connection.execute(
                sa.update(schema.tasks)
                .where(schema.tasks.c.id == self.task_id)
                .values(next_at=past, lease_until=sa.case((schema.tasks.c.lease.is_not(None), past)))
            )

    def claim(self) -> Lease | None:
        self.run_out()
        return next(iter(self.leases.claim({"authority": 1})), None)

    def work(self) -> None:
        """A worker comes, and does its part or dies."""
        lease = self.claim()
        if lease is not None:
            self.carry_out(lease)

    def carry_out(self, lease: Lease) -> None:
        was_dead, self.dead = self.dead, False
        self.depth += 1
        try:
            outcome = carry_out(Careful(self.there), lease, Commits(self.database, self.mishap), None)
            if not self.dead:
                try:
                    self.mishap("before commit")
                    self.settling.settle(lease, outcome)
                except Crashed:
                    pass
        finally:
            self.depth -= 1
            self.dead = was_dead
        assert max(self.there.finished_by_key.values(), default=0) <= 1


class Careful(TwoPhaseAction):
    """The action, which looks at what it is given, too."""

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        assert (task.remote_id is None) == (task.state is State.PENDING)
        assert not task.cancelled or task.state is State.OPENED
        return super().deliver(task, journal)


@settings(
    max_examples=tries(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(
    events=["work", "work", CANCEL], mishaps=[*[FINE] * 8, FORGET, *[FINE] * 11, TAKEN_OVER, REFUSE]
)  # refused after another worker had finished it, then taken back
@given(
    events=st.lists(EVENTS, min_size=1, max_size=12),
    # Drawn before, not as they come: what Hypothesis raises to end an example would pass for an action's fault.
    mishaps=st.lists(MISHAPS, min_size=15, max_size=60),
)
def test_finished_at_most_once_and_filed_in_the_end(database: Database, events: list[str], mishaps: list[str]) -> None:
    to_come = iter(mishaps)
    world = World(database, lambda: next(to_come, FINE))
    for event in events:
        if event == "work":
            world.work()
        elif event == "claim and wait":
            lease = world.claim()
            world.waiting += [lease] if lease is not None else []
        elif event == "go on":
            if world.waiting:
                world.carry_out(world.waiting.pop(0))
        else:
            world.do(event)
    world.calm = True
    for lease in world.waiting:
        world.carry_out(lease)
    for _ in range(8):
        world.work()
        if world.row.state == State.REFUSED.value and not (world.row.cancelled and world.row.error == FINISHED_ALREADY):
            world.do(RETRY)
    row = world.row
    finished = world.there.finished_by_key[row.key]
    if row.state == State.REFUSED.value:
        # Refused when it was finished, and taken back: that is for a person to see, however often it is tried again.
        assert (row.cancelled, row.error, finished) == (True, FINISHED_ALREADY, 1)
    else:
        assert (row.state, finished) in ((State.FILED.value, 1), (State.CANCELLED.value, 0))
    if row.state == State.FILED.value:
        assert world.there.finished[row.remote_id] == row.key
    assert row.lease is None
    assert_audited(database, row)


def assert_audited(database: Database, row: Any) -> None:
    """The final state stands in the audit log, filing exactly once."""
    subject = f'"task:{row.id}"'
    with database.reading() as connection:
        entries = list(
            connection.execute(
                sa.select(schema.audit.c.entry)
                .where(schema.audit.c.entry.contains(subject))
                .order_by(schema.audit.c.seq)
            ).scalars()
        )
    filed = sum('"action":"task.filed"' in entry for entry in entries)
    assert filed == (row.state == State.FILED.value)
    if row.state == State.CANCELLED.value:
        assert '"action":"task.cancelled"' in entries[-1]


@pytest.mark.parametrize("cut", ["open", "opened", "finish", "finished"])
def test_an_answer_lost_at_each_step(database: Database, cut: str) -> None:
    world = World(database, lambda: FINE)
    lost: list[str] = []

    def mishap(step: str) -> None:
        if step == cut and not lost:
            lost.append(step)
            raise LostAnswerError

    world.there.mishap = mishap
    for _ in range(2):
        world.work()
    assert lost
    assert world.row.state == State.FILED.value
    assert dict(world.there.finished_by_key) == {world.row.key: 1}
