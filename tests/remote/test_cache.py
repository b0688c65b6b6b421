"""The cache: how long, how many, and what goes before what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from tests.remote.test_breaker import Clock
from uploadguard.remote import AnswerCache


def cache(clock: Clock, entries: int = 3) -> AnswerCache[str, int]:
    return AnswerCache(entries=entries, found_s=100.0, not_found_s=10.0, clock=clock)


def test_matches_are_kept_long_and_others_short() -> None:
    clock = Clock()
    kept = cache(clock)
    kept.put("a", 1, found=True)
    kept.put("b", 0, found=False)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, 0, None)
    clock.now += 9.9
    assert kept.get("b") == 0
    clock.now += 0.1
    assert (kept.get("a"), kept.get("b")) == (1, None)
    clock.now += 90
    assert kept.get("a") is None
    assert len(kept) == 0


def test_a_flood_of_unknown_ones_displaces_no_match() -> None:
    kept = cache(Clock())
    kept.put("a", 1, found=True)
    for number in range(100):
        kept.put(str(number), 0, found=False)
    assert len(kept) == 4
    assert kept.get("a") == 1
    assert [kept.get(str(number)) for number in (96, 97, 99)] == [None, 0, 0]


def test_a_match_goes_before_what_was_heard_later() -> None:
    clock = Clock()
    kept = cache(clock)
    kept.put("a", 1, found=True)
    kept.put("a", 0, found=False)
    assert kept.get("a") == 1
    clock.now += 95
    kept.put("a", 0, found=False)
    clock.now += 5
    assert kept.get("a") == 0


def test_nothing_is_kept_where_there_is_no_room_or_no_time() -> None:
    for kept in (
        AnswerCache[str, int](entries=0, found_s=9.0, not_found_s=9.0),
        AnswerCache[str, int](entries=9, found_s=0.0, not_found_s=0.0),
    ):
        for found in (True, False):
            kept.put("a", 1, found=found)
        assert kept.get("a") is None
        assert len(kept) == 0


def test_its_repr_holds_no_key() -> None:
    kept = cache(Clock())
    kept.put("secret-key", 1, found=True)
    assert repr(kept) == "AnswerCache(<1 answers>)"


def test_threads_can_share_it() -> None:
    kept: AnswerCache[int, int] = AnswerCache(entries=50, found_s=100.0, not_found_s=100.0)

    def use(number: int) -> bool:
        key = number % 90
        kept.put(key, key, found=number % 2 == 0)
        return kept.get(key) in (key, None)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(5000)))
    assert len(kept) <= 100


@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.integers(0, 60))),
)
def test_it_is_bounded_and_never_makes_an_answer_up(entries: int, steps: list[tuple[str, bool, int]]) -> None:
    clock = Clock()
    kept: AnswerCache[str, tuple[str, float]] = AnswerCache(
        entries=entries, found_s=100.0, not_found_s=10.0, clock=clock
    )
    for key, found, wait_s in steps:
        clock.now += wait_s
        kept.put(key, (key, clock.now + (100.0 if found else 10.0)), found=found)
        assert len(kept) <= 2 * entries
        for asked in "abcdefgh":
            answer = kept.get(asked)
            assert answer is None or (answer[0] == asked and clock.now < answer[1])
