"""The suite for actions finds what is broken: for each of its tests, actions that must not pass it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.testing.broken_actions import ACTIONS, SECRET, OtherSide, SoundAction
from uploadguard.testing.conformance import ActionConformance


class SoundSuite(ActionConformance):
    exactly_once = True
    secrets = (SECRET,)
    action: Any = SoundAction

    def __init__(self) -> None:
        self.other = OtherSide()

    def make(self) -> Any:
        return self.action(self.other) if issubclass(self.action, SoundAction) else self.action()

    def taken(self) -> Mapping[str, int]:
        return dict(self.other.taken)

    def traffic(self) -> int:
        return self.other.calls

    def faults(self) -> Iterator[tuple[str, Any]]:
        yield "an outage", self.other.outage()


TESTS = sorted(name for name in dir(ActionConformance) if name.startswith("test_"))


@pytest.mark.parametrize("test", TESTS)
def test_what_is_sound_passes(test: str) -> None:
    getattr(SoundSuite(), test)()


@pytest.mark.parametrize(
    ("test", "broken", "message"), ACTIONS, ids=[f"{test}-{broken.__name__}" for test, broken, _ in ACTIONS]
)
def test_what_is_broken_fails(test: str, broken: Any, message: str) -> None:
    suite = SoundSuite()
    suite.action = broken
    with pytest.raises((pytest.fail.Exception, AssertionError), match=message):
        getattr(suite, test)()


def test_every_test_of_the_suite_has_a_broken_case() -> None:
    assert len(TESTS) > 10
    assert set(TESTS) == {test for test, *_ in ACTIONS}
