"""The breaker: when it opens, what it lets through then, and what closes it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.errors import MatcherError
from uploadguard.remote import CircuitBreaker, ServiceFailure


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("made-up", failures=3, pause_s=10.0, clock=clock)


def fail(breaker: CircuitBreaker, error: BaseException | None = None) -> bool:
    """Whether the failing call was let through."""
    let_through = False
    with suppress(BaseException), breaker.attempt():
        let_through = True
        raise error or ServiceFailure("it broke")
    return let_through


def succeed(breaker: CircuitBreaker) -> bool:
    """Whether the call was let through."""
    with suppress(MatcherError), breaker.attempt():
        return True
    return False


def test_it_opens_after_so_many_failures_in_a_row(breaker: CircuitBreaker) -> None:
    assert [fail(breaker) for _ in range(5)] == [True, True, True, False, False]
    assert not succeed(breaker)


def test_a_success_between_them_begins_the_count_again(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        assert fail(breaker)
        assert fail(breaker)
        assert succeed(breaker)
    assert not breaker.is_open


def test_while_it_is_open_it_says_why(breaker: CircuitBreaker) -> None:
    fail(breaker, ServiceFailure("it wants a password", opens=True))
    with pytest.raises(MatcherError, match="not asked for a while, since it wants a password"), breaker.attempt():
        pytest.fail("let through")


@pytest.mark.parametrize("error", [ServiceFailure("this one", counts=False), KeyError(), KeyboardInterrupt()])
def test_what_tells_nothing_of_the_service_does_not_count(
    breaker: CircuitBreaker, clock: Clock, error: BaseException
) -> None:
    for _ in range(9):
        assert fail(breaker, error)
    for _ in range(3):
        fail(breaker)
    clock.now += 11
    assert fail(breaker, error)
    assert breaker.is_open
    assert succeed(breaker)
    assert not breaker.is_open


def test_after_the_pause_one_call_at_a_time_is_let_through(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, ServiceFailure("it broke", opens=True))
    clock.now += 9.9
    assert not succeed(breaker)
    clock.now += 0.1
    with breaker.attempt():
        assert not succeed(breaker)
        assert not fail(breaker)
    assert not breaker.is_open
    assert succeed(breaker)


def test_each_failed_probe_doubles_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, ServiceFailure("it broke", opens=True))
    for pause_s in (10.0, 20.0, 40.0, 60.0, 60.0):
        clock.now += pause_s - 0.1
        assert not fail(breaker)
        clock.now += 0.1
        assert fail(breaker)
    clock.now += 60
    assert succeed(breaker)
    fail(breaker, ServiceFailure("it broke", opens=True))
    clock.now += 10
    assert succeed(breaker)


@pytest.mark.parametrize(("asked_for_s", "pause_s"), [(0.0, 10.0), (5.0, 10.0), (90.0, 90.0), (86_400.0, 3600.0)])
def test_the_wait_that_was_asked_for(breaker: CircuitBreaker, clock: Clock, asked_for_s: float, pause_s: float) -> None:
    fail(breaker, ServiceFailure("it is busy", opens=True, pause_s=asked_for_s))
    clock.now += pause_s - 0.1
    assert not succeed(breaker)
    clock.now += 0.1
    assert succeed(breaker)


def test_calls_from_before_it_opened_change_nothing(breaker: CircuitBreaker, clock: Clock) -> None:
    with breaker.attempt():
        fail(breaker, ServiceFailure("it broke", opens=True))
    assert breaker.is_open
    clock.now += 10
    assert succeed(breaker)
    with suppress(ServiceFailure), breaker.attempt():
        fail(breaker, ServiceFailure("it broke", opens=True))
        clock.now += 10
        assert succeed(breaker)
        raise ServiceFailure("late news", opens=True)
    assert not breaker.is_open


def test_of_many_threads_one_probes(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, ServiceFailure("it broke", opens=True))
    clock.now += 10
    together = Barrier(16)

    def probe(_: int) -> bool:
        together.wait()
        return fail(breaker)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(probe, range(16))) == 1


def test_it_is_logged_once_when_it_opens_and_once_when_it_ends(
    breaker: CircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "uploadguard"):
        for _ in range(9):
            fail(breaker)
        clock.now += 10
        fail(breaker)
        clock.now += 60
        succeed(breaker)
        succeed(breaker)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "made-up" in caplog.text
    assert "it broke" in caplog.text


@given(st.lists(st.tuples(st.sampled_from(["fail", "succeed", "wait"]), st.floats(0, 100))))
def test_it_is_open_exactly_after_failures_that_no_success_followed(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    breaker = CircuitBreaker("made-up", failures=3, pause_s=10.0, clock=clock)
    in_a_row = 0
    for step, seconds in steps:
        if step == "wait":
            clock.now += seconds
        elif step == "fail":
            in_a_row += fail(breaker)
        elif succeed(breaker):
            in_a_row = 0
        assert breaker.is_open == (in_a_row >= 3)
