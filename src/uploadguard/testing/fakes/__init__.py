"""Fake servers of what reports go to, for tests: on loopback, faithful, and able to misbehave.

:class:`FakeServer` is the base; each destination's fake is a module of its own, which ``python -m`` runs as a process.
"""

from uploadguard.testing.fakes.messages import Part, Request, Response
from uploadguard.testing.fakes.misbehaviour import (
    CHAOS,
    Drip,
    Garbage,
    HalfClosed,
    Huge,
    LostResponse,
    Misbehaviour,
    Redirect,
    Reset,
    Slow,
    Status,
    Truncated,
    throttled,
)
from uploadguard.testing.fakes.process import FakeProcess, run_fake
from uploadguard.testing.fakes.server import FakeClock, FakeServer

__all__ = [
    "CHAOS",
    "Drip",
    "FakeClock",
    "FakeProcess",
    "FakeServer",
    "Garbage",
    "HalfClosed",
    "Huge",
    "LostResponse",
    "Misbehaviour",
    "Part",
    "Redirect",
    "Request",
    "Reset",
    "Response",
    "Slow",
    "Status",
    "Truncated",
    "run_fake",
    "throttled",
]
