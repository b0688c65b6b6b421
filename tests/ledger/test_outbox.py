"""What people and monitors do with the outbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.twophase import add_reports, task_rows
from uploadguard.actions import State
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import CaseStateError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.outbox import Outbox, OutboxStatus, cancel_tasks
from uploadguard.ledger.people import Person, Role

LEAD = Person("lead", frozenset({Role.LEAD}))
REVIEWER = Person("reviewer", frozenset({Role.REVIEW}))
SETTINGS = OutboxSettings()


def change(database: Database, task_id: int, **values: Any) -> None:
    with database.changing() as connection:
        connection.execute(sa.update(schema.tasks).where(schema.tasks.c.id == task_id).values(**values))


def test_list_shows_what_is_asked_for(database: Database) -> None:
    first = add_reports(database, 3, "authority")
    soon = add_reports(database, 2, "second", within=timedelta(hours=1))
    change(database, first[1], state="filed", remote_id="R-1", done_at=datetime.now(UTC))
    outbox = Outbox(database, SETTINGS)

    def ids(**which: Any) -> list[int]:
        return [one.id for one in outbox.list(**which)]

    assert ids() == [*first, *soon]
    assert ids(limit=2) == first[:2]
    assert ids(after=first[1]) == [first[2], *soon]
    assert ids(action="second") == soon
    assert ids(states=[State.FILED]) == [first[1]]
    assert ids(late=True) == soon
    assert ids(late=False) == first
    assert ids(case_id=1) == []
    one = outbox.show(first[1])
    assert (one.state, one.remote_id, one.late, one.running) == (State.FILED, "R-1", False, False)
    assert outbox.show(soon[0]).late
    with pytest.raises(UnknownRecordError):
        outbox.show(999)


def test_a_task_that_a_worker_has_is_shown_so(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    change(database, task_id, lease="x", lease_until=datetime.now(UTC) + timedelta(minutes=1))
    assert Outbox(database, SETTINGS).show(task_id).running
    change(database, task_id, lease_until=datetime.now(UTC) - timedelta(minutes=1))
    assert not Outbox(database, SETTINGS).show(task_id).running


def test_nothing_of_what_was_noted_is_in_a_repr(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    change(database, task_id, notes={"md5": "f" * 32})
    one = Outbox(database, SETTINGS).show(task_id)
    assert one.notes == {"md5": "f" * 32}
    assert "ffff" not in repr(one)


def test_status_counts(database: Database) -> None:
    filed, refused, opened, *_ = add_reports(database, 5, "authority")
    add_reports(database, 2, "gone", within=timedelta(hours=1))
    change(database, filed, state="filed", created_at=datetime.now(UTC) - timedelta(days=9))
    change(database, refused, state="refused")
    oldest = datetime.now(UTC) - timedelta(hours=3)
    change(database, opened, state="opened", created_at=oldest)
    status = Outbox(database, SETTINGS, actions=["authority", "idle"]).status()
    assert status.counts == {
        ("authority", State.PENDING): 2,
        ("authority", State.OPENED): 1,
        ("authority", State.REFUSED): 1,
        ("authority", State.FILED): 1,
        ("gone", State.PENDING): 2,
    }
    assert (status.waiting, status.late, status.refused, status.no_action) == (5, 2, 1, 2)
    assert status.oldest_at == oldest
    assert status.next_deadline is not None
    assert status.next_deadline - datetime.now(UTC) < timedelta(hours=1)
    assert [(one.action, one.known) for one in status.actions] == [("authority", True), ("gone", False), ("idle", True)]
    assert status.needs_attention
    undone = Outbox(database, SETTINGS).status(done=False)
    assert ("authority", State.FILED) not in undone.counts
    assert undone.no_action == 0


def test_an_outbox_in_order_needs_no_attention(database: Database) -> None:
    empty = Outbox(database, SETTINGS).status()
    assert (empty.oldest_at, empty.next_deadline, empty.waiting, empty.needs_attention) == (None, None, 0, False)
    add_reports(database, 2)
    assert not Outbox(database, SETTINGS, actions=["authority"]).status().needs_attention


@pytest.mark.parametrize("what", ["late", "refused", "no_action"])
def test_each_trouble_needs_attention_by_itself(database: Database, what: str) -> None:
    (task_id,) = add_reports(database, 1, within=timedelta(hours=5 if what == "late" else 24))
    if what == "refused":
        change(database, task_id, state="refused")
    known = ["authority"] if what != "no_action" else []
    status: OutboxStatus = Outbox(database, SETTINGS, actions=known).status()
    assert [name for name in ("late", "refused", "no_action") if getattr(status, name)] == [what]
    assert status.needs_attention


def test_taken_back_reports_are_not_late(database: Database) -> None:
    (task_id,) = add_reports(database, 1, within=timedelta(hours=1))
    change(database, task_id, state="opened", cancelled=True)
    outbox = Outbox(database, SETTINGS)
    assert outbox.status().late == 0
    assert outbox.list(late=True) == []
    assert not outbox.show(task_id).late


def test_retrying_needs_a_lead_and_something_to_retry(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    outbox = Outbox(database, SETTINGS)
    with pytest.raises(NotPermittedError):
        outbox.retry(task_id, REVIEWER)
    with pytest.raises(UnknownRecordError):
        outbox.retry(999, LEAD)
    later = datetime.now(UTC) + timedelta(hours=1)
    change(database, task_id, next_at=later)
    outbox.retry(task_id, LEAD)
    assert task_rows(database)[0].next_at < later
    change(database, task_id, state="filed")
    with pytest.raises(CaseStateError, match="filed"):
        outbox.retry(task_id, LEAD)


@pytest.mark.parametrize("was", ["pending", "opened", "finishing", None])
def test_a_refused_task_goes_back_to_where_it_was(database: Database, was: str | None) -> None:
    (task_id,) = add_reports(database, 1)
    change(database, task_id, state="refused", refused_in=was)
    Outbox(database, SETTINGS).retry(task_id, LEAD)
    (row,) = task_rows(database)
    assert (row.state, row.refused_in) == (was or "pending", None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"state": "pending"}, ("cancelled", True)),
        ({"state": "pending", "lease": "x"}, ("pending", True)),
        ({"state": "opened", "remote_id": "R"}, ("opened", True)),
        ({"state": "refused", "refused_in": "pending"}, ("cancelled", True)),
        ({"state": "refused", "refused_in": "opened", "remote_id": "R"}, ("opened", True)),
        ({"state": "refused", "refused_in": "finishing", "remote_id": "R"}, ("opened", True)),
        ({"state": "refused", "refused_in": "opened", "cancelled": True}, ("cancelled", True)),
    ],
)
def test_taking_back(database: Database, before: dict[str, Any], after: tuple[str, bool]) -> None:
    (task_id,) = add_reports(database, 1)
    change(database, task_id, **before)
    Outbox(database, SETTINGS).cancel(task_id, LEAD, " a mistake ")
    (row,) = task_rows(database)
    assert (row.state, row.cancelled) == after
    assert row.error == "a mistake"
    assert (row.done_at is not None) == (row.state == "cancelled")


def test_taking_back_needs_a_lead_and_a_reason(database: Database) -> None:
    (task_id,) = add_reports(database, 1)
    outbox = Outbox(database, SETTINGS)
    with pytest.raises(NotPermittedError):
        outbox.cancel(task_id, REVIEWER, "a mistake")
    with pytest.raises(CaseStateError, match="say why"):
        outbox.cancel(task_id, LEAD, " ")
    for state in ("finishing", "filed", "cancelled"):
        change(database, task_id, state=state)
        with pytest.raises(CaseStateError, match="cannot be taken back"):
            outbox.cancel(task_id, LEAD, "a mistake")


def test_taking_several_back_in_one_transaction(database: Database) -> None:
    pending, opened, finishing, filed = ids = add_reports(database, 4)
    for task_id, state in zip(ids[1:], ("opened", "finishing", "filed"), strict=True):
        change(database, task_id, state=state)
    with database.writing() as connection:
        found = cancel_tasks(connection, reversed(ids), "lead", datetime.now(UTC))
    assert found == {State.PENDING: 1, State.OPENED: 1, State.FINISHING: 1, State.FILED: 1}
    assert {row.id: (row.state, row.cancelled) for row in task_rows(database)} == {
        pending: ("cancelled", True),
        opened: ("opened", True),
        finishing: ("finishing", False),
        filed: ("filed", False),
    }
