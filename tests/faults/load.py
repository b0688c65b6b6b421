"""Saturate a Guard: so many uploads at once for so long, a part of them hostile; every one must be answered in time.

Run: ``python -m tests.faults.load [--seconds 60] [--uploads 64] [--hostile 0.1] [--way acheck|check] [--json]``.

Exit code 1 if a check raised, took longer than the deadline and 250 ms, or let a file through of which no pixel was
hashed. Hostile files are mutants and bombs; the others are pictures of 1 and 3 megapixels.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFilter

from tests.faults.bombs import BOMBS
from tests.faults.corpus import GRACE_S, faults_of, percentile, restarts
from tests.faults.host import Host
from tests.faults.mutants import good_files, mutants
from uploadguard import Decision, FailureCode, Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist
from uploadguard.testing.picture import unrelated_picture

LARGE_BOMBS = ("png of 178 megapixels", "gif of 10,000 frames", "jpeg of 2,000 scans", "png with 500 MB of text")


def pictures() -> list[bytes]:
    """Sound JPEGs with some noise, so that they take as long as photos."""
    found = []
    for width, height in ((1200, 900), (2048, 1536)):
        noise = Image.effect_noise((width, height), 60).filter(ImageFilter.GaussianBlur(1)).convert("RGB")
        with Image.open(io.BytesIO(unrelated_picture())) as drawn:
            image = Image.blend(drawn.convert("RGB").resize((width, height)), noise, 0.2)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88)
        found.append(file.getvalue())
    return found


class Load:
    """What is uploaded, and what came of it."""

    def __init__(self, guard: Guard, hostile: float, seed: int) -> None:
        self.guard = guard
        self.longest_s = guard.settings.sandbox.deadline_s + GRACE_S
        self.hostile = hostile
        self.chance = random.Random(seed)
        self.good = pictures()
        self.bad = self._endless_mutants(seed)
        self.bombs = [BOMBS[name]() for name in LARGE_BOMBS]
        self.lock = threading.Lock()
        self.ms: dict[str, list[float]] = {"sound": [], "hostile": []}
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.details: Counter[str] = Counter()
        self.bytes = 0

    @staticmethod
    def _endless_mutants(seed: int) -> Iterator[bytes]:
        files = good_files(256)
        while True:
            yield from (data for _, data in mutants(files, 10_000, seed))
            seed += 1

    def next(self) -> tuple[str, bytes]:
        """The next upload and its kind."""
        with self.lock:
            if self.chance.random() >= self.hostile:
                return "sound", self.chance.choice(self.good)
            if self.chance.random() < 0.1:
                return "hostile", self.chance.choice(self.bombs)
            return "hostile", next(self.bad)

    def book(self, kind: str, data: bytes, started: float, outcome: Decision | Exception) -> None:
        """One answer."""
        seconds = time.perf_counter() - started
        with self.lock:
            self.ms[kind].append(seconds * 1e3)
            self.bytes += len(data)
            if isinstance(outcome, Exception):
                self.faults[f"raised {type(outcome).__name__}: {outcome}"] += 1
                return
            self.verdicts[f"{kind}: {outcome.verdict.label}"] += 1
            self.reasons.update(outcome.reasons)
            self.details.update(f.detail for f in outcome.failures if f.code is FailureCode.PLUGIN_FAILED)
            self.faults.update(faults_of(outcome, seconds, self.longest_s))

    def upload_until(self, ends: float) -> None:
        """One uploader on a thread."""
        while time.perf_counter() < ends:
            kind, data = self.next()
            started = time.perf_counter()
            try:
                outcome: Decision | Exception = self.guard.check(data)
            except Exception as error:  # noqa: BLE001 - counted
                outcome = error
            self.book(kind, data, started, outcome)

    async def aupload_until(self, ends: float) -> None:
        """One uploader on the event loop."""
        while time.perf_counter() < ends:
            kind, data = self.next()
            started = time.perf_counter()
            try:
                outcome: Decision | Exception = await self.guard.acheck(data)
            except Exception as error:  # noqa: BLE001 - counted
                outcome = error
            self.book(kind, data, started, outcome)

    def run(self, way: str, uploads: int, seconds: float) -> float:
        """All uploaders at once; returns how long it took."""
        started = time.perf_counter()
        ends = started + seconds
        if way == "acheck":

            async def all_of_them() -> None:
                await asyncio.gather(*(self.aupload_until(ends) for _ in range(uploads)))

            asyncio.run(all_of_them())
        else:
            threads = [threading.Thread(target=self.upload_until, args=(ends,)) for _ in range(uploads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return time.perf_counter() - started


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--uploads", type=int, default=64)
    parser.add_argument("--hostile", type=float, default=0.1)
    parser.add_argument("--way", choices=["acheck", "check"], default="acheck")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    before = Host()
    with tempfile.TemporaryDirectory() as directory:
        hash_set = Path(directory) / "set"
        HashSet.create(hash_set).add_list("test", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
        with Guard.open(hashset=hash_set) as guard:
            load = Load(guard, arguments.hostile, arguments.seed)
            guard.check(load.good[0])
            resident_mb = Host.resident_mb()
            seconds = load.run(arguments.way, arguments.uploads, arguments.seconds)
            growth_mb = Host.resident_mb() - resident_mb
            restarted = restarts(guard)
    faults = {**load.faults, **{f"left over: {thing}": 1 for thing in before.left_over()}}
    checks = sum(map(len, load.ms.values()))
    table = {
        "uploads at once": arguments.uploads,
        "checks": checks,
        "checks a second": round(checks / seconds, 1),
        "MB a second": round(load.bytes / seconds / 1e6, 1),
        **{
            f"{kind}, {name} ms": round(percentile(load.ms[kind], share), 1)
            for kind in load.ms
            for name, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0))
        },
        **dict(sorted(load.verdicts.items())),
        "reasons": dict(load.reasons.most_common()),
        "parts that failed": dict(load.details),
        "worker restarts": restarted,
        "host memory grew by, MB": round(growth_mb, 1),
        "faults": faults,
    }
    if arguments.json:
        print(json.dumps(table))
    else:
        print("\n".join(f"{name:32} {value}" for name, value in table.items()))
        print(f"(every answer within {load.longest_s:g} s: {'yes' if 'hang' not in faults else 'no'})")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
