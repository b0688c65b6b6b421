"""A sound action whose other side is in memory, and for each test of the suite one that must not pass it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from uploadguard.actions import Journal, Occasion, Receipt, Task
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.models import Context, Decision

SECRET = "a-secret-of-the-other-side"


class OtherSide:
    """Files in two steps: what was opened does not count until it is finished."""

    def __init__(self) -> None:
        self.filed: dict[str, str] = {}
        self.taken: Counter[str] = Counter()
        self.opened = 0
        self.calls = 0
        self.down = False

    def open(self, key: str) -> str:
        self._call()
        self.opened += 1
        self.filed[f"remote-{self.opened}"] = ""
        return f"remote-{self.opened}"

    def finish(self, remote_id: str, key: str) -> None:
        """A second time changes nothing."""
        self._call()
        if not self.filed[remote_id]:
            self.filed[remote_id] = key
            self.taken[key] += 1

    def _call(self) -> None:
        self.calls += 1
        if self.down:
            raise ConnectionError("the other side is down")

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        self.down = True
        yield
        self.down = False


class SoundAction:
    """Never files a task twice."""

    name = "sound"
    occasions = frozenset({Occasion.REPORT, Occasion.DELETE})

    def __init__(self, other: OtherSide) -> None:
        self.other = other

    def __repr__(self) -> str:
        return "SoundAction()"

    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:
        return True

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        if task.cancelled:
            return Receipt()
        if not task.decision.matches:
            raise RefusedError("there is no match to report")
        try:
            return self.file(task, journal)
        except ConnectionError:
            raise PostponedError("there is no connection") from None

    def file(self, task: Task, journal: Journal) -> Receipt:
        remote_id = task.remote_id
        if remote_id is None:
            remote_id = self.other.open(task.key)
            journal.opened(remote_id)
        journal.finishing()
        self.other.finish(remote_id, task.key)
        return Receipt(remote_id)


class NoDelivery:
    name = "x"
    occasions = frozenset({Occasion.REPORT})


class ListOfOccasions(SoundAction):
    occasions: Any = [Occasion.REPORT]  # noqa: RUF012 - that is what is wrong


class NewName(SoundAction):
    def __init__(self, other: OtherSide) -> None:
        super().__init__(other)
        self.name = f"sound-{id(self)}"


class GivesNothing(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Any:
        super().deliver(task, journal)


class DoesNothing(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        return Receipt()


class FactsOfItsOwn(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        super().file(task, journal)
        return Receipt(facts={"task": task})


class OpensEachTime(SoundAction):
    """It forgets what was opened and finished before."""

    def file(self, task: Task, journal: Journal) -> Receipt:
        remote_id = self.other.open(task.key)
        journal.opened(remote_id)
        self.other.finish(remote_id, task.key)
        return Receipt(remote_id)


class FinishesFirst(SoundAction):
    """It tells the journal too late."""

    def file(self, task: Task, journal: Journal) -> Receipt:
        remote_id = task.remote_id or self.other.open(task.key)
        self.other.finish(remote_id, task.key)
        journal.opened(remote_id)
        journal.finishing()
        return Receipt(remote_id)


class TakesTheFirstNoteForTheDeed(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        if task.remote_id is not None:
            return Receipt(task.remote_id)
        return super().file(task, journal)


class IgnoresTheLease(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        remote_id = task.remote_id or self.other.open(task.key)
        with contextlib.suppress(Exception):
            journal.opened(remote_id)
        self.other.finish(remote_id, task.key)
        return Receipt(remote_id)


class TidiesUpWithoutTheLease(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        try:
            return super().file(task, journal)
        except Exception:
            self.other.calls += 1
            raise


class MistakesTheLease(SoundAction):
    def file(self, task: Task, journal: Journal) -> Receipt:
        try:
            return super().file(task, journal)
        except ConnectionError:
            raise
        except Exception as error:
            raise PostponedError("something") from error


class RaisesWhatItGets(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        return self.file(task, journal)


class QuotesAHash(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        try:
            return self.file(task, journal)
        except ConnectionError:
            raise PostponedError(f"could not send {task.decision.hashes[0].value.hex()}") from None


class QuotesASecret(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        try:
            return self.file(task, journal)
        except ConnectionError as error:
            error.args = (f"no connection with {SECRET}",)
            raise PostponedError("no connection") from error


class QuotesTheUploader(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        try:
            return self.file(task, journal)
        except ConnectionError:
            raise PostponedError(f"could not report {task.context.uploader}") from None


class NeedsAMatch(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        task.decision.matches[0]
        return super().deliver(task, journal)


class NeedsUtf8(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        (task.context.filename or "").encode()
        return super().deliver(task, journal)


class FilesWhatWasTakenBack(SoundAction):
    def deliver(self, task: Task, journal: Journal) -> Receipt:
        return self.file(task, journal)


class ShowsItsSecret(SoundAction):
    def __repr__(self) -> str:
        return f"ShowsItsSecret({SECRET})"


class WantsMaybe(SoundAction):
    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> Any:
        return decision.matches


class KeepsTheTask(SoundAction):
    """Between two steps another thread may have put its own there."""

    def file(self, task: Task, journal: Journal) -> Receipt:
        self.current = task
        remote_id = self.current.remote_id
        if remote_id is None:
            remote_id = self.other.open(task.key)
            journal.opened(remote_id)
        for _ in range(200):
            journal.finishing()
        self.other.finish(remote_id, self.current.key)
        return Receipt(remote_id)


ACTIONS: list[tuple[str, type, str]] = [
    ("test_it_follows_the_protocol", NoDelivery, "lacks a member"),
    ("test_it_follows_the_protocol", ListOfOccasions, "frozenset"),
    ("test_every_instance_is_the_same_action", NewName, "name differs"),
    ("test_it_delivers", GivesNothing, "gives a NoneType"),
    ("test_it_delivers", DoesNothing, "lost"),
    ("test_it_delivers", FactsOfItsOwn, "not JSON"),
    ("test_a_repetition_is_known_by_its_key", OpensEachTime, "taken 3 times"),
    ("test_its_worker_may_die_at_any_call_of_the_journal", FinishesFirst, "taken 2 times"),
    ("test_its_worker_may_die_at_any_call_of_the_journal", TakesTheFirstNoteForTheDeed, "lost"),
    ("test_a_lost_lease_ends_it_at_once", IgnoresTheLease, "goes on without a lease"),
    ("test_a_lost_lease_ends_it_at_once", TidiesUpWithoutTheLease, "speaks to the other side"),
    ("test_a_lost_lease_ends_it_at_once", MistakesTheLease, "becomes a PostponedError"),
    ("test_faults_of_the_other_side_are_action_errors", RaisesWhatItGets, "raises ConnectionError"),
    ("test_faults_of_the_other_side_are_action_errors", QuotesAHash, "names a hash"),
    ("test_faults_of_the_other_side_are_action_errors", QuotesASecret, "holds a secret"),
    ("test_faults_of_the_other_side_are_action_errors", QuotesTheUploader, "names the uploader"),
    ("test_tasks_with_few_facts_are_taken_or_refused", NeedsAMatch, "raises IndexError"),
    ("test_tasks_with_strange_facts_are_taken_or_refused", NeedsUtf8, "raises UnicodeEncodeError"),
    ("test_what_was_taken_back_before_it_was_opened_is_not_delivered", FilesWhatWasTakenBack, "taken back"),
    ("test_its_repr_holds_no_secret", ShowsItsSecret, "repr holds a secret"),
    ("test_it_says_which_decisions_it_wants", WantsMaybe, "no bool"),
    ("test_threads_can_share_it", KeepsTheTask, "beside others: (lost|taken)"),
]
