"""Processes that check while the hash set changes: ``python -m tests.hashset.soak_load 100 1000``.

Each change puts a new version of two entries in, one that the upload's MD5 matches and one that its PDQ does; the list
"b" follows the list "a". A check that lacks one of them has failed; one with two versions of one list, or with lists
further apart than a single change, is mixed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.hashset import children
from tests.hashset.made_up import TYPES, entries
from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.testing.picture import picture_bytes
from uploadguard.testing.testlist import TEST_HASHES

KINDS = {**TYPES, "sha1": (20, 0)}


@dataclass
class Seen:
    """What one process saw: checks, how long they took, and when each version of the list "a" came first."""

    failed: int = 0
    mixed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    first_seen_s: dict[int, float] = field(default_factory=dict)


def check_until_told(pipe: Connection, directory: Path, refresh_s: float) -> None:
    """Check the test picture; sends a :class:`Seen`."""
    upload = picture_bytes()
    seen = Seen()
    policy = {"signals": {"md5": {"verdict": "queue"}}}  # a block would end the check before the picture is hashed
    with Guard.open(hashset={"path": directory, "refresh_s": refresh_s}, policy=policy) as guard:
        pipe.send("ready")
        while not pipe.poll():
            started = time.perf_counter()
            try:
                decision = guard.check(upload)
            except Exception:  # noqa: BLE001 - counted, and the run fails
                seen.failed += 1
                continue
            seen.latencies_ms.append(1000 * (time.perf_counter() - started))
            versions: dict[str, list[int]] = {"a": [], "b": []}
            for match in decision.matches:
                versions[match.list_name].append(int(match.fields["version"]))
            newest = max(versions["a"], default=0)
            if sorted({(match.list_name, match.signal_type) for match in decision.matches}) != WANTED:
                seen.failed += 1
            elif versions not in ({"a": [newest] * 2, "b": [other] * 2} for other in (newest - 1, newest)):
                seen.mixed += 1
            else:
                seen.first_seen_s.setdefault(versions["a"][0], time.time())
    pipe.send(seen)


def new_version(version: int) -> list[ListEntry]:
    """The two entries that match the picture."""
    return [ListEntry(name, ((name, TEST_HASHES[name]),), fields={"version": version}) for name in ("md5", "pdq")]


def change(hash_set: HashSet, version: int, *, swap: bool, base: int) -> float:
    """Put a version in force in both lists; gives when that of the list "a" was."""
    in_force_s = 0.0
    for name in ("a", "b"):
        listed = new_version(version)
        if swap:
            hash_set.add_list(name, [*entries(base, name), *listed], KINDS, replace=version > 0)
        else:
            hash_set.update_list(name, listed, [f"id-{name}{version % base}"], KINDS)
        in_force_s = in_force_s or time.time()
    return in_force_s


def run(
    directory: Path, *, swaps: int, deltas: int, processes: int, refresh_s: float, base: int, pause_s: float = 0.0
) -> str:
    """Change the lists while ``processes`` check. Fails if a check did; gives the figures in a line each."""
    hash_set = HashSet.create(directory)
    change(hash_set, 0, swap=True, base=base)
    running = [children.start(check_until_told, directory, refresh_s) for _ in range(processes)]
    for _, pipe in running:
        assert pipe.recv() == "ready"
    started = time.monotonic()
    in_force_s: dict[int, float] = {}
    changes = (swaps + deltas) // 2  # each is of both lists
    for version in range(1, changes + 1):
        in_force_s[version] = change(hash_set, version, swap=version % (changes * 2 // swaps) == 0, base=base)
        time.sleep(pause_s)
    elapsed_s = time.monotonic() - started
    time.sleep(refresh_s + 0.3)
    lags_s: list[float] = []
    latencies_ms: list[float] = []
    for process, pipe in running:
        pipe.send("stop")
        seen: Seen = pipe.recv()
        process.join()
        assert (seen.failed, seen.mixed, process.exitcode) == (0, 0, 0)
        assert max(seen.first_seen_s) == changes, "the last one serves"
        latencies_ms += seen.latencies_ms
        # When the first version from each one on was seen: some are passed over.
        first = np.array(sorted(seen.first_seen_s.items()))
        later = np.searchsorted(first[:, 0], list(in_force_s))
        lags_s += (first[later, 1] - list(in_force_s.values())).tolist()
    figures = np.percentile(latencies_ms, [50, 99, 100]), np.percentile(lags_s, [50, 99, 100])
    return (
        f"{hash_set.generation} generations in {elapsed_s:.1f} s, {len(latencies_ms)} checks in {processes} processes, "
        "0 failed, 0 mixed\n"
        f"check ms: p50 {figures[0][0]:.2f}, p99 {figures[0][1]:.2f}, longest {figures[0][2]:.2f}\n"
        f"from in force to served s: p50 {figures[1][0]:.2f}, p99 {figures[1][1]:.2f}, longest {figures[1][2]:.2f}"
    )


WANTED = [("a", "md5"), ("a", "pdq"), ("b", "md5"), ("b", "pdq")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as parent:
        print(
            run(
                Path(parent) / "set",
                swaps=int(sys.argv[1]),
                deltas=int(sys.argv[2]),
                processes=3,
                refresh_s=float(sys.argv[3]) if len(sys.argv) > 3 else 0.05,
                base=5_000,
            )
        )
