"""What every matcher must do, whatever its service does."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from uploadguard.errors import MatcherError
from uploadguard.matchers import Matcher, Query
from uploadguard.models import Context, Match, Verdict
from uploadguard.testing import fakes
from uploadguard.testing.conformance._checks import in_threads, leaks, require

__all__ = ["MatcherConformance", "RemoteMatcherConformance"]

_PATIENCE_S = 30.0
_SHORT_S = 0.3


class MatcherConformance:
    """For any matcher. ``make`` gives one whose service is a fake of the test's own; fixtures can set that up.

    The service may be another one for each test, but must last for the whole of it.
    """

    secrets: tuple[str, ...] = ()
    """What must not be read in an error or a repr: passwords, tokens."""

    def make(self) -> Matcher:
        """A fresh matcher, with nothing cached. All of one test have the same service."""
        raise NotImplementedError

    def listed(self, number: int = 0) -> Query:
        """A question whose answer is a match; another one for each number from 0 to 9."""
        raise NotImplementedError

    def unlisted(self, number: int = 0) -> Query:
        """A question to which the service answers that it knows nothing; another one for each number from 0 to 9."""
        raise NotImplementedError

    def traffic(self) -> int:
        """How many requests the service has had."""
        raise NotImplementedError

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[object]]]]:
        """Ways in which the service fails to answer: what it is, and what gives a context manager that makes it so."""
        yield from ()

    def hangs(self) -> AbstractContextManager[object] | None:
        """Inside, the service answers only after minutes."""
        return None

    def test_it_follows_the_protocol(self) -> None:
        matcher = self.make()
        require(isinstance(matcher, Matcher), f"{type(matcher).__name__} lacks a member of Matcher")
        require(isinstance(matcher.name, str) and matcher.name.strip() != "" and matcher.name.isprintable(), "no name")
        types = matcher.signal_types
        require(isinstance(types, frozenset) and all(isinstance(one, str) for one in types), "no set of signal types")
        require(len(types) > 0 or matcher.takes_content, "it goes by nothing")
        require(math.isfinite(matcher.deadline_s) and matcher.deadline_s > 0, "no deadline")
        require(type(matcher.max_calls) is int and matcher.max_calls > 0, "no number of calls")
        require(math.isfinite(matcher.retry_s) and matcher.retry_s >= 0, "no time to try again in")
        require(type(matcher.prefetch) is bool and type(matcher.takes_content) is bool, "a flag that is none")
        require(matcher.on_failure is None or isinstance(matcher.on_failure, Verdict), "on_failure is no verdict")
        require(not (matcher.prefetch and matcher.takes_content), "later, there is no upload to take")

    def test_it_does_not_fail_open(self) -> None:
        require(self.make().on_failure is not Verdict.ALLOW, "its failure passes for clean")

    def test_it_finds_what_is_listed(self) -> None:
        matcher = self.make()
        found = self._match(matcher, self.listed())
        require(len(found) > 0, "it does not find what the service has")
        for match in found:
            self._require_match(matcher, match)

    def test_it_finds_nothing_else(self) -> None:
        require(len(self._match(self.make(), self.unlisted())) == 0, "it finds what the service has not")

    def test_no_fault_is_an_answer(self) -> None:
        for what, fault in self.faults():
            for query in (self.listed(), self.unlisted()):
                with fault():
                    matcher = self.make()
                    error = self._error(matcher, query)
                require(error is not None, f"{what}: passes for an answer")
                self._require_discreet(error, query, what)
                require(matcher.known(query) is None, f"{what}: is kept for an answer")
                matcher.close()

    def test_after_a_fault_the_service_is_asked_again(self) -> None:
        for what, fault in self.faults():
            with fault():
                self._error(self.make(), self.listed())
            require(len(self._match(self.make(), self.listed())) > 0, f"{what}: its trace stays")

    def test_it_gives_up_when_its_time_is_over(self) -> None:
        for query in (self.listed(), self.unlisted()):
            matcher, before = self.make(), self.traffic()
            error = self._error(matcher, query, time.monotonic() - 1.0)
            require(isinstance(error, MatcherError), "with no time left, it answers")
            require(self.traffic() == before, "with no time left, it asks")

    def test_it_gives_up_a_service_that_hangs(self) -> None:
        hanging = self.hangs()
        if hanging is None:
            return
        with hanging:
            matcher = self.make()
            started = time.monotonic()
            error = self._error(matcher, self.unlisted(), started + _SHORT_S)
            require(error is not None, "a service that hangs passes for an answer")
            require(time.monotonic() - started < _PATIENCE_S, "it waits for a service that hangs")

    def test_what_it_knows_is_what_it_was_told(self) -> None:
        for query in (self.listed(), self.unlisted()):
            matcher, before = self.make(), self.traffic()
            require(matcher.known(query) is None, "it knows what it was not told")
            require(self.traffic() == before, "known asks the service")
            told = self._match(matcher, query)
            after = self.traffic()
            known = matcher.known(query)
            require(known is None or list(known) == list(told), "it knows something else than it was told")
            require(self.traffic() == after, "known asks the service")

    def test_one_answer_is_not_another_s(self) -> None:
        matcher = self.make()
        for number in range(4):
            require(len(self._match(matcher, self.unlisted(number))) == 0, "an answer is taken for another one's")
            require(len(self._match(matcher, self.listed(number))) > 0, "an answer is taken for another one's")

    def test_a_question_without_hashes_asks_nothing(self) -> None:
        matcher, before = self.make(), self.traffic()
        bare = Query((), Context())
        try:
            found = matcher.match(bare, time.monotonic() + _PATIENCE_S)
        except MatcherError:
            found = ()
        require(len(found) == 0, "it finds something without having been asked")
        require(self.traffic() == before, "it asks without a question")

    def test_threads_can_share_it(self) -> None:
        matcher = self.make()
        queries = [(kind, make(number)) for number in range(5) for kind, make in self._kinds()]

        def ask(item: tuple[bool, Query]) -> bool:
            listed, query = item
            known = matcher.known(query)
            found = self._match(matcher, query) if known is None else known
            return (len(found) > 0) is listed

        require(all(in_threads(ask, queries, repeats=2)), "asked by several threads, it answers one with another's")

    def test_a_forked_child_can_use_it(self) -> None:
        matcher = self.make()
        self._match(matcher, self.unlisted(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                found = [len(self._match(matcher, make(2))) > 0 for _, make in self._kinds()]
                status = 0 if found == [True, False] else 2
            finally:
                os._exit(status)
        parent = [len(self._match(matcher, make(3))) > 0 for _, make in self._kinds()]
        status = _status_of(child)
        require(status == 0, "a forked child gets no answer, or a wrong one")
        require(parent == [True, False], "after a fork, the parent gets a wrong answer")

    def test_closing_it_is_the_end(self) -> None:
        matcher = self.make()
        self._match(matcher, self.unlisted())
        matcher.close()
        matcher.close()
        error = self._error(matcher, self.listed())
        require(error is None or isinstance(error, MatcherError), f"closed, it raises {type(error).__name__}")

    def test_its_repr_holds_nothing(self) -> None:
        matcher = self.make()
        query = self.listed()
        self._match(matcher, query)
        self._require_quiet(repr(matcher) + str(matcher), query, "its repr")

    def _kinds(self) -> tuple[tuple[bool, Callable[[int], Query]], ...]:
        return (True, self.listed), (False, self.unlisted)

    def _match(self, matcher: Matcher, query: Query) -> Sequence[Match]:
        return matcher.match(query, time.monotonic() + _PATIENCE_S)

    def _error(self, matcher: Matcher, query: Query, until: float | None = None) -> Exception | None:
        try:
            matcher.match(query, time.monotonic() + max(matcher.deadline_s, _SHORT_S) if until is None else until)
        except Exception as error:  # noqa: BLE001 - the kind is for whoever asked
            return error
        return None

    def _require_match(self, matcher: Matcher, match: Match) -> None:
        require(isinstance(match, Match), "an answer has what is no Match")
        require(match.list_name == matcher.name, "a match is not of a list named as the matcher")
        require(not match.allow, "a match lets the upload pass")
        require(type(match.distance_bits) is int and match.distance_bits >= 0, "a match has no distance")
        require(match.entry_id != "" and match.signal_type != "", "a match does not say of what")
        try:
            json.dumps(dataclasses.asdict(match)["fields"], allow_nan=False)
        except (TypeError, ValueError):
            pytest.fail("a match's fields are not JSON")

    def _require_discreet(self, error: Exception | None, query: Query, what: str) -> None:
        require(isinstance(error, MatcherError), f"{what}: raises {type(error).__name__}")
        require(str(error) != "", f"{what}: the error gives no reason")
        shown = ""
        chain: BaseException | None = error
        while chain is not None:
            shown += "".join(traceback.format_exception_only(chain)) + repr(chain)
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
        self._require_quiet(shown, query, what)

    def _require_quiet(self, shown: str, query: Query, what: str) -> None:
        for item in query.hashes:
            require(not leaks(shown, item.value.hex()), f"{what}: shows a hash")
        require(not any(secret.lower() in shown.lower() for secret in self.secrets), f"{what}: shows a secret")


class RemoteMatcherConformance(MatcherConformance):
    """For a matcher of a service over HTTP, whose fake is a :class:`~uploadguard.testing.fakes.FakeServer`.

    Set ``fake`` in a fixture, and let ``make`` give its matcher the deadline ``deadline_s``.
    """

    fake: fakes.FakeServer
    deadline_s = 20.0
    """As long as the fake answers at once; a fraction of a second where it is slow."""

    misbehaviours: Sequence[fakes.Misbehaviour] = ()
    """What else can go wrong with this service: garbage that looks like an answer, and the like."""

    def traffic(self) -> int:
        """How many requests the fake has had."""
        return len(self.fake.requests)

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        """All that can go wrong over HTTP, a fake that is down, and ``misbehaviours``."""
        for kind in (*_WRONG, *_SLOW, *self.misbehaviours):
            yield repr(kind)[:80], partial(self.misbehaving, kind)
        yield "nobody is there", self.down

    def hangs(self) -> AbstractContextManager[None]:
        """Inside, the fake answers only after minutes."""
        return self.misbehaving(fakes.Slow(600))

    @contextmanager
    def misbehaving(self, kind: fakes.Misbehaviour) -> Iterator[None]:
        """Inside, each request meets this."""
        self.deadline_s = _SHORT_S if kind in _SLOW else type(self).deadline_s
        self.fake.misbehave(kind, times=None)
        yield
        self.fake.behave()
        self.deadline_s = type(self).deadline_s

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside, the fake does not listen."""
        self.fake.stop()
        yield
        self.fake.start()


_WRONG: tuple[fakes.Misbehaviour, ...] = (
    *fakes.CHAOS,
    *(fakes.Status(code) for code in (201, 204, 206, 400, 401, 403, 404, 413, 415, 422)),
    fakes.throttled(30),
    fakes.Redirect("http://127.0.0.1:9/"),
    fakes.Huge(),
    fakes.Garbage(b""),
    fakes.Garbage(b"<html><p>Sign in first.</p></html>"),
    fakes.Status(200, {"Content-Encoding": "gzip"}),
)
_SLOW: tuple[fakes.Misbehaviour, ...] = (fakes.Slow(60), fakes.Drip(0.5))


def _status_of(child: int) -> int:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1
