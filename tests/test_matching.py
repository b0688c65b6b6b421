"""Match services in a check: what is asked of them and when, and that no failure of theirs counts as clean."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.matchers import Answer, Remote, RemotePlugin, breaks, clean, exits, fails, hit, never
from tests.test_guard import KINDS, big_jpeg
from uploadguard import Context, Decision, FailureCode, Guard, Match, Verdict
from uploadguard.errors import ConfigError
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.matchers import Query
from uploadguard.matching import _Found
from uploadguard.testing import testlist
from uploadguard.testing.picture import picture_bytes


@pytest.fixture
def hashset(tmp_path: Path) -> Path:
    directory = tmp_path / "hashset"
    HashSet.create(directory).add_list("hotline", testlist.entries(), KINDS)
    return directory


@pytest.fixture
def open_guard(hashset: Path) -> Callable[..., Any]:
    @contextmanager
    def opened(*matchers: Remote, **overrides: Any) -> Iterator[Guard]:
        with Guard.open(hashset=hashset, plugins={"remote": RemotePlugin(*matchers)}, **overrides) as guard:
            yield guard

    return opened


def test_a_service_that_knows_the_file_blocks_it(open_guard: Any) -> None:
    remote = Remote(lambda query: [hit()])
    with open_guard(remote) as guard:
        decision = guard.check(clean(), context=Context(uploader="u1"))
    assert decision.verdict is Verdict.BLOCK
    assert decision.report_due
    assert [match.list_name for match in decision.matches] == ["remote"]
    (query,) = remote.queries
    assert {item.signal_type for item in query.hashes} == {"md5", "sha1"}
    assert query.content is None
    assert query.context.uploader == "u1"
    assert remote.closed


def test_one_that_knows_nothing_changes_nothing(open_guard: Any) -> None:
    with open_guard(Remote()) as guard:
        assert guard.check(clean()).allowed


def test_a_match_that_is_not_of_the_bytes_is_queued(open_guard: Any) -> None:
    with open_guard(Remote(lambda query: [hit(signal_type="pdq", exact=False)])) as guard:
        decision = guard.check(clean())
    assert (decision.verdict, decision.report_due) == (Verdict.QUEUE, False)


def test_rules_go_by_the_name_of_the_matcher(open_guard: Any) -> None:
    rules = {"lists": {"remote": {"verdict": "queue", "report": False}}}
    with open_guard(Remote(lambda query: [hit()]), policy=rules) as guard:
        decision = guard.check(clean())
    assert (decision.verdict, decision.report_due) == (Verdict.QUEUE, False)


@pytest.mark.parametrize(
    "answer", [fails, breaks, exits, lambda query: [hit("hotline")], lambda query: None, lambda query: 1]
)
@pytest.mark.parametrize(
    ("on_failure", "expected"), [(None, Verdict.QUEUE), (Verdict.BLOCK, Verdict.BLOCK), (Verdict.NOT_SCANNED,) * 2]
)
def test_no_failure_counts_as_clean(
    open_guard: Any, answer: Answer, on_failure: Verdict | None, expected: Verdict
) -> None:
    with open_guard(Remote(answer, on_failure=on_failure)) as guard:
        decision = guard.check(clean())
    assert decision.verdict is expected
    assert [(failure.code, failure.matcher) for failure in decision.failures] == [
        (FailureCode.MATCHER_FAILED, "remote")
    ]


def test_one_that_never_answers_is_not_waited_for_beyond_its_deadline(open_guard: Any) -> None:
    stop = threading.Event()
    with open_guard(Remote(never(stop), deadline_s=0.1)) as guard:
        decision = guard.check(clean())
        stop.set()
    assert decision.verdict is Verdict.QUEUE
    assert "no answer within 0.1 s" in decision.failures[0].detail


def test_checks_that_wait_in_vain_for_a_free_call_fail_and_do_not_ask(open_guard: Any) -> None:
    stop = threading.Event()
    remote = Remote(never(stop), deadline_s=0.2, max_calls=1)
    with open_guard(remote) as guard:
        decisions = [guard.check(clean()) for _ in range(3)]
        stop.set()
    assert all(decision.verdict is Verdict.QUEUE for decision in decisions)
    assert len(remote.queries) == remote.most_at_once == 1


def test_no_more_calls_at_once_than_the_service_takes(open_guard: Any) -> None:
    def slow(query: Query) -> list[Match]:
        time.sleep(0.02)
        return []

    remote = Remote(slow, max_calls=2)
    with open_guard(remote) as guard:

        async def many() -> list[Decision]:
            return await asyncio.gather(*(guard.acheck(clean()) for _ in range(12)))

        decisions = asyncio.run(many())
    assert all(decision.allowed for decision in decisions)
    assert len(remote.queries) == 12
    assert remote.most_at_once <= 2


def test_the_failure_of_one_does_not_hide_what_another_knows(open_guard: Any) -> None:
    with open_guard(Remote(fails), Remote(lambda query: [hit("other")], name="other")) as guard:
        decision = guard.check(clean())
    assert decision.verdict is Verdict.BLOCK
    assert decision.reasons == ("digest_match", "matcher_failed")


def test_a_file_that_the_local_digests_block_is_asked_of_nobody(open_guard: Any) -> None:
    remote = Remote(breaks)
    with open_guard(remote) as guard:
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
    assert not remote.queries


def test_a_file_that_reviewers_cleared_is_asked_of_nobody(open_guard: Any, hashset: Path) -> None:
    entry = ListEntry("1", (("sha256", hashlib.sha256(clean()).digest()),))
    HashSet.open(hashset).add_list("reviewed", [entry], KINDS, role="allow")
    remote = Remote(lambda query: [hit()])
    with open_guard(remote) as guard:
        assert guard.check(clean()).allowed
    assert not remote.queries


def test_perceptual_hashes_are_asked_for_once_they_are_known(open_guard: Any) -> None:
    remote = Remote(signal_types=frozenset({"pdq"}))
    with open_guard(remote) as guard:
        assert guard.check(clean()).allowed
        guard.check(b"GIF89a, or not")
    (query,) = remote.queries  # of what could not be decoded there is nothing to ask
    assert {item.signal_type for item in query.hashes} == {"pdq"}
    assert query.media is not None
    assert query.media.frames_hashed == 1


def test_the_upload_itself_goes_only_to_who_takes_it(open_guard: Any) -> None:
    taker, other = Remote(name="taker", signal_types=frozenset(), takes_content=True), Remote()
    data = big_jpeg()
    with open_guard(taker, other) as guard:
        guard.check(data)
        assert taker.queries[0].content == data
        assert other.queries[0].content is None


def test_an_upload_too_large_to_be_handed_over_is_a_failure(open_guard: Any) -> None:
    taker = Remote(signal_types=frozenset(), takes_content=True)
    with open_guard(taker, media={"max_file_bytes": 1000}) as guard:
        decision = guard.check(clean())
    assert {failure.code.value for failure in decision.failures} == {"too_large", "matcher_failed"}
    assert not taker.queries


def test_what_is_known_already_is_not_asked(open_guard: Any) -> None:
    remote = Remote(breaks)
    remote.cached = lambda query: [hit()]
    with open_guard(remote) as guard:
        assert guard.check(clean()).verdict is Verdict.BLOCK
    assert not remote.queries


def test_a_streamed_upload_is_asked_about_too(open_guard: Any) -> None:
    with open_guard(Remote(lambda query: [hit()])) as guard, guard.inspect() as inspection:
        inspection.write(clean())
        assert inspection.finish().verdict is Verdict.BLOCK


def test_a_cancelled_check_waits_for_nobody(open_guard: Any) -> None:
    stop, asked = threading.Event(), threading.Event()

    def wait(query: Query) -> list[Match]:
        asked.set()
        stop.wait(20)
        return []

    with open_guard(Remote(wait, deadline_s=60)) as guard:

        async def cancel() -> None:
            task = asyncio.create_task(guard.acheck(clean()))
            assert await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        stop.set()
        assert guard.status().checks == {}


def test_a_matcher_that_goes_by_hashes_that_are_not_computed_is_refused(open_guard: Any) -> None:
    with pytest.raises(ConfigError, match=r"goes by photodna, which must be in signals\.enabled"):
        open_guard(Remote(signal_types=frozenset({"md5", "photodna"}))).__enter__()


def test_a_table_that_no_plugin_makes_a_matcher_of_is_refused(open_guard: Any) -> None:
    with pytest.raises(ConfigError, match="no plugin makes matchers of this kind"):
        open_guard(matchers={"eokm": {"kind": "nobodys"}}).__enter__()
    with pytest.raises(ConfigError, match="what kind of matcher is it"):
        open_guard(matchers={"eokm": {"url": "https://x"}}).__enter__()


def test_one_that_fails_open_is_named(open_guard: Any) -> None:
    with open_guard(Remote(fails, on_failure=Verdict.ALLOW)) as guard:
        assert guard.status().fail_open == ("matchers.remote.on_failure",)
        assert guard.check(clean()).allowed


def test_what_a_matcher_raises_is_counted_as_its_own(open_guard: Any) -> None:
    with open_guard(Remote(breaks)) as guard:
        guard.check(clean())
        assert guard.status().plugin_errors == {"remote": 1}
        assert guard.status().failures == {"matcher_failed": 1}


def test_an_answer_that_comes_as_its_time_is_over_is_one() -> None:
    class Late(Future[tuple[Match, ...]]):
        def result(self, timeout: float | None = None) -> tuple[Match, ...]:
            if not self.done():
                self.set_result((hit(),))
                raise TimeoutError
            return super().result(timeout)

    found = _Found()
    found.take(Remote(), Late(), time.monotonic() + 5, None)
    assert (found.matches, found.failures) == ([hit()], [])


def test_where_nothing_is_recorded_the_one_that_answers_later_is_waited_for(tmp_path: Path, hashset: Path) -> None:
    plugins = {"remote": RemotePlugin(Remote(lambda query: [hit()], prefetch=True))}
    with Guard.open(hashset=hashset, ledger={"path": tmp_path / "ledger"}, plugins=plugins, record=False) as guard:
        decision = guard.check(clean())
    assert (decision.verdict, decision.pending) == (Verdict.BLOCK, ())
