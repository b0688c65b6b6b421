"""What the benchmarks that print tables share: percentiles of single calls, memory of a process, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

progress = Console(stderr=True)
"""Where to say what is being done: results alone go to standard output."""


def timed_us(call: Callable[[Any], object], arguments: Iterable[Any]) -> list[float]:
    """Microseconds of each call."""
    times_us = []
    for argument in arguments:
        started = time.perf_counter_ns()
        call(argument)
        times_us.append((time.perf_counter_ns() - started) / 1e3)
    return times_us


def p50_p99(times: Sequence[float]) -> tuple[float, float]:
    """The median and p99."""
    low, high = np.percentile(times, [50, 99], method="inverted_cdf").tolist()
    return low, high


def resident_bytes() -> int:
    """What of this process is in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_name() -> str:
    """The CPU as Linux calls it, and how many there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}"


def show(title: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows with the same keys: as a table, or as one JSON object a line."""
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, value in rows[0].items():
        table.add_column(heading, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(f"{title}\n{cpu_name()}", table)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
