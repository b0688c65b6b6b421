"""The whole measurement: stages one check after the other, then all workers at once, then the budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from uploadguard.bench.budgets import LOADED, Budget, BudgetResult, judge
from uploadguard.bench.deployment import Deployment
from uploadguard.bench.latency import Latencies, measure_latencies
from uploadguard.bench.machine import describe_machine
from uploadguard.bench.pictures import draw_pictures, find_pictures
from uploadguard.bench.statistics import PERCENTILES, Percentiles, percentile_name, samples_needed
from uploadguard.bench.throughput import Throughput, available_cpus, measure_throughput
from uploadguard.guard import Guard

__all__ = ["BenchRun", "Show", "run_bench"]

_LOADED_S = 5.0

Show = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class BenchRun:
    """All that was measured. ``percentiles`` are those told; ``stages`` has them by stage."""

    machine: Mapping[str, Any]
    entries: int
    generation: int
    made_up: bool
    drawn: bool
    latencies: Latencies
    stages: Mapping[str, Percentiles]
    throughput: Throughput
    percentiles: Sequence[Fraction]
    budgets: Sequence[BudgetResult]
    warnings: Sequence[str]

    @property
    def missed(self) -> list[BudgetResult]:
        """The budgets that are not met."""
        return [result for result in self.budgets if not result.met]

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without any file's name."""
        latencies = self.latencies
        return {
            "machine": dict(self.machine),
            "hashset": {"entries": self.entries, "generation": self.generation, "made_up": self.made_up},
            "pictures": {
                "drawn": self.drawn,
                "files": len(latencies.pictures),
                "unreadable": len(latencies.unreadable),
                "verdicts": dict(latencies.verdicts),
            },
            "samples": latencies.samples,
            "elapsed_s": round(latencies.elapsed_s, 3),
            "stages": {stage: found.to_dict() for stage, found in self.stages.items()},
            "loaded": self.throughput.to_dict(self.percentiles),
            "budgets": [result.to_dict() for result in self.budgets],
            "warnings": list(self.warnings),
        }


def run_bench(
    deployment: Deployment,
    paths: Sequence[Path],
    directory: Path,
    *,
    budgets: Sequence[Budget] = (),
    max_s: float = 60.0,
    workers: int | None = None,
    show: Show = lambda _what, _done, _of: None,
) -> BenchRun:
    """Measure checks of the pictures in ``paths``; where there are none, of some drawn into ``directory``.

    Goes on until the samples tell the highest percentile asked for and each picture had its turn, for ``max_s`` at
    most; then lets ``workers`` processes (by default one for each CPU) check at once.

    The deployment's hash set is there. Raises all that opening a Guard and checking raise.
    """
    machine = describe_machine()
    percentiles = sorted({*PERCENTILES, *(budget.percentile for budget in budgets)})
    needed = samples_needed(percentiles)
    with Guard(deployment.settings(), record=False) as guard:
        found = find_pictures(paths) if paths else draw_pictures(directory, lambda n: show("drawing pictures", n, 3))
        wanted = max(needed, len(found))
        latencies = measure_latencies(
            guard, found, samples=needed, max_s=max_s, progress=lambda n: show("checking", n, wanted)
        )
        status = guard.status()
    loaded_s = min(_LOADED_S, max_s)
    throughput = measure_throughput(
        deployment,
        list(latencies.pictures),
        workers=workers or available_cpus(),
        duration_s=loaded_s,
        progress=lambda passed_s: show("checking with all workers", passed_s, loaded_s),
    )
    stages = latencies.percentiles(percentiles)
    everything = {**stages, LOADED: throughput.percentiles(percentiles)}
    return BenchRun(
        machine=machine,
        entries=status.entries,
        generation=status.generation,
        made_up=deployment.made_up_entries > 0,
        drawn=not paths,
        latencies=latencies,
        stages=stages,
        throughput=throughput,
        percentiles=percentiles,
        budgets=[judge(budget, everything) for budget in budgets],
        warnings=_warnings(latencies, wanted, percentile_name(max(percentiles))),
    )


def _warnings(latencies: Latencies, wanted: int, highest: str) -> list[str]:
    warnings = []
    if latencies.samples < wanted:
        warnings.append(
            f"the time was up after {latencies.samples} of {wanted} samples, which {highest} and a turn for each "
            "picture take; allow more --seconds"
        )
    if latencies.unreadable:
        warnings.append(f"{len(latencies.unreadable)} file(s) could not be read; --verbose names them")
    return warnings
