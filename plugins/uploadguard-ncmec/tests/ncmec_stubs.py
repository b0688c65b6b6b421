"""A task's row that outlives its workers, and workers that die when they are told to."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from uploadguard.actions import Evidence, Occasion, Receipt, State, Task
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.models import Context, Decision, Hash, Match, Media, Verdict
from uploadguard_ncmec import NcmecAction, uploadguard_actions

PASSWORD = "made-up:password ü"  # noqa: S105 - of the fake
DATA = b"an ordinary picture, as far as anybody here knows" * 40
DECIDED_AT = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)


def table(url: str, **options: Any) -> dict[str, Any]:
    """A table of the configuration."""
    return {
        "kind": "ncmec",
        "base_url": url,
        "username": "esp",
        "password_env": "NCMEC_PASSWORD",
        "reporter": {"email": "desk@host.example"},
        **options,
    }


def make_action(url: str, **options: Any) -> NcmecAction:
    """The action that the plugin makes of such a table."""
    [action] = uploadguard_actions({"ncmec": table(url, **options), "other": {"kind": "webhook"}})
    assert isinstance(action, NcmecAction)
    return action


def made_up_decision(**changes: Any) -> Decision:
    """A block by an exact match."""
    digests = {name: hashlib.new(name, DATA).digest() for name in ("md5", "sha1", "sha256")}
    values = {
        "verdict": Verdict.BLOCK,
        "reasons": ("exact_match",),
        "matches": (Match("some-list", "17", "A1", "md5", 0, exact=True),),
        "failures": (),
        "hashes": (*(Hash(name, value) for name, value in digests.items()), Hash("pdq", bytes(32), 90)),
        "media": Media(len(DATA), "image/png"),
        "generation": 1,
        "report_due": True,
        **changes,
    }
    return Decision(**values)


def made_up_task(**changes: Any) -> Task:
    """A new task for it."""
    values = {
        "id": 1,
        "key": str(uuid.uuid4()),
        "action": "ncmec",
        "occasion": Occasion.REPORT,
        "state": State.PENDING,
        "decision": made_up_decision(),
        "context": Context(uploader="user-7", ip="192.0.2.7"),
        "decided_at": DECIDED_AT,
        "created_at": DECIDED_AT,
        **changes,
    }
    return Task(**values)


class Killed(BaseException):
    """The worker's process is gone."""


@dataclass
class Row:
    """What is durable of a task. As the outbox has it, a task that is finishing cannot be taken back."""

    task: Task = field(default_factory=made_up_task)
    evidence: Evidence | None = None
    error: Exception | None = None
    receipt: Receipt | None = None

    @property
    def state(self) -> State:
        return self.task.state

    def keep(self, **values: Any) -> None:
        self.task = replace(self.task, **values)

    def cancel(self) -> None:
        """A person takes the task back."""
        assert self.state in (State.PENDING, State.OPENED)
        self.keep(cancelled=True)

    def attempt(self, action: NcmecAction, die: Callable[[str], None] = lambda _: None) -> State:
        """What a worker does with it, once; ``die`` is called before and after each commit with its name."""
        if self.task.cancelled and self.state is State.PENDING:
            self.keep(state=State.CANCELLED)
            return self.state
        self.error = None
        try:
            receipt = action.deliver(self.task, StubJournal(self, die))
            die("before settling")
            self.receipt = receipt
            self.keep(
                state=State.CANCELLED if self.task.cancelled else State.FILED,
                remote_id=receipt.remote_id,
                notes={**self.task.notes, **receipt.facts},
            )
        except PostponedError as error:
            self.error = error
        except RefusedError as error:
            self.error = error
            self.keep(state=State.REFUSED)
        except Killed:
            pass
        return self.state


class StubJournal:
    """A journal that keeps to the contract, and checks that its caller does."""

    def __init__(self, row: Row, die: Callable[[str], None]) -> None:
        self._row = row
        self._die = die

    def _commit(self, name: str, *states: State, **values: Any) -> None:
        self._die(f"before {name}")
        assert self._row.state in states
        self._row.keep(**values)
        self._die(f"after {name}")

    def opened(self, remote_id: str) -> None:
        self._commit("opened", State.PENDING, state=State.OPENED, remote_id=remote_id)

    def note(self, **facts: Any) -> None:
        self._commit("note", State.OPENED, notes={**self._row.task.notes, **facts})

    def finishing(self) -> None:
        assert not self._row.task.cancelled
        self._commit("finishing", State.OPENED, state=State.FINISHING)

    def reopen(self) -> None:
        self._commit("reopen", State.OPENED, State.FINISHING, state=State.PENDING, remote_id=None, notes={})

    def evidence(self) -> Evidence | None:
        self._die("before evidence")
        return self._row.evidence


def dies_at(number: int) -> Callable[[str], None]:
    """Dies at the ``number``-th of its calls, from 0."""
    calls = itertools.count()

    def die(_: str) -> None:
        if next(calls) == number:
            raise Killed

    return die


def case_id(value: object) -> str:
    """A parameter's name in that of a test: the same in every process that collects it."""
    return re.sub(r"'Request-ID': '[0-9a-f]+'", "", str(value))
