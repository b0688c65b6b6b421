"""What a fake server can do wrong, and when."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from fnmatch import fnmatchcase

__all__ = [
    "CHAOS",
    "Drip",
    "Garbage",
    "HalfClosed",
    "Huge",
    "LostResponse",
    "Misbehaviour",
    "Redirect",
    "Reset",
    "Rules",
    "Slow",
    "Status",
    "Truncated",
    "throttled",
]


@dataclass(frozen=True, slots=True)
class Slow:
    """Wait, then take effect and answer as usual."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Drip:
    """Take effect, and send the answer's body a few bytes at a time."""

    every_s: float
    chunk_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Status:
    """Do nothing, and answer with this status."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer 200 with bytes that mean nothing; the request takes effect only with ``effect``."""

    body: bytes = b"\x00\xff<<<not an answer"
    effect: bool = False


@dataclass(frozen=True, slots=True)
class Truncated:
    """Take effect, promise the whole answer by Content-Length, send its first half and close."""

    effect: bool = True


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """Read the request, do nothing, and close without a word."""


@dataclass(frozen=True, slots=True)
class LostResponse:
    """Take full effect, then reset the connection: before the answer, or in its midst with ``after_bytes``."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection before the request's body is read."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Do nothing, and point to another place. A client must not take its credentials there."""

    location: str
    code: int = 307


@dataclass(frozen=True, slots=True)
class Huge:
    """Do nothing, and answer with a body that never ends; ``code`` is the status."""

    code: int = 200


Misbehaviour = Slow | Drip | Status | Garbage | Truncated | HalfClosed | LostResponse | Reset | Redirect | Huge


def throttled(after: float | datetime, code: int = 429) -> Status:
    """A server that asks for peace: ``Retry-After`` in seconds, or as an HTTP date (give it UTC)."""
    value = format_datetime(after, usegmt=True) if isinstance(after, datetime) else str(round(after))
    return Status(code, {"Retry-After": value})


CHAOS: tuple[Misbehaviour, ...] = (
    Status(500),
    Status(503, {"Retry-After": "0"}),
    Status(429, {"Retry-After": "0"}),
    Garbage(),
    Garbage(effect=True),
    Truncated(),
    HalfClosed(),
    LostResponse(),
    LostResponse(after_bytes=20),
    Reset(),
)
"""A mix for random misbehaviour, in which nothing takes long and no credentials are refused."""


@dataclass(slots=True)
class _Rule:
    kinds: Sequence[Misbehaviour]
    method: str | None
    path: str
    first: int
    left: int | None
    probability: float
    seen: int = 0

    def pick(self, method: str, path: str, chance: random.Random) -> Misbehaviour | None:
        if self.left == 0 or self.method not in (None, method) or not fnmatchcase(path, self.path):
            return None
        self.seen += 1
        if self.seen < self.first or chance.random() >= self.probability:
            return None
        if self.left is not None:
            self.left -= 1
        return chance.choice(self.kinds)


class Rules:
    """Which request gets which misbehaviour. Thread-safe; the same seed and order of requests give the same picks."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._chance = random.Random(seed)  # noqa: S311 - nothing secret
        self._rules: list[_Rule] = []

    def add(
        self,
        *kinds: Misbehaviour,
        method: str | None = None,
        path: str = "*",
        nth: int = 1,
        times: int | None = 1,
        probability: float = 1.0,
    ) -> None:
        """Misbehave in one of these ways, picked at random.

        It counts requests of this method whose path fits the pattern (``/submit``, ``/v1/*``), begins with the
        ``nth`` from now on (1 is the next), and ends after ``times`` (None: never). Each such request misbehaves with
        this probability. Of several rules the one added first goes first, and a request that it takes is not counted
        by the others: so calls one after another make a queue.
        """
        if not kinds:
            raise ValueError("which misbehaviour?")
        with self._lock:
            self._rules.append(_Rule(kinds, method, path, nth, times, probability))

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._rules.clear()

    def pick(self, method: str, path: str) -> Misbehaviour | None:
        """What to do wrong with this request, if anything."""
        with self._lock:
            for rule in self._rules:
                kind = rule.pick(method, path, self._chance)
                if kind is not None:
                    return kind
        return None
