"""Pictures of a distribution: as bars of text, and as a PNG where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uploadguard.bench.budgets import BudgetResult
from uploadguard.errors import UploadguardError

__all__ = ["Bin", "histogram", "require_matplotlib", "write_plot"]


class Bin(NamedTuple):
    """Checks above ``low_ms`` and up to ``high_ms``; ``share`` is the fraction of all checks up to ``high_ms``."""

    low_ms: float
    high_ms: float
    checks: int
    share: float


def histogram(times_ms: Sequence[float], bins: int = 14) -> list[Bin]:
    """Bins that grow by the same factor each, from the shortest time to the longest; one where all are equal."""
    low, high = min(times_ms), max(times_ms)
    if low <= 0 or low == high:
        return [Bin(low, high, len(times_ms), 1.0)]
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    counts = np.bincount(np.searchsorted(edges[1:-1], times_ms, side="left"), minlength=bins)
    shares = np.cumsum(counts) / len(times_ms)
    return [Bin(float(edges[i]), float(edges[i + 1]), int(counts[i]), float(shares[i])) for i in range(bins)]


def require_matplotlib() -> None:
    """Raise :class:`UploadguardError`, saying what to install, if a plot cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UploadguardError("a plot as PNG needs matplotlib: pip install 'uploadguard[bench]'")


def write_plot(path: Path, times_ms: Mapping[str, Sequence[float]], budgets: Sequence[BudgetResult] = ()) -> None:
    """Draw what fraction of checks were done within what time, a line for each stage, as a PNG.

    Budgets are marked: a dot where one is met, a cross where it is missed. Raises :class:`UploadguardError` without
    matplotlib, and ``OSError``.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours: dict[str, Any] = {}
    for stage, times in times_ms.items():
        fractions = np.arange(1, len(times) + 1) / len(times) * 100
        (line,) = axes.step(np.sort(times), fractions, where="post", label=stage, lw=2.5 if stage == "total" else 1.2)
        colours[stage] = line.get_color()
    for result in budgets:
        budget = result.budget
        axes.plot(
            [budget.limit_ms], [float(budget.percentile)], "o" if result.met else "X", markersize=9,
            color=colours.get(budget.stage, "black"), label=f"{budget.text} {'met' if result.met else 'missed'}",
        )  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds", ylabel="% of checks", ylim=(0, 103), title="Time of a check by stage")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=120)
