"""What one check is told, and how long its stages take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from uploadguard.hashset import Generation
from uploadguard.models import Context, Failure

__all__ = ["Check", "CheckCancelled", "CheckOrder", "Timings"]


class CheckCancelled(Exception):
    """The caller no longer wants the answer."""


@dataclass(frozen=True, slots=True)
class CheckOrder:
    """How one check is to be made.

    ``until`` is when its time is over, by :func:`time.monotonic`. ``cancelled`` says whether the answer is no longer
    wanted; None where that cannot be. ``overloaded``: there is no room for decoding it, so only its digests count.
    ``failures`` are what stands against any check now, whatever is uploaded. ``tripped`` has the lists whose matches
    are only queued.
    """

    until: float = math.inf
    cancelled: Callable[[], bool] | None = None
    overloaded: bool = False
    failures: tuple[Failure, ...] = ()
    tripped: Container[str] = frozenset()


class Timings:
    """Wall-clock milliseconds by stage."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def finish(self) -> Mapping[str, float]:
        """All stages, with ``total``."""
        return {**self.stages, "total": (time.perf_counter() - self._started) * 1e3}


class Check(NamedTuple):
    """One check under way: whose upload, against which generation, how, and for how long already."""

    context: Context
    generation: Generation
    order: CheckOrder
    timings: Timings
