"""A sound matcher whose service is in memory, and for each test of the suite one that must not pass it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from uploadguard.errors import MatcherError
from uploadguard.matchers import Query
from uploadguard.models import Context, Hash, Match, Verdict

SECRET = "a-secret-of-the-service"


class Service:
    """Knows hashes; fails, or hangs, when it is told to."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.calls = 0
        self.down = False
        self.hanging = False

    def ask(self, value: bytes, left_s: float) -> bool:
        self.calls += 1
        if self.hanging:
            time.sleep(min(left_s, 60.0))
            raise TimeoutError
        if self.down:
            raise ConnectionError
        return value in self.known

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        self.down = True
        yield
        self.down = False

    @contextlib.contextmanager
    def hangs(self) -> Iterator[None]:
        self.hanging = True
        yield
        self.hanging = False


class SoundMatcher:
    """Keeps what it was told."""

    name: Any = "sound"
    signal_types: Any = frozenset({"md5"})
    takes_content = False
    deadline_s: Any = 5.0
    max_calls: Any = 4
    on_failure: Any = None
    prefetch = False
    retry_s = 60.0

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cache: dict[bytes, bool] = {}
        self.closed = False

    def known(self, query: Query) -> Sequence[Match] | None:
        answers = [self.cache.get(item.value) for item in query.hashes]
        return None if None in answers else self._matches(any(answers))

    def match(self, query: Query, until: float) -> Sequence[Match]:
        for item in query.hashes:
            self.cache[item.value] = self._ask(item, until)
        return self._matches(any(self.cache[item.value] for item in query.hashes))

    def close(self) -> None:
        self.closed = True

    def _ask(self, item: Hash, until: float) -> bool:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise MatcherError("no time is left")
        try:
            return self.service.ask(item.value, left_s)
        except OSError:
            raise MatcherError("it did not answer") from None

    def _matches(self, found: bool) -> Sequence[Match]:
        return (self._match(),) if found else ()

    def _match(self) -> Match:
        return Match(self.name, "1", None, "md5", 0, exact=True)


class NoClose:
    name = "half"
    signal_types = frozenset({"md5"})


class NoDeadline(SoundMatcher):
    deadline_s = float("inf")


class GoesByNothing(SoundMatcher):
    signal_types = frozenset()


class LaterWithoutUpload(SoundMatcher):
    prefetch = True
    takes_content = True


class FailsOpen(SoundMatcher):
    on_failure = Verdict.ALLOW


class FindsNothing(SoundMatcher):
    def _matches(self, found: bool) -> Sequence[Match]:
        return ()


class OfAnotherList(SoundMatcher):
    def _match(self) -> Match:
        return Match("another", "1", None, "md5", 0, exact=True)


class LetsPass(SoundMatcher):
    def _match(self) -> Match:
        return Match(self.name, "1", None, "md5", 0, exact=True, allow=True)


class FieldsWithoutJson(SoundMatcher):
    def _match(self) -> Match:
        return Match(self.name, "1", None, "md5", 0, exact=True, fields={"value": b"bytes"})


class FindsEverything(SoundMatcher):
    def _matches(self, found: bool) -> Sequence[Match]:
        return (self._match(),)


