"""Workers that die at every step, and servers that fail at random: each report is finished exactly once, or never."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from ncmec_stubs import DATA, PASSWORD, Killed, Row, StubJournal, dies_at, made_up_task, make_action

from uploadguard.actions import Evidence, State
from uploadguard.errors import LeaseLostError
from uploadguard.models import Context
from uploadguard.testing import fakes
from uploadguard.testing.fakes.ncmec import FakeNcmec, answering
from uploadguard_ncmec import NcmecAction

FILE = Evidence(DATA, "image/png")
STEPS_WITH_FILE = 12
"""Around each commit: evidence, opened, two notes, finishing, settling."""

SCHEDULES = round(15 * float(os.environ.get("UPLOADGUARD_TEST_EFFORT", "1")))


@pytest.mark.parametrize("file", [FILE, None])
def test_a_worker_that_dies_at_any_step_leaves_one_report(
    fake: FakeNcmec, action: NcmecAction, file: Evidence | None
) -> None:
    deaths = 0
    for step in range(STEPS_WITH_FILE):
        row = Row(evidence=file)
        row.attempt(action, dies_at(step))
        deaths += row.state is not State.FILED
        for _ in range(3):
            if row.state is not State.FILED:
                row.attempt(action)
        check(fake, row)
    assert deaths == (10 if file is not None else 6)
    assert len(fake.finished) == STEPS_WITH_FILE


@pytest.mark.parametrize("first", range(STEPS_WITH_FILE))
def test_two_deaths_leave_one_report(fake: FakeNcmec, action: NcmecAction, first: int) -> None:
    for second in range(STEPS_WITH_FILE):
        row = Row(evidence=FILE)
        for death in (first, second):
            if row.state is not State.FILED:
                row.attempt(action, dies_at(death))
        for _ in range(4):
            if row.state is not State.FILED:
                row.attempt(action)
        check(fake, row)


def check(fake: FakeNcmec, row: Row) -> None:
    """What is durable and what the other side has agree."""
    finished = [report for report in fake.finished if report.reference == row.task.key]
    if row.state is State.CANCELLED:
        assert finished == []
        return
    assert row.state is State.FILED, row.error
    assert [str(report.id) for report in finished] == [row.task.remote_id]
    files = finished[0].files.values()
    assert [file.data for file in files] == ([DATA] if row.evidence is not None else [])
    assert all(file.details is not None for file in files)


TROUBLE = (*fakes.CHAOS, fakes.Status(401), answering(1000), answering(1111), answering(2000))


def random_death(chance: random.Random, share: float) -> Callable[[str], None]:
    def die(_: str) -> None:
        if chance.random() < share:
            raise Killed

    return die


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_random_schedules(seed: int) -> None:
    """Ten tasks each, with deaths, trouble, expiry, and people who take back and change their minds."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    with FakeNcmec(password=PASSWORD, seed=seed) as fake:
        action = make_action(fake.url)
        fake.misbehave(*TROUBLE, times=None, probability=chance.choice([0.1, 0.3, 0.6]))
        rows = [Row(made_up_task(), evidence=chance.choice([FILE, None])) for _ in range(10)]
        left = list(rows)
        for turn in range(2000):
            if not left:
                break
            if turn == 150:
                fake.behave()
            row = chance.choice(left)
            if row.state in (State.PENDING, State.OPENED) and chance.random() < 0.05:
                row.keep(cancelled=not row.task.cancelled)
            if chance.random() < 0.05:
                fake.clock.advance(chance.choice([600, 3700, 90_000]))
            row.attempt(action, random_death(chance, 0.05))
            if not row.state.is_open:
                left.remove(row)
        assert left == []
        for row in rows:
            check(fake, row)


class LateJournal(StubJournal):
    """The journal of a worker that stalls before a commit, until another one has filed the report."""

    def __init__(self, row: Row, stall_before: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(row, self._stall)
        self._stall_before = stall_before
        self._meanwhile = meanwhile
        self._lost = False

    def _stall(self, step: str) -> None:
        if not self._lost and step == self._stall_before:
            self._lost = True
            self._meanwhile()
        if self._lost:
            raise LeaseLostError("another worker has the task")


@pytest.mark.parametrize("hours", [0, 30])
@pytest.mark.parametrize(
    "step", ["before opened", "after opened", "before note", "after note", "before finishing", "after finishing"]
)
def test_a_worker_that_was_overtaken_doubles_nothing(
    fake: FakeNcmec, action: NcmecAction, step: str, hours: int
) -> None:
    row = Row(made_up_task(context=Context()), evidence=FILE)

    def other_worker() -> None:
        fake.clock.advance(hours * 3600)
        for _ in range(3):
            if row.state is not State.FILED:
                row.attempt(action)

    with pytest.raises(LeaseLostError):
        action.deliver(row.task, LateJournal(row, step, other_worker))
    check(fake, row)


@pytest.mark.parametrize("hours", [0, 30])
def test_a_worker_that_stalls_before_the_last_request_doubles_nothing(
    fake: FakeNcmec, action: NcmecAction, hours: int
) -> None:
    """It may go on without asking its journal: the other side then knows better."""
    row = Row(evidence=FILE)
    stalled: list[bool] = []

    def die(step: str) -> None:
        if stalled:
            raise LeaseLostError("another worker has the task")
        if step == "after finishing":
            stalled.append(True)
            fake.clock.advance(hours * 3600)
            for _ in range(3):
                if row.state is not State.FILED:
                    row.attempt(action)

    if hours:
        with pytest.raises(LeaseLostError):
            action.deliver(row.task, StubJournal(row, die))
    else:
        assert action.deliver(row.task, StubJournal(row, die)).remote_id == row.task.remote_id
    check(fake, row)
