"""A large list's import, trial, delta, compaction and opening: ``python -m tests.hashset.soak_import 10000000``.

Tells time and memory. Each step runs in a process of its own; its anonymous memory is what counts, since mapped files
are shared and can be dropped. Needs about 400 bytes of disk an entry.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from tests.hashset import children
from uploadguard.config import Settings
from uploadguard.hashset import HashSet, columns, compaction, merge, runs, tables, tombstones
from uploadguard.lists.base import ListEntry
from uploadguard.lists.samples import benign_corpus
from uploadguard.plugins import Plugins
from uploadguard.trial import Corpus, ListTrial

KINDS = {"md5": (16, 0), "pdq": (32, 31)}


def listed(count: int) -> Iterator[ListEntry]:
    """Entries with an MD5 and a PDQ hash each, made on the fly."""
    random_bytes = random.Random(1).randbytes
    for number in range(count):
        yield ListEntry(f"id-{number}", (("md5", random_bytes(16)), ("pdq", random_bytes(32))))


def add(directory: Path, count: int) -> str:
    """Import the list."""
    info = HashSet.create(directory).add_list("a", listed(count), KINDS)
    return f"{info.entries:,} entries"


def delta(directory: Path, count: int) -> str:
    """Remove 500 entries and replace 500."""
    removed = [f"id-{number}" for number in range(0, count, count // 500)]
    added = [ListEntry(f"id-{number}", (("md5", bytes(16)),)) for number in range(1, count, count // 500)]
    update = HashSet.open(directory).update_list("a", added, removed, KINDS)
    return f"{update.removed:,} entries out, {update.added:,} in"


def compact(directory: Path, count: int) -> str:
    """Merge all into one."""
    done = HashSet.open(directory).compact()
    return f"{done.before_bytes / count:.0f} to {done.after_bytes / count:.0f} bytes an entry"


def load(directory: Path, _: int) -> str:
    """Open it without reading it."""
    generation = HashSet.open(directory).load(verify=False)
    return f"{generation.entries_total:,} entries"


def anonymous_mb() -> float:
    """The anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def trial(directory: Path, _: int) -> str:
    """Try it on the benign corpus."""
    plugins = Plugins(Settings())
    done = ListTrial(plugins.settings, plugins).run(
        HashSet.open(directory).load(verify=False), Corpus("benign", benign_corpus)
    )
    return f"{len(done.matched)} of {done.items:,} pictures match"


def peak_mb_of(step: Callable[[Path, int], str], directory: Path, count: int) -> tuple[float, str]:
    """Do a step: how much more anonymous memory it took at most, and what it says."""
    before_mb = peak_mb = anonymous_mb()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak_mb
        while not ended.wait(0.01):
            peak_mb = max(peak_mb, anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = step(directory, count)
    finally:
        ended.set()
        watcher.join()
    return max(peak_mb, anonymous_mb()) - before_mb, result


def measured(pipe: Connection, step: Callable[[Path, int], str], directory: Path, count: int) -> None:
    """Do a step and send what it took."""
    started = time.monotonic()
    peak_mb, result = peak_mb_of(step, directory, count)
    elapsed_s = time.monotonic() - started
    pipe.send(f"{step.__name__}: {elapsed_s:.3f} s, {peak_mb:.0f} MB more at most; {result}")


def update_all(directory: Path, count: int) -> str:
    """Replace every entry, and say so twice."""
    update = HashSet.open(directory).update_list("a", itertools.chain(listed(count), listed(count)), (), KINDS)
    return f"{update.removed:,} entries out, {update.added:,} in"


def measured_in_parts(pipe: Connection, directory: Path, count: int) -> None:
    """Import, update and compact with smaller parts, so that little data shows what grows; sends each one's peak."""
    tables._BLOCK_LINES, tables._WINDOW_WORDS, tables._KEYS_AT_ONCE = 1 << 10, 1 << 14, 1 << 14
    runs._SORTING_BYTES = 1 << 21
    for module in (columns, merge, tombstones):
        module.CHUNK_ENTRIES = 1 << 13  # type: ignore[attr-defined]
    compaction._DUE_DEAD = 2.0  # it would be compacted beside the update
    pipe.send([peak_mb_of(step, directory, count) for step in (add, update_all, compact)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as parent:
        for todo in (add, load, trial, delta, load, compact, load):
            process, receiver = children.start(measured, todo, Path(parent) / "set", int(sys.argv[1]))
            print(receiver.recv(), flush=True)
            process.join()
