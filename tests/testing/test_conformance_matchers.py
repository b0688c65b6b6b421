"""The suite for matchers finds what is broken: for each of its tests, matchers that must not pass it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.testing.broken_matchers import MATCHERS, SECRET, Service, SoundMatcher, query
from uploadguard.matchers import Query
from uploadguard.testing.conformance import MatcherConformance


class SoundSuite(MatcherConformance):
    secrets = (SECRET,)
    matcher: Any = SoundMatcher

    def __init__(self) -> None:
        self.service = Service()
        for number in range(10):
            self.service.known.add(self.listed(number).hashes[0].value)

    def make(self) -> Any:
        return self.matcher(self.service) if issubclass(self.matcher, SoundMatcher) else self.matcher()

    def listed(self, number: int = 0) -> Query:
        return query("listed", number)

    def unlisted(self, number: int = 0) -> Query:
        return query("unlisted", number)

    def traffic(self) -> int:
        return self.service.calls

    def faults(self) -> Iterator[tuple[str, Any]]:
        yield "an outage", self.service.outage

    def hangs(self) -> Any:
        return self.service.hangs()


TESTS = sorted(name for name in dir(MatcherConformance) if name.startswith("test_"))


@pytest.mark.parametrize("test", TESTS)
def test_what_is_sound_passes(test: str) -> None:
    getattr(SoundSuite(), test)()


@pytest.mark.parametrize(
    ("test", "broken", "message"), MATCHERS, ids=[f"{test}-{broken.__name__}" for test, broken, _ in MATCHERS]
)
def test_what_is_broken_fails(test: str, broken: Any, message: str) -> None:
    suite = SoundSuite()
    suite.matcher = broken
    with pytest.raises((pytest.fail.Exception, AssertionError), match=message):
        getattr(suite, test)()


def test_every_test_of_the_suite_has_a_broken_case() -> None:
    assert len(TESTS) > 10
    assert set(TESTS) == {test for test, *_ in MATCHERS}
