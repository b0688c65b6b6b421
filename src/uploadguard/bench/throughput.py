"""Checks a second, and what one takes while all workers are busy.

The workers are processes, as a host's are: each opens the configuration for itself and maps the same hash set, and no
interpreter lock stands between them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from uploadguard.bench.deployment import Deployment
from uploadguard.bench.latency import shuffled, warm_up
from uploadguard.bench.statistics import Percentiles
from uploadguard.errors import MediaReadError, UploadguardError
from uploadguard.guard import Guard

__all__ = ["Throughput", "available_cpus", "measure_throughput"]

_START_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Throughput:
    """How much the workers did: a check's milliseconds as each worker saw them, and checks a second together."""

    workers: int
    cpus: int
    elapsed_s: float
    times_ms: tuple[float, ...]
    checks_per_s: float

    @property
    def checks_per_s_per_core(self) -> float:
        """Checks a second over the CPUs that could be in use."""
        return self.checks_per_s / min(self.workers, self.cpus)

    def percentiles(self, percentiles: Iterable[Fraction]) -> Percentiles:
        """Of one check's time while all workers are busy."""
        return Percentiles.of(self.times_ms, percentiles)

    def to_dict(self, percentiles: Iterable[Fraction]) -> dict[str, Any]:
        """JSON types."""
        return {
            "workers": self.workers,
            "kind": "processes",
            "elapsed_s": round(self.elapsed_s, 3),
            "checks_per_s": round(self.checks_per_s, 2),
            "checks_per_s_per_core": round(self.checks_per_s_per_core, 2),
            **self.percentiles(percentiles).to_dict(),
        }


def available_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_throughput(
    deployment: Deployment,
    paths: Sequence[Path],
    *,
    workers: int,
    duration_s: float,
    progress: Callable[[float], None] = lambda _: None,
) -> Throughput:
    """Check pictures in ``workers`` processes at once for ``duration_s``, after a warm-up of each.

    ``paths`` can be read. ``progress`` is told the seconds that have passed. Raises :class:`UploadguardError` if a
    worker ends early.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, deployment, shuffled(paths, number), duration_s))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, _START_S)
        started = time.monotonic()
        for pipe in pipes:
            pipe.send(None)
        while (passed_s := time.monotonic() - started) < duration_s:
            progress(passed_s)
            time.sleep(min(_POLL_S, duration_s - passed_s))
        progress(duration_s)
        results = [_receive(pipe, _START_S) for pipe in pipes]
    finally:
        for pipe in pipes:
            pipe.close()
        for started_process in processes:
            started_process.terminate()
            started_process.join()
    times_ms = tuple(ms for elapsed_s, mine in results for ms in mine)
    elapsed_s = max(elapsed_s for elapsed_s, _ in results)
    per_s = sum(len(mine) / mine_s for mine_s, mine in results)
    return Throughput(workers, available_cpus(), elapsed_s, times_ms, per_s)


def _receive(pipe: Connection, timeout_s: float) -> Any:
    try:
        if pipe.poll(timeout_s):
            return pipe.recv()
    except (EOFError, OSError):
        raise UploadguardError("a worker of the throughput measurement ended early") from None
    raise UploadguardError(f"a worker of the throughput measurement did not answer for {timeout_s:.0f} s")


def _work(pipe: Connection, deployment: Deployment, paths: Sequence[Path], duration_s: float) -> None:
    """One worker: warms up, says so, waits for the start, and sends its seconds and each check's milliseconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    with Guard(deployment.settings(), record=False) as guard, contextlib.suppress(EOFError, BrokenPipeError):
        warm_up(guard, paths)
        pipe.send(None)
        pipe.recv()
        times_ms: list[float] = []
        started = last = time.perf_counter()
        for path in cycle(paths):
            with contextlib.suppress(MediaReadError):  # it was there a moment ago
                guard.check(path)
            now = time.perf_counter()
            times_ms.append((now - last) * 1e3)
            last = now
            if now - started >= duration_s:
                break
        pipe.send((last - started, times_ms))
