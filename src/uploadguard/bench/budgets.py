"""Latency budgets: what a percentile of a stage may take."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from uploadguard.bench.statistics import Percentiles, samples_needed

__all__ = ["LOADED", "Budget", "BudgetResult", "judge", "parse_budget"]

LOADED = "loaded"
"""In place of a stage: the total while all workers check at once."""

_FORM = re.compile(r"(?:([a-z][a-z0-9_-]*)\.)?p(\d+(?:\.\d+)?)=(\d+(?:\.\d+)?)(us|ms|s)", re.ASCII)
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Budget:
    """``percentile`` of ``stage`` may take ``limit_ms``, inclusive. ``text`` is the budget as it was given."""

    text: str
    stage: str
    percentile: Fraction
    limit_ms: float


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """Whether a budget is met; ``measured_ms`` is None where nothing was measured. ``why`` says why it is missed."""

    budget: Budget
    measured_ms: float | None
    met: bool
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "budget": self.budget.text,
            "stage": self.budget.stage,
            "percentile": float(self.budget.percentile),
            "limit_ms": self.budget.limit_ms,
            "measured_ms": None if self.measured_ms is None else round(self.measured_ms, 4),
            "met": self.met,
            "why": self.why,
        }


def parse_budget(text: str, stages: Collection[str]) -> Budget:
    """Read ``p99=80ms`` (of the total), ``match.p99.9=1ms``, ``loaded.p95=0.2s``. Raises ``ValueError``."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError("give [STAGE.]pNN=TIME with a unit of us, ms or s, as in p99=80ms or match.p99=1ms")
    stage, percentile, number, unit = form[1] or "total", Fraction(form[2]), float(form[3]), form[4]
    if stage not in stages:
        raise ValueError(f"there is no stage of that name; there are: {', '.join(stages)}")
    if not 0 < percentile < 100:
        raise ValueError("a percentile is above 0 and below 100")
    return Budget(text, stage, percentile, number * _UNITS_MS[unit])


def judge(budget: Budget, measured: Mapping[str, Percentiles]) -> BudgetResult:
    """Hold a budget against what was measured, by stage. What too few samples show is not met."""
    found = measured.get(budget.stage)
    if found is None:
        return BudgetResult(budget, None, met=False, why="no check went through this stage")
    measured_ms = found.values_ms[budget.percentile]
    needed = samples_needed([budget.percentile])
    if measured_ms > budget.limit_ms:
        return BudgetResult(budget, measured_ms, met=False, why="over the limit")
    if found.samples < needed:
        return BudgetResult(budget, measured_ms, met=False, why=f"{found.samples} samples, which takes {needed}")
    return BudgetResult(budget, measured_ms, met=True)
