"""Percentiles, and how many samples they take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["PERCENTILES", "STAGES", "Percentiles", "in_order", "samples_needed"]

PERCENTILES: tuple[Fraction, ...] = (Fraction(50), Fraction(95), Fraction(99))
"""Those always told."""

STAGES = (
    "read", "dispatch", "digests", "match_digests", "sandbox", "structure", "open", "decode", "pdq", "inspect", "match",
    "decide", "total",
)  # fmt: skip
"""The stages of a check in their order. Further signal types have stages of their own, beside ``pdq``."""

_SAMPLES_BEYOND = 2


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds of one stage. A percentile is the shortest time within which that part of the samples lies."""

    samples: int
    values_ms: Mapping[Fraction, float]
    max_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float], percentiles: Iterable[Fraction] = PERCENTILES) -> Percentiles:
        """Of at least one sample."""
        wanted = sorted({*PERCENTILES, *percentiles})
        ordered = sorted(times_ms)
        ranks = {p: math.ceil(p / 100 * len(ordered)) for p in wanted}
        return cls(len(ordered), {p: ordered[rank - 1] for p, rank in ranks.items()}, ordered[-1])

    def to_dict(self) -> dict[str, float]:
        """JSON types: ``samples``, ``p50_ms`` and so on, ``max_ms``."""
        named = {f"{percentile_name(p)}_ms": round(ms, 4) for p, ms in self.values_ms.items()}
        return {"samples": self.samples, **named, "max_ms": round(self.max_ms, 4)}


def percentile_name(percentile: Fraction) -> str:
    """``p99``, ``p99.9``."""
    return f"p{float(percentile):g}"


def samples_needed(percentiles: Iterable[Fraction]) -> int:
    """How many samples tell these percentiles: as many as leave two beyond the highest, so 200 for p99."""
    return max(math.ceil(_SAMPLES_BEYOND / (1 - p / 100)) for p in percentiles)


def in_order(stages: Iterable[str]) -> list[str]:
    """Stages as a check goes through them; those of further signal types behind ``pdq``."""
    places = {stage: number for number, stage in enumerate(STAGES)}
    return sorted(stages, key=lambda stage: (places.get(stage, places["pdq"]), stage not in places, stage))