class FailureIsClean(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        try:
            return super()._ask(item, until)
        except MatcherError:
            return False


class RaisesAnything(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        return self.service.ask(item.value, 60.0)


class SaysNothing(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        try:
            return super()._ask(item, until)
        except MatcherError:
            raise MatcherError from None


class ShowsTheHash(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        try:
            return super()._ask(item, until)
        except MatcherError:
            raise MatcherError(f"no answer for {item.value.hex()}") from None


class ShowsTheSecret(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        try:
            return super()._ask(item, until)
        except MatcherError as error:
            raise MatcherError("no answer") from ConnectionError(SECRET, error)


class KeepsFailures(SoundMatcher):
    def match(self, query: Query, until: float) -> Sequence[Match]:
        for item in query.hashes:
            self.cache[item.value] = False
        return super().match(query, until)


class NeverAgain(SoundMatcher):
    """Its failure outlives it."""

    def _ask(self, item: Hash, until: float) -> bool:
        try:
            return super()._ask(item, until)
        except MatcherError:
            self.service.known.clear()
            raise


class AnswersLate(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        return super()._ask(item, max(until, time.monotonic() + 5))


class AsksLate(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        self.service.calls += 1
        return super()._ask(item, until)


class HangingIsClean(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        return False if self.service.hanging else super()._ask(item, until)


class KnowsUnasked(SoundMatcher):
    def known(self, query: Query) -> Sequence[Match] | None:
        return super().known(query) or ()


class AsksToKnow(SoundMatcher):
    def known(self, query: Query) -> Sequence[Match] | None:
        self.service.calls += 1
        return super().known(query)


class Forgets(SoundMatcher):
    def known(self, query: Query) -> Sequence[Match] | None:
        return () if super().known(query) is not None else None


class OneAnswerForAll(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        return next(iter(self.cache.values())) if self.cache else super()._ask(item, until)


class AsksAnyway(SoundMatcher):
    def match(self, query: Query, until: float) -> Sequence[Match]:
        self.service.calls += 1
        return super().match(query, until)


class FindsWithoutHashes(SoundMatcher):
    def match(self, query: Query, until: float) -> Sequence[Match]:
        return super().match(query, until) if query.hashes else (self._match(),)


class SharesASlot(SoundMatcher):
    """Keeps the question where another thread overwrites it."""

    item: Hash

    def _ask(self, item: Hash, until: float) -> bool:
        self.item = item
        time.sleep(0.001)
        return super()._ask(self.item, until)


class BoundToAProcess(SoundMatcher):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._process = os.getpid()

    def _ask(self, item: Hash, until: float) -> bool:
        if os.getpid() != self._process:
            raise MatcherError("its connection is the parent's")
        return super()._ask(item, until)


class RaisesWhenClosed(SoundMatcher):
    def _ask(self, item: Hash, until: float) -> bool:
        if self.closed:
            raise RuntimeError("closed")
        return super()._ask(item, until)


class ShowsItself(SoundMatcher):
    def __repr__(self) -> str:
        return f"ShowsItself({SECRET})"


class ShowsQuestions(SoundMatcher):
    def __repr__(self) -> str:
        return f"ShowsQuestions({[value.hex() for value in self.cache]})"


def query(kind: str, number: int) -> Query:
    """A made-up upload."""
    return Query((Hash("md5", f"{kind}{number:03}".encode().ljust(16, b"-")),), Context())


MATCHERS: list[tuple[str, type[Any], str]] = [
    ("test_it_follows_the_protocol", NoClose, "lacks a member"),
    ("test_it_follows_the_protocol", NoDeadline, "no deadline"),
    ("test_it_follows_the_protocol", GoesByNothing, "goes by nothing"),
    ("test_it_follows_the_protocol", LaterWithoutUpload, "no upload to take"),
    ("test_it_does_not_fail_open", FailsOpen, "passes for clean"),
    ("test_it_finds_what_is_listed", FindsNothing, "does not find"),
    ("test_it_finds_what_is_listed", OfAnotherList, "not of a list named"),
    ("test_it_finds_what_is_listed", LetsPass, "lets the upload pass"),
    ("test_it_finds_what_is_listed", FieldsWithoutJson, "not JSON"),
    ("test_it_finds_nothing_else", FindsEverything, "has not"),
    ("test_no_fault_is_an_answer", FailureIsClean, "passes for an answer"),
    ("test_no_fault_is_an_answer", RaisesAnything, "raises ConnectionError"),
    ("test_no_fault_is_an_answer", SaysNothing, "gives no reason"),
    ("test_no_fault_is_an_answer", ShowsTheHash, "shows a hash"),
    ("test_no_fault_is_an_answer", ShowsTheSecret, "shows a secret"),
    ("test_no_fault_is_an_answer", KeepsFailures, "is kept for an answer"),
    ("test_after_a_fault_the_service_is_asked_again", NeverAgain, "its trace stays"),
    ("test_it_gives_up_when_its_time_is_over", AnswersLate, "it answers"),
    ("test_it_gives_up_when_its_time_is_over", AsksLate, "it asks"),
    ("test_it_gives_up_a_service_that_hangs", HangingIsClean, "passes for an answer"),
    ("test_what_it_knows_is_what_it_was_told", KnowsUnasked, "not told"),
    ("test_what_it_knows_is_what_it_was_told", AsksToKnow, "known asks"),
    ("test_what_it_knows_is_what_it_was_told", Forgets, "something else"),
    ("test_one_answer_is_not_another_s", OneAnswerForAll, "another one's"),
    ("test_a_question_without_hashes_asks_nothing", AsksAnyway, "without a question"),
    ("test_a_question_without_hashes_asks_nothing", FindsWithoutHashes, "without having been asked"),
    ("test_threads_can_share_it", SharesASlot, "another's"),
    ("test_a_forked_child_can_use_it", BoundToAProcess, "a forked child"),
    ("test_closing_it_is_the_end", RaisesWhenClosed, "raises RuntimeError"),
    ("test_its_repr_holds_nothing", ShowsItself, "shows a secret"),
    ("test_its_repr_holds_nothing", ShowsQuestions, "shows a hash"),
]
