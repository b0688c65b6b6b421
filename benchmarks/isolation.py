"""What decoding in a sandboxed worker process adds to a check: one after the other, side by side in one run.

``python -m benchmarks.isolation [FILE...]``: for each file (a drawn JPEG of 3 MB without any) the checks with
``sandbox.isolation`` none, process and sandbox take turns; then how long a worker takes to start.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.lists import ListEntry
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq

LEVELS = ("none", "process", "sandbox")
_BYTES = 3_000_000


def drawn_jpeg(size_bytes: int = _BYTES) -> bytes:
    """A picture of 12 MP with as much grain as makes its JPEG that large."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:3000, :4000] / 400
    smooth = np.stack([np.sin(x + y), np.cos(x * y / 3), np.sin(y - x / 2)], -1) * 80 + 128
    grain = rng.normal(size=(3000, 4000, 1))
    best = b""
    for strength in range(1, 40):
        out = io.BytesIO()
        pixels = (smooth + strength * grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out, "JPEG", quality=85)
        best = out.getvalue()
        if len(best) >= size_bytes:
            break
    return best


def measure(guards: dict[str, Guard], data: bytes, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each check, by level; the levels take turns."""
    times: dict[str, list[float]] = {level: [] for level in guards}
    for number in range(rounds + 5):
        for level, guard in guards.items():
            started = time.perf_counter()
            decision = guard.check(data)
            elapsed_ms = (time.perf_counter() - started) * 1e3
            assert decision.allowed, decision.failures
            if number >= 5:
                times[level].append(elapsed_ms)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    uploads = {path.name: path.read_bytes() for path in arguments.files} or {"drawn": drawn_jpeg()}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        hashset = HashSet.create(Path(directory, "hashset"))
        hashset.add_list("one", [ListEntry("one", (("md5", bytes(range(16))),))], lookup_kinds((*DIGESTS, Pdq())))
        guards = {
            level: stack.enter_context(
                Guard.open(hashset=Path(directory, "hashset"), sandbox={"isolation": level, "deadline_s": 60.0})
            )
            for level in LEVELS
        }
        for level in ("process", "sandbox"):
            started = time.perf_counter()
            guards[level].prewarm()
            print(f"a worker of level {level} is ready after {(time.perf_counter() - started) * 1e3:.0f} ms")
        for name, data in uploads.items():
            times = measure(guards, data, arguments.rounds)
            print(f"{name}, {len(data):,} bytes, {arguments.rounds} checks of each level:")
            middle = statistics.median(times["none"])
            for level, found in times.items():
                cuts = statistics.quantiles(found, n=20)
                print(
                    f"  {level:8} p50 {statistics.median(found):7.2f} ms  p95 {cuts[-1]:7.2f} ms  "
                    f"{statistics.median(found) - middle:+.2f} ms at p50"
                )


if __name__ == "__main__":
    main()
