"""What one more worker costs in memory: 1, 2, 4 and 8 processes that open the same hash set and query it.

Run: ``python -m benchmarks.shared_memory [--rows 10000000] [--start spawn|fork] [--keep DIR] [--hashset DIR]
[--encrypt] [--preload]``.
Resident set size counts shared pages in full for every process, proportional set size (PSS) each one's part, so PSS
adds up. Each process is measured before it opens the hash set and once it has answered ``--queries`` queries. "one
more adds" is what the sum of PSS grows by for each process after the first, in all and without what Python itself and
its modules take. Workers are started on their own (``spawn``), or forked from a parent that has imported all modules,
as preforking servers do (``fork``; the parent's own PSS is then part of the sums). With ``--preload`` a forking parent
opens the hash set itself, and its workers take over what it opened. With ``--encrypt`` the hash set is encrypted, with
the key in the file beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from array import array
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import p50_p99, progress, show
from uploadguard.hashset import Generation, HashSet
from uploadguard.lists import ListEntry
from uploadguard.models import Hash
from uploadguard.storage.keys import Keys, read_key_file, write_key_file

KINDS = {"sha256": (32, 0), "pdq": (32, 31)}
MB = 1e6


def random_entries(rows: int, seed: int = 1) -> Iterator[ListEntry]:
    """Entries of a digest and a PDQ hash each."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 4096):
        data = rng.bytes(64 * min(4096, rows - start))
        for at in range(0, len(data), 64):
            hashes = (("sha256", data[at : at + 32]), ("pdq", data[at + 32 : at + 64]))
            yield ListEntry(str(start + at // 64), hashes)


def memory_mb() -> dict[str, float]:
    """This process's resident and proportional set size, and what it has to itself."""
    sizes: dict[str, float] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024 / MB
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "own": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def open_set(directory: Path) -> HashSet:
    """The hash set there, with the key in the file beside it, if there is one."""
    return HashSet.open(directory, keys=keys_for(directory))


def keys_for(directory: Path) -> Keys | None:
    """The key in the file beside the directory."""
    path = directory.with_suffix(".key")
    return Keys(read_key_file(path)) if path.exists() else None


def work(
    pipe: Connection, directory: Path, queries: int, seed: int, preloaded: Generation | None, verify: bool
) -> None:
    """One process: tells its memory each time it is asked, opens the hash set when it is told to, and queries it."""
    hash_set = open_set(directory)
    pipe.send(None)
    pipe.recv()
    pipe.send(memory_mb())
    pipe.recv()
    started = time.perf_counter()
    generation = preloaded if preloaded is not None else hash_set.load(verify=verify)
    open_ms = (time.perf_counter() - started) * 1e3
    times_us = array("d")
    found = listed = 0
    for seed_of, count in ((1, queries // 2), (seed + 2, queries - queries // 2)):
        for entry in random_entries(count, seed_of):
            listed += len(entry.hashes) if seed_of == 1 else 0
            for name, value in entry.hashes:
                begun = time.perf_counter()
                found += len(generation.match([Hash(name, value)], {"pdq": 31}))
                times_us.append((time.perf_counter() - begun) * 1e6)
    assert found == listed, f"{found} matches of {listed}"
    pipe.send({"open_ms": open_ms, "match_us": p50_p99(list(times_us))[0]})
    pipe.recv()
    pipe.send(memory_mb())
    pipe.recv()


def ask(pipes: list[Connection]) -> list[Any]:
    """Have all go on, and wait for what they say."""
    for pipe in pipes:
        pipe.send(None)
    return [pipe.recv() for pipe in pipes]


def measure(directory: Path, processes: int, queries: int, start: str, preload: bool, verify: bool) -> dict[str, Any]:
    """So many processes at once; memory is read when all have opened and queried."""
    progress.print(f"{processes} process(es)")
    context = multiprocessing.get_context(start)
    preloaded = open_set(directory).load(verify=verify) if preload else None
    pipes, workers = [], []
    for number in range(processes):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(theirs, directory, queries, number, preloaded, verify))
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()
    before = ask(pipes)
    parent_before_mb = memory_mb()["pss"] if start == "fork" else 0.0
    opened, after = ask(pipes), ask(pipes)
    parent_after_mb = memory_mb()["pss"] if start == "fork" else 0.0
    for pipe in pipes:
        pipe.send(None)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0

    def total(samples: list[dict[str, float]], key: str) -> float:
        return sum(sample[key] for sample in samples)

    return {
        "processes": processes,
        "open ms": float(np.median([item["open_ms"] for item in opened])),
        "match us": float(np.median([item["match_us"] for item in opened])),
        "RSS sum MB": total(after, "rss"),
        "PSS sum MB": total(after, "pss") + parent_after_mb,
        "PSS before opening MB": total(before, "pss") + parent_before_mb,
        "own, most MB": max(sample["own"] for sample in after),
    }


def with_differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds what each process after the first added."""
    first = rows[0]
    for row in rows:
        more = row["processes"] - first["processes"]
        grown = row["PSS sum MB"] - first["PSS sum MB"]
        python = row["PSS before opening MB"] - first["PSS before opening MB"]
        row["one more adds MB"] = grown / more if more else None
        row["without Python MB"] = (grown - python) / more if more else None
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--hashset", type=Path, help="a hash set as this program left it, to measure again")
    parser.add_argument("--keep", type=Path, help="build the hash set there and leave it")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--start", choices=["spawn", "fork"], default="spawn")
    parser.add_argument("--queries", type=int, default=8000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--encrypt", action="store_true", help="encrypt the hash set that is built")
    parser.add_argument("--preload", action="store_true", help="let the parent open it; with --start fork")
    parser.add_argument("--verify", action="store_true", help="verify it when it is opened")
    arguments = parser.parse_args()
    if arguments.preload and arguments.start != "fork":
        parser.error("--preload goes with --start fork")
    with tempfile.TemporaryDirectory() as temporary:
        directory: Path = arguments.hashset or arguments.keep or Path(temporary) / "hashset"
        if arguments.hashset is None:
            progress.print(f"importing {arguments.rows:,} entries")
            if arguments.encrypt:
                write_key_file(directory.with_suffix(".key"))
            hash_set = HashSet.create(directory, keys=keys_for(directory))
            hash_set.add_list("random", random_entries(arguments.rows), KINDS)
        entries = sum(info.entries for info in open_set(directory).lists())
        rows = with_differences(
            [
                measure(directory, count, arguments.queries, arguments.start, arguments.preload, arguments.verify)
                for count in arguments.processes
            ]
        )
        size_mb = sum(path.stat().st_size for path in directory.iterdir()) / MB
    show(f"{entries:,} entries of two hashes, {size_mb:,.0f} MB on disk", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
