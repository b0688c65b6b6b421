"""One check after the other in one process: how long each stage takes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path

from uploadguard.bench.statistics import Percentiles, in_order
from uploadguard.errors import MediaReadError
from uploadguard.guard import Guard
from uploadguard.models import Decision

__all__ = ["Latencies", "PictureLatencies", "measure_latencies", "shuffled", "warm_up"]

_WARM_UP_CHECKS = 20
_SEED = 5


@dataclass(slots=True)
class PictureLatencies:
    """The checks of one picture: what was decided last, and each check's milliseconds by stage."""

    megapixels: float | None = None
    verdict: str = ""
    times_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, decision: Decision) -> None:
        """Book a check."""
        media = decision.media
        if media.width is not None and media.height is not None:
            self.megapixels = media.width * media.height / 1e6
        self.verdict = decision.verdict.label
        for stage, ms in decision.timings_ms.items():
            self.times_ms.setdefault(stage, []).append(ms)


@dataclass(slots=True)
class Latencies:
    """What was measured, by picture. ``unreadable`` holds the files that could not be read at all."""

    pictures: dict[Path, PictureLatencies] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    unreadable: dict[Path, str] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def samples(self) -> int:
        """How many checks were timed."""
        return self.verdicts.total()

    def times_ms(self) -> Mapping[str, list[float]]:
        """All milliseconds by stage, in the stages' order."""
        stages = in_order({stage for picture in self.pictures.values() for stage in picture.times_ms})
        return {
            stage: list(chain.from_iterable(picture.times_ms.get(stage, ()) for picture in self.pictures.values()))
            for stage in stages
        }

    def percentiles(self, percentiles: Iterable[Fraction]) -> dict[str, Percentiles]:
        """Percentiles by stage; of each stage over those checks that went through it."""
        wanted = list(percentiles)
        return {stage: Percentiles.of(times_ms, wanted) for stage, times_ms in self.times_ms().items()}


def shuffled(paths: Sequence[Path], seed: int = _SEED) -> list[Path]:
    """The files in an order that tells nothing of them but is the same every time, so that any part of them will do."""
    order = list(paths)
    random.Random(seed).shuffle(order)  # noqa: S311 - nothing secret
    return order


def warm_up(guard: Guard, paths: Sequence[Path]) -> dict[Path, str]:
    """Check some pictures and forget it: code is loaded, threads started, the hash set's pages mapped.

    Returns those that could not be read.
    """
    unreadable = {}
    for path in islice(cycle(paths), _WARM_UP_CHECKS):
        try:
            guard.check(path)
        except MediaReadError as error:
            unreadable[path] = error.reason
    return unreadable


def measure_latencies(
    guard: Guard,
    paths: Sequence[Path],
    *,
    samples: int,
    max_s: float,
    progress: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latencies:
    """Check pictures in turn, after a warm-up, until there are ``samples`` and each had its turn, or time is up.

    Takes one sample at least. ``progress`` is told how many there are. Raises
    :class:`~uploadguard.errors.NotReadyError`, and :class:`MediaReadError` if no picture can be read.
    """
    order = shuffled(paths)
    found = Latencies()
    found.unreadable = warm_up(guard, order)
    started = clock()
    remaining = [path for path in order if path not in found.unreadable]
    while remaining:
        for path in list(remaining):
            if found.samples and (clock() - started >= max_s or found.samples >= max(samples, len(paths))):
                found.elapsed_s = clock() - started
                return found
            try:
                decision = guard.check(path)
            except MediaReadError as error:
                found.unreadable[path] = error.reason
                remaining.remove(path)
                continue
            found.pictures.setdefault(path, PictureLatencies()).add(decision)
            found.verdicts[decision.verdict.label] += 1
            progress(found.samples)
    raise MediaReadError("none of the pictures can be read")
