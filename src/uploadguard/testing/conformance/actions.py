"""What every action must do, whatever dies on the way."""

from __future__ import annotations

import dataclasses
import json
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from uploadguard.actions import Action, Evidence, Occasion, Receipt, SelectiveAction, State, Task
from uploadguard.errors import ActionError, LeaseLostError
from uploadguard.models import Context, Decision, Hash, Match, Media, Verdict
from uploadguard.testing.conformance._checks import in_threads, leaks, require
from uploadguard.testing.journal import ScriptedJournal, WorkerDied

__all__ = ["ActionConformance"]

_SHA256 = bytes(range(100, 132))
_AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
_LIST = "a-list-nobody-should-read-of"
_UPLOADER = "uploader-nobody-should-read-of"
_MAX_CALLS = 50
_MAX_ATTEMPTS = 10
_STRANGE = "\0\r\n.\r\n<>&\"'\u202e\ud800\U0001f600" + "x" * 3000


class ActionConformance:
    """For any action. ``make`` gives one whose other side is a fake of the test's own; fixtures can set that up.

    ``taken`` tells what the other side has: it may be another one for each test, but must last for the whole of it.
    """

    exactly_once = False
    """Whether the other side never has one task twice: where it files in two steps."""

    secrets: tuple[str, ...] = ()
    """What must not be read in an error or a repr: passwords, tokens, addresses that hold them."""

    def make(self) -> Action:
        """A fresh action. All of one test have the same other side."""
        raise NotImplementedError

    def taken(self) -> Mapping[str, int]:
        """How often the other side has taken each task, by its key. What was opened but not finished does not count."""
        raise NotImplementedError

    def traffic(self) -> int:
        """How often the other side was spoken to; by default, how much it has."""
        return sum(self.taken().values())

    def evidence(self) -> Evidence | None:
        """The preserved file, for an action that needs one."""
        return None

    def faults(self) -> Iterator[tuple[str, AbstractContextManager[object]]]:
        """Ways in which the other side can misbehave: what it is, and a context manager that makes it so inside."""
        yield from ()

    def task(self, **changes: Any) -> Task:
        """A task that the other side takes, with a key of its own. Extend it where your action needs more."""
        hashes = (Hash("md5", _SHA256[:16]), Hash("sha256", _SHA256), Hash("pdq", _SHA256, quality=90))
        decision = Decision(
            verdict=Verdict.BLOCK,
            reasons=("digest_match",),
            matches=(Match(_LIST, "entry-1", "A1", "sha256", 0, exact=True),),
            failures=(),
            hashes=hashes,
            media=Media(1234, "image/jpeg", 640, 480, frames_total=1, frames_hashed=1),
            generation=7,
            report_due=True,
        )
        context = Context(
            filename="a.jpg",
            uploader=_UPLOADER,
            ip="192.0.2.7",
            port=4711,
            object_id="object-1",
            url="https://images.example/object-1",
            uploaded_at=_AT,
        )
        action = self.make()
        values: dict[str, Any] = {
            "id": 1,
            "key": str(uuid.uuid4()),
            "action": action.name,
            "occasion": min(action.occasions),
            "state": State.PENDING,
            "decision": decision,
            "context": context,
            "decided_at": _AT,
            "created_at": _AT,
        }
        return Task(**{**values, **changes})

    def test_it_follows_the_protocol(self) -> None:
        action = self.make()
        require(isinstance(action, Action), f"{type(action).__name__} lacks a member of Action")
        require(isinstance(action.name, str) and action.name.isprintable() and action.name.strip() != "", "no name")
        occasions = action.occasions
        require(isinstance(occasions, frozenset) and len(occasions) > 0, "occasions is not a frozenset with members")
        require(all(isinstance(one, Occasion) for one in occasions), "occasions has what is no Occasion")

    def test_every_instance_is_the_same_action(self) -> None:
        """Its name stands in the outbox: tasks of before a restart must find it again."""
        first, second = self.make(), self.make()
        require(first.name == second.name, "its name differs between instances")
        require(first.occasions == second.occasions, "its occasions differ between instances")

    def test_it_delivers(self) -> None:
        action = self.make()
        for occasion in sorted(action.occasions):
            task = self.task(occasion=occasion)
            receipt = self._deliver(action, self._journal(task))
            self._require_taken(task, f"a task for {occasion}")
            require(receipt.remote_id is None or isinstance(receipt.remote_id, str), "remote_id is no text")
            try:
                json.dumps(dict(receipt.facts), allow_nan=False)
            except (TypeError, ValueError):
                pytest.fail("a receipt's facts are not JSON")

    def test_a_repetition_is_known_by_its_key(self) -> None:
        """The worker died after the delivery, before the outbox knew of it."""
        task = self.task()
        journal = self._journal(task)
        for _ in range(3):
            self._deliver(self.make(), journal)
        self._require_taken(task, "a task delivered three times")

    def test_its_worker_may_die_at_any_call_of_the_journal(self) -> None:
        for committed in (False, True):
            for call in range(_MAX_CALLS):
                task = self.task()
                journal = self._journal(task)
                journal.fail_at(call, committed=committed)
                died = self._dies(journal)
                journal.fail_at(None)
                if died:
                    self._deliver(self.make(), journal)
                self._require_taken(task, f"a worker that died at call {call} of the journal")
                if not died:
                    break
            else:
                pytest.fail(f"it calls the journal more than {_MAX_CALLS} times for one task")

    def test_a_lost_lease_ends_it_at_once(self) -> None:
        for call in range(_MAX_CALLS):
            journal = self._journal(self.task())
            lost = _LosesLease(self, journal, call)
            try:
                self.make().deliver(journal.next_attempt(), lost)
            except LeaseLostError:
                pass
            except Exception as error:  # noqa: BLE001 - the finding
                pytest.fail(f"a lost lease becomes a {type(error).__name__}")
            else:
                require(lost.before is None, "it goes on without a lease")
                return
            require(lost.calls == 1, "it calls the journal again without a lease")
            require(self.traffic() == lost.before, "it speaks to the other side without a lease")

    def test_faults_of_the_other_side_are_action_errors(self) -> None:
        for what, fault in self.faults():
            task = self.task()
            journal = self._journal(task)
            with fault:
                error = self._error(journal)
            if error is not None:
                require(isinstance(error, ActionError), f"{what}: raises {type(error).__name__}")
                require(not isinstance(error, LeaseLostError), f"{what}: makes up a lost lease")
                self._require_discreet(error, task, what)
            self._deliver_in_the_end(journal, what)
            self._require_taken(task, what)

    def test_tasks_with_few_facts_are_taken_or_refused(self) -> None:
        task = self.task()
        bare = dataclasses.replace(task.decision, matches=(), hashes=(), media=Media(0))
        for what, changes in (
            ("a context without anything", {"context": Context()}),
            ("a decision without matches, hashes and media type", {"decision": bare}),
            ("neither", {"context": Context(), "decision": bare}),
        ):
            self._try(what, dataclasses.replace(self.task(), **changes))

    def test_tasks_with_strange_facts_are_taken_or_refused(self) -> None:
        task = self.task()
        match = dataclasses.replace(task.decision.matches[0], entry_id=_STRANGE, category=_STRANGE)
        context = Context(
            filename=_STRANGE,
            uploader=_STRANGE,
            ip=_STRANGE,
            port=-1,
            tenant=_STRANGE,
            object_id=_STRANGE,
            url="https://images.example/" + _STRANGE,
            uploaded_at=datetime(1, 1, 1, tzinfo=UTC),
            extra={"email": _STRANGE, "screen_name": 1e300, "profile_url": None, _STRANGE: [[[]]]},
        )
        self._try("strange matches", self.task(decision=dataclasses.replace(task.decision, matches=(match,) * 50)))
        self._try("a strange context", self.task(context=context))
        self._try("an address that is none", self.task(context=dataclasses.replace(task.context, ip="?", port=70000)))

    def test_what_was_taken_back_before_it_was_opened_is_not_delivered(self) -> None:
        task = self.task(cancelled=True)
        error = self._error(self._journal(task))
        require(error is None or isinstance(error, ActionError), f"raises {type(error).__name__}")
        require(task.key not in self.taken(), "it delivers a task that was taken back")

    def test_its_repr_holds_no_secret(self) -> None:
        shown = repr(self.make()) + str(self.make())
        require(not any(_holds(shown, secret) for secret in self.secrets), "its repr holds a secret")

    def test_it_says_which_decisions_it_wants(self) -> None:
        action, task = self.make(), self.task()
        if not isinstance(action, SelectiveAction):
            return
        bare = dataclasses.replace(task.decision, matches=(), hashes=(), media=Media(0))
        for decision in (task.decision, bare):
            for context in (task.context, Context()):
                wanted = action.wants(decision, context, task.occasion)
                require(type(wanted) is bool, "wants gives no bool")

    def test_threads_can_share_it(self) -> None:
        action = self.make()
        tasks = [self.task() for _ in range(24)]

        def deliver(task: Task) -> None:
            self._deliver(action, self._journal(task))

        in_threads(deliver, tasks, repeats=1)
        for task in tasks:
            self._require_taken(task, "a task delivered beside others")
        require(Counter(dict(self.taken())).total() == len(tasks), "the other side has other tasks than were delivered")

    def _journal(self, task: Task) -> ScriptedJournal:
        return ScriptedJournal(task, self.evidence())

    def _deliver(self, action: Action, journal: ScriptedJournal) -> Receipt:
        receipt = action.deliver(journal.next_attempt(), journal)
        require(isinstance(receipt, Receipt), f"deliver gives a {type(receipt).__name__}")
        return receipt

    def _deliver_in_the_end(self, journal: ScriptedJournal, what: str) -> None:
        for _ in range(_MAX_ATTEMPTS):
            if self._error(journal) is None:
                return
        pytest.fail(f"{what}: it is not delivered afterwards")

    def _dies(self, journal: ScriptedJournal) -> bool:
        try:
            self._deliver(self.make(), journal)
        except WorkerDied:
            return True
        return False

    def _error(self, journal: ScriptedJournal) -> Exception | None:
        try:
            self._deliver(self.make(), journal)
        except Exception as error:  # noqa: BLE001 - the kind is for whoever asked
            return error
        return None

    def _try(self, what: str, task: Task) -> None:
        error = self._error(self._journal(task))
        if error is None:
            self._require_taken(task, what)
        else:
            require(isinstance(error, ActionError), f"{what}: raises {type(error).__name__}")
            self._require_discreet(error, task, what)

    def _require_taken(self, task: Task, what: str) -> None:
        times = self.taken().get(task.key, 0)
        require(times > 0, f"{what}: lost, though it counts as delivered")
        require(times == 1 or not self.exactly_once, f"{what}: taken {times} times")

    def _require_discreet(self, error: Exception, task: Task, what: str) -> None:
        require(str(error) != "", f"{what}: the error gives no reason")
        # The traceback quotes source lines, but its last lines are what the errors themselves say.
        chain, shown = error, str(error) + repr(error)
        while (cause := chain.__cause__) is not None and isinstance(cause, Exception):
            chain, shown = cause, shown + "".join(traceback.format_exception_only(cause))
        hashes = [one.value.hex() for one in task.decision.hashes]
        for kind, words in (("a hash", hashes), ("a list", [_LIST]), ("the uploader", [_UPLOADER])):
            require(not any(_holds(shown, word) for word in words), f"{what}: the error names {kind}")
        require(not any(_holds(shown, word) for word in self.secrets), f"{what}: the error holds a secret")


def _holds(text: str, secret: str) -> bool:
    return secret.lower() in text.lower() or leaks(text, secret)


class _LosesLease:
    """A journal whose lease is lost from call ``at`` on. ``before`` is the traffic until then, None if it held."""

    def __init__(self, suite: ActionConformance, journal: ScriptedJournal, at: int) -> None:
        self._suite = suite
        self._journal = journal
        self._at = at
        self.before: int | None = None
        self.calls = 0

    def opened(self, remote_id: str) -> None:
        self._hold()
        self._journal.opened(remote_id)

    def note(self, **facts: Any) -> None:
        self._hold()
        self._journal.note(**facts)

    def finishing(self) -> None:
        self._hold()
        self._journal.finishing()

    def reopen(self) -> None:
        self._hold()
        self._journal.reopen()

    def evidence(self) -> Evidence | None:
        self._hold()
        return self._journal.evidence()

    def _hold(self) -> None:
        if self._at > 0:
            self._at -= 1
            return
        if self.before is None:
            self.before = self._suite.traffic()
        self.calls += 1
        raise LeaseLostError("another worker has the task")
