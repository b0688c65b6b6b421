"""What a check takes while generations of the hash set come and go, beside the same without.

Run: ``python -m benchmarks.swap_under_load [--seconds 20] [--checkers 2] [--entries 100000] [--json]``.

Several processes check a listed picture and one of a list that comes and goes, in turn, the same three times:
undisturbed; while another process imports and removes that list in *another* hash set, which takes as much CPU and disk
but swaps nothing here; and while it does so in theirs. The last two tell what swapping costs. A check is bad if the
picture that is always listed is not found, or if two checks of one generation answer differently.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import p50_p99, progress, show
from uploadguard import Guard, Verdict
from uploadguard.hashing import hash_media
from uploadguard.hashset import HashSet
from uploadguard.lists import ListEntry
from uploadguard.testing import media

KINDS = {"md5": (16, 0), "sha256": (32, 0), "pdq": (32, 31)}
REFRESH_S = 0.05


def random_entries(rows: int, seed: int) -> Iterator[ListEntry]:
    """Entries that no picture matches."""
    rng = np.random.default_rng(seed)
    for number in range(rows):
        data = rng.bytes(80)
        yield ListEntry(str(number), (("md5", data[:16]), ("sha256", data[16:48]), ("pdq", data[48:])))


def picture(seed: int, size: tuple[int, int]) -> bytes:
    """A drawn JPEG."""
    return media.encode(media.make_photo(320, 240, seed).resize(size), quality=85)


def listed_entry(data: bytes) -> ListEntry:
    """An entry that this picture matches by its PDQ hash alone, so that it is decoded."""
    found = next(item for item in hash_media(data).hashes if item.signal_type == "pdq" and item.variant == "original")
    return ListEntry("listed", (("pdq", found.value),))


def check(pipe: Connection, directory: Path, listed: bytes, other: bytes) -> None:
    """One process: checks until it is told to stop, each time it is told to start; sends what it saw."""
    overrides = {"path": directory, "refresh_s": REFRESH_S}
    with Guard.open(hashset=overrides) as guard:
        for _ in range(10):
            guard.check(listed)
        pipe.send(None)
        while pipe.recv() == "start":
            times_ms: list[float] = []
            bad, answers = 0, set()
            while not pipe.poll():
                for data in (listed, other):
                    started = time.perf_counter()
                    decision = guard.check(data)
                    times_ms.append((time.perf_counter() - started) * 1e3)
                    found = decision.verdict is Verdict.QUEUE and len(decision.matches) == 1
                    if data is other:
                        answers.add((decision.generation, found))
                    elif not found:
                        bad += 1
            pipe.recv()
            pipe.send((times_ms, bad, answers))


def change(pipe: Connection, rows: int, other: bytes) -> None:
    """One process: adds and removes a list in a hash set until it is told to stop; sends how often."""
    pipe.send(None)
    while (directory := pipe.recv()) is not None:
        hash_set = HashSet.open(directory)
        changes = 0
        while not pipe.poll():
            entries = itertools.chain([listed_entry(other)], random_entries(rows, changes))
            hash_set.add_list("changing", entries, KINDS)
            hash_set.remove_list("changing")
            changes += 2
        pipe.recv()
        pipe.send(changes)


def measure(arguments: argparse.Namespace, temporary: Path) -> list[dict[str, Any]]:
    """The three phases."""
    listed, other = picture(1, (1152, 864)), picture(2, (1152, 864))
    ours, theirs = temporary / "ours", temporary / "theirs"
    for directory in (ours, theirs):
        hash_set = HashSet.create(directory)
        hash_set.add_list("large", random_entries(arguments.entries, 7), KINDS)
        hash_set.add_list("one", [listed_entry(listed)], KINDS)
    context = multiprocessing.get_context("spawn")
    jobs = [(check, (ours, listed, other))] * arguments.checkers + [(change, (arguments.changed, other))]
    pipes = []
    for target, values in jobs:
        pipe, their_end = context.Pipe()
        context.Process(target=target, args=(their_end, *values), daemon=True).start()
        their_end.close()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    *checkers, changer = pipes
    rows = []
    phases = (("undisturbed", None), ("another hash set changes", theirs), ("this hash set changes", ours))
    for name, directory in phases:
        progress.print(name)
        for pipe in checkers:
            pipe.send("start")
        if directory is not None:
            changer.send(directory)
        time.sleep(arguments.seconds)
        for pipe in (*checkers, *([changer] if directory is not None else [])):
            pipe.send("stop")
        results = [pipe.recv() for pipe in checkers]
        changes = changer.recv() if directory is not None else 0
        times_ms = [ms for mine, _, _ in results for ms in mine]
        p50_ms, p99_ms = p50_p99(times_ms)
        answers = set().union(*(seen for _, _, seen in results))
        rows.append({
            "phase": name,
            "checks": len(times_ms),
            "bad checks": sum(bad for _, bad, _ in results) + len(answers) - len({number for number, _ in answers}),
            "changes": changes,
            "generations seen by one": max(len(seen) for _, _, seen in results),
            "p50 ms": p50_ms,
            "p99 ms": p99_ms,
            "most ms": max(times_ms),
        })  # fmt: skip
    for pipe in checkers:
        pipe.send("end")
    changer.send(None)
    return rows


def main() -> int:
    """Measure and print; 1 if a check was bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--checkers", type=int, default=2, help="processes that check")
    parser.add_argument("--entries", type=int, default=100_000, help="of the list that stays")
    parser.add_argument("--changed", type=int, default=1000, help="entries of the list that comes and goes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(arguments, Path(temporary))
    show(f"{arguments.checkers} processes check pictures of 1 megapixel", rows, as_json=arguments.json)
    return 1 if any(row["bad checks"] for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
