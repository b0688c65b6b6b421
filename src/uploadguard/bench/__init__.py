"""Measures checks on this machine: its own pictures, its own configuration, its own hash set, against budgets.
The command line's ``bench`` prints what this finds.
"""

from uploadguard.bench.budgets import Budget, BudgetResult, parse_budget
from uploadguard.bench.deployment import Deployment
from uploadguard.bench.plot import require_matplotlib, write_plot
from uploadguard.bench.run import BenchRun, run_bench

__all__ = [
    "BenchRun",
    "Budget",
    "BudgetResult",
    "Deployment",
    "parse_budget",
    "require_matplotlib",
    "run_bench",
    "write_plot",
]
