"""Run any folders of files, mutants of good files, and bombs through a Guard, and say what came of it.

Run: ``python -m tests.faults.corpus [DIR...] [--mutants N] [--bombs] [--seed S] [--jsonl FILE]``.

For each file the verdict, reasons, time, restarts of workers and the host's memory; at the end a table, and exit
code 1 if anything happened that must not: an exception out of a check, a check that took longer than the deadline and
250 ms, an ``allow`` for a file of which no pixel was hashed, a descriptor, process or thread left over, or the host's
memory grown by more than 32 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.faults.bombs import BOMBS
from tests.faults.host import Host
from tests.faults.mutants import good_files, mutants
from uploadguard import Decision, Guard, Verdict
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist

GRACE_S = 0.25
EXPECTED_ENDS = frozenset({"idle", "recycled", "grown", "closed"})
MAX_GROWTH_BYTES = 32 << 20


@dataclass(frozen=True)
class Result:
    """What came of one file."""

    name: str
    size_bytes: int
    verdict: str
    reasons: tuple[str, ...]
    media_type: str | None
    ms: float
    restarts: int
    host_mb: float
    faults: tuple[str, ...]


def files_below(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Every regular file, in order of its path."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(folder.parent)), path.read_bytes()


def inputs(arguments: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """All that is asked for."""
    yield from files_below(arguments.folders)
    if arguments.mutants:
        yield from mutants(good_files(), arguments.mutants, arguments.seed)
    if arguments.bombs:
        yield from ((name, make()) for name, make in BOMBS.items())


def restarts(guard: Guard) -> int:
    """How many workers had to be replaced because of a file."""
    pool = guard.status().sandbox.pool
    return sum(count for reason, count in pool.ended.items() if reason not in EXPECTED_ENDS) if pool is not None else 0


def faults_of(decision: Decision, seconds: float, longest_s: float) -> list[str]:
    """What must not be."""
    faults = []
    if seconds > longest_s:
        faults.append("hang")
    pixels = [item for item in decision.hashes if item.quality is not None]
    if decision.verdict is Verdict.ALLOW and (decision.failures or not pixels):
        faults.append("undecodable and allowed")
    return faults


class Run:
    """Checks files, some at once, and keeps what came of them."""

    def __init__(self, guard: Guard, grace_s: float = GRACE_S) -> None:
        self.guard = guard
        self.longest_s = guard.settings.sandbox.deadline_s + grace_s
        self.host = Host()

    def check(self, name: str, data: bytes) -> Result:
        """One file."""
        before = restarts(self.guard)
        started = time.perf_counter()
        try:
            decision = self.guard.check(data)
        except Exception as error:  # noqa: BLE001 - nothing may come out of a check
            seconds = time.perf_counter() - started
            raised = (f"raised {type(error).__name__}: {error}",)
            return Result(name, len(data), "none", (), None, seconds * 1e3, 0, self.host.resident_mb(), raised)
        seconds = time.perf_counter() - started
        return Result(
            name,
            len(data),
            decision.verdict.label,
            decision.reasons,
            decision.media.media_type,
            seconds * 1e3,
            restarts(self.guard) - before,
            self.host.resident_mb(),
            tuple(faults_of(decision, seconds, self.longest_s)),
        )


class Summary:
    """What came of all files. Keeps numbers only: the host's memory is being measured."""

    def __init__(self, jsonl: Path | None) -> None:
        self._file = jsonl.open("w") if jsonl is not None else None
        self._ms = array("d")
        self._bytes = 0
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._faults: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, result: Result) -> None:
        """Count one file."""
        self._ms.append(result.ms)
        self._bytes += result.size_bytes
        self._verdicts[result.verdict] += 1
        self._reasons.update(result.reasons)
        self._faults += [f"{result.name}: {fault}" for fault in result.faults]
        if self._file is not None:
            self._file.write(json.dumps(asdict(result)) + "\n")

    def show(self, growth_mb: float, restarted: int, left_over: list[str]) -> int:
        """Print the table and the faults; 1 if there were any."""
        times = sorted(self._ms)
        print(f"{len(times):,} files, {self._bytes / 1e6:,.0f} MB")
        for verdict, count in self._verdicts.most_common():
            print(f"  {verdict:12} {count:8,}")
        print("reasons")
        for reason, count in self._reasons.most_common():
            print(f"  {reason:24} {count:8,}")
        p50, p99, longest = (percentile(times, share) for share in (0.5, 0.99, 1.0))
        print(f"ms: p50 {p50:.1f}, p99 {p99:.0f}, longest {longest:.0f}")
        print(f"worker restarts: {restarted}; host memory grew by {growth_mb:.1f} MB")
        faults = self._faults + [f"left over: {thing}" for thing in left_over]
        if growth_mb * 1e6 > MAX_GROWTH_BYTES:
            faults.append(f"host memory grew by {growth_mb:.1f} MB")
        for fault in faults[:50]:
            print(f"FAULT {fault}")
        print(f"{len(faults)} faults")
        return 1 if faults else 0


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bombs", action="store_true")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isolation", default="sandbox", choices=["sandbox", "process", "none"])
    parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds beyond the deadline that are no fault")
    parser.add_argument("--jsonl", type=Path, help="one line for each file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Summary(arguments.jsonl) as summary:
        hash_set = Path(directory) / "set"
        HashSet.create(hash_set).add_list("test", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
        before = Host()
        with Guard.open(hashset=hash_set, sandbox={"isolation": arguments.isolation}) as guard:
            run = Run(guard, arguments.grace)
            run.check("warm-up", next(iter(good_files().values())))
            grown_from = run.host.resident_mb()
            with ThreadPoolExecutor(arguments.threads) as pool:
                under_way: deque[Future[Result]] = deque()
                for number, (name, data) in enumerate(inputs(arguments)):
                    if arguments.limit and number >= arguments.limit:
                        break
                    under_way.append(pool.submit(run.check, name, data))
                    if len(under_way) > 4 * arguments.threads:
                        summary.add(under_way.popleft().result())
                    if sys.stderr.isatty() and number % 100 == 0:
                        print(f"\r{number:,} files", end="", file=sys.stderr, flush=True)
                while under_way:
                    summary.add(under_way.popleft().result())
            growth_mb = run.host.resident_mb() - grown_from
            restarted = restarts(guard)
        left_over = before.left_over()
    return summary.show(growth_mb, restarted, left_over)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
