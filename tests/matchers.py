"""A match service for tests: answers as it is told to."""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from tests.conftest import photo
from uploadguard import Match, Verdict, hookimpl
from uploadguard.errors import MatcherError
from uploadguard.matchers import Matcher, Query

Answer = Callable[[Query], Sequence[Match]]


@functools.cache
def clean() -> bytes:
    """A small picture that is on no list."""
    with Image.open(photo("chelsea.png")) as image:
        out = io.BytesIO()
        image.convert("RGB").resize((160, 120)).save(out, "JPEG")
    return out.getvalue()


def hit(name: str = "remote", signal_type: str = "md5", *, exact: bool = True) -> Match:
    return Match(name, "1", None, signal_type, 0, exact=exact)


class Remote:
    """A matcher whose ``answer`` a test sets. ``queries`` has what it was asked."""

    def __init__(
        self,
        answer: Answer = lambda query: (),
        *,
        name: str = "remote",
        signal_types: frozenset[str] = frozenset({"md5", "sha1"}),
        takes_content: bool = False,
        deadline_s: float = 5.0,
        max_calls: int = 4,
        on_failure: Verdict | None = None,
        prefetch: bool = False,
        retry_s: float = 60.0,
    ) -> None:
        self.answer = answer
        self.name = name
        self.signal_types = signal_types
        self.takes_content = takes_content
        self.deadline_s = deadline_s
        self.max_calls = max_calls
        self.on_failure = on_failure
        self.prefetch = prefetch
        self.retry_s = retry_s
        self.cached: Answer | None = None
        self.queries: list[Query] = []
        self.closed = False
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()

    def known(self, query: Query) -> Sequence[Match] | None:
        return self.cached(query) if self.cached is not None else None

    def match(self, query: Query, until: float) -> Sequence[Match]:
        with self._counting:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.queries.append(query)
        try:
            return self.answer(query)
        finally:
            with self._counting:
                self._at_once -= 1

    def close(self) -> None:
        self.closed = True


class RemotePlugin:
    """Hands over matchers that a test made."""

    def __init__(self, *matchers: Matcher) -> None:
        self._matchers = matchers

    @hookimpl
    def uploadguard_matchers(self, tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Matcher]:
        return self._matchers


def fails(query: Query) -> Sequence[Match]:
    raise MatcherError("it answered 503")


def breaks(query: Query) -> Sequence[Match]:
    raise ZeroDivisionError


def exits(query: Query) -> Sequence[Match]:
    raise SystemExit


def never(stop: threading.Event) -> Answer:
    """Answers only when the test ends."""

    def answer(query: Query) -> Sequence[Match]:
        stop.wait(20)
        return ()

    return answer


def slowly(seconds: float, answer: Answer = lambda query: ()) -> Answer:
    def later(query: Query) -> Sequence[Match]:
        time.sleep(seconds)
        return answer(query)

    return later
