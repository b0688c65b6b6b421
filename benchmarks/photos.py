"""The goal's own measure, over a folder of photos: the whole check beside python-threatexchange's path and the floor.

Run: ``python -m benchmarks.photos DIR [--min-mp 8] [--max-mp 16] [--json]``. For each photo, the median of several
runs, interleaved, of: python-threatexchange's ``pdq_from_bytes``; ``Guard.check`` (three digests, PDQ in eight forms,
look-up, decision); and decoding the same bytes to luma at 1/8, the floor that entropy decoding sets.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from threatexchange.signal_type.pdq.pdq_hasher import pdq_from_bytes

from benchmarks.pictures import photo_files
from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist


def _floor(data: bytes) -> None:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft("L", (image.width // 8, image.height // 8))
    image.load()


def _time_ms(function: Callable[[bytes], object], data: bytes) -> float:
    started = time.perf_counter()
    function(data)
    return (time.perf_counter() - started) * 1e3


def measure(guard: Guard, data: bytes, runs: int) -> dict[str, float]:
    """Medians in milliseconds, and the two ratios."""
    _floor(data)
    guard.check(data)
    floors, checks = [], []
    for _ in range(runs):
        floors.append(_time_ms(_floor, data))
        checks.append(_time_ms(guard.check, data))
    peer = statistics.median(_time_ms(pdq_from_bytes, data) for _ in range(2))
    check, floor = statistics.median(checks), statistics.median(floors)
    return {"check_ms": check, "peer_ms": peer, "floor_ms": floor, "speedup": peer / check, "over_floor": check / floor}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--min-mp", type=float, default=8.0)
    parser.add_argument("--max-mp", type=float, default=16.0)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    chosen: list[tuple[Path, float]] = []
    for path in photo_files(arguments.folder):
        with Image.open(path) as image:
            megapixels = image.width * image.height / 1e6
        if arguments.min_mp <= megapixels <= arguments.max_mp:
            chosen.append((path, megapixels))
    if not chosen:
        print(f"no JPEG of {arguments.min_mp} to {arguments.max_mp} megapixels in {arguments.folder}", file=sys.stderr)
        return 1

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        hashset = HashSet.create(Path(directory) / "hashset")
        hashset.add_list(testlist.TEST_LIST_NAME, testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
        with Guard.open(hashset=Path(directory) / "hashset") as guard:
            for path, megapixels in track(chosen, description="photos", console=Console(stderr=True)):
                data = path.read_bytes()
                rows.append({"file": path.name, "megapixels": megapixels, **measure(guard, data, arguments.runs)})

    summary = {
        "photos": len(rows),
        "speedup_median": statistics.median(row["speedup"] for row in rows),
        "speedup_min": min(row["speedup"] for row in rows),
        "over_floor_median": statistics.median(row["over_floor"] for row in rows),
        "over_floor_max": max(row["over_floor"] for row in rows),
    }
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
        print(json.dumps(summary))
        return 0
    table = Table("photo", "MP", "threatexchange ms", "check ms", "floor ms", "times faster", "of the floor")
    for row in rows:
        table.add_row(
            row["file"], f"{row['megapixels']:.1f}", f"{row['peer_ms']:.0f}", f"{row['check_ms']:.1f}",
            f"{row['floor_ms']:.1f}", f"{row['speedup']:.1f}", f"{row['over_floor']:.2f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        f"{summary['photos']} photos: {summary['speedup_median']:.1f} times faster at the median, "
        f"{summary['speedup_min']:.1f} at the least; {summary['over_floor_median']:.2f} times the floor at the median, "
        f"{summary['over_floor_max']:.2f} at the most"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
