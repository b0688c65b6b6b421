"""Writers killed at random points, again and again: ``python -m tests.hashset.soak_kills 200 [--encrypt]``."""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.hashset import children
from tests.hashset.made_up import (
    TYPES,
    create_set,
    entries,
    entry,
    expected_files,
    files_of,
    holds,
    open_set,
    value,
)
from uploadguard.errors import StagedListError
from uploadguard.hashset import Compilation, HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.models import Hash
from uploadguard.storage.keys import write_key_file

BASE = 60
SLOTS = 4
STEPS = 60
"""More than any change takes."""


def listed(version: int) -> list[ListEntry]:
    """What the list holds besides its base in that version: always the same ids."""
    return [ListEntry(f"id-slot{slot}", entry(f"{version}-{slot}").hashes) for slot in range(SLOTS)]


def create(directory: Path) -> HashSet:
    """The list in its version 0."""
    hash_set = create_set(directory)
    hash_set.add_list("a", [*entries(BASE), *listed(0)], TYPES, source="0")
    return hash_set


def version_of(hash_set: HashSet) -> int:
    """The version on disk."""
    return next(int(info.source) for info in hash_set.lists() if info.name == "a")


def delta(hash_set: HashSet) -> None:
    """The next version, by a delta; some entries of the base go and come again."""
    version = version_of(hash_set) + 1
    gone = f"id-{version % BASE}"
    again = [entry(number) for number in range(BASE) if (number - version) % BASE == BASE - 1]
    hash_set.update_list("a", [*listed(version), *again], [gone], TYPES, source=str(version))


def swap(hash_set: HashSet) -> None:
    """The next version, by a new list."""
    version = version_of(hash_set) + 1
    base = [entry(number) for number in range(BASE) if number != version % BASE]
    hash_set.add_list("a", [*base, *listed(version)], TYPES, source=str(version), replace=True)


def compact(hash_set: HashSet) -> None:
    """The same version in one segment."""
    hash_set.compact()


def rollback(hash_set: HashSet) -> None:
    """The version before, if it is kept."""
    for generation in hash_set.previous_generations[:1]:
        if generation:
            hash_set.rollback()


def stage(hash_set: HashSet) -> None:
    """The next version, staged only, in place of what was staged before."""
    version = version_of(hash_set) + 1
    how = Compilation(TYPES, str(version))
    if version % 3:
        again = [entry(number) for number in range(BASE) if (number - version) % BASE == BASE - 1]
        gone = f"id-{version % BASE}"
        hash_set.staging.update_list("a", [*listed(version), *again], [gone], how, restage=True)
    else:
        base = [entry(number) for number in range(BASE) if number != version % BASE]
        hash_set.staging.add_list("a", [*base, *listed(version)], how, replace=True)


def activate(hash_set: HashSet) -> None:
    """The version that is staged, if it fits; else nothing is staged any more."""
    for staged in hash_set.staging.changes():
        try:
            hash_set.staging.activate(staged.list_name)
        except StagedListError:
            hash_set.staging.discard(staged.list_name)


CHANGES: dict[str, Callable[[HashSet], None]] = {
    change.__name__: change for change in (delta, swap, compact, rollback, stage, activate)
}


def change_until_killed(pipe: Connection, directory: Path, seed: int, doomed: str | None, step: int) -> None:
    """Change the list at random; die just before call ``step`` of a change of the kind ``doomed``, if that is given."""
    rng = random.Random(seed)
    hash_set = open_set(directory)
    pipe.send("ready")
    while True:
        name = rng.choice(["delta", "delta", "delta", "swap", "compact", "rollback", "stage", "stage", "activate"])
        if name == doomed:
            with children.at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL), children.KILL_STEPS):
                CHANGES[name](hash_set)
        else:
            CHANGES[name](hash_set)


def check(hash_set: HashSet) -> int:
    """Fail unless one version is there, whole, and nothing of the others. Gives it."""
    hash_set = open_set(hash_set.directory)
    generation = hash_set.load(verify=True)
    assert hash_set.verify().ok
    version = version_of(hash_set)
    for other in range(max(0, version - 9), version + 9):
        for slot in range(SLOTS):
            asked = [Hash(name, value(name, f"{other}-{slot}")) for name in TYPES]
            found = [match.entry_id for match in generation.match(asked, {"pdq": 31, "phash": 8})]
            assert found == ([f"id-slot{slot}"] * len(TYPES) if other == version else [])
    there = [holds(generation, number) for number in range(BASE)]
    assert there == [version == 0 or number != version % BASE for number in range(BASE)]
    assert {info.name: info.entries for info in generation.lists} == {"a": BASE + SLOTS - (version > 0)}
    hash_set.update_list("a", [], ["an id that is not there"], TYPES)  # changes nothing, and cleans up
    assert files_of(hash_set) == expected_files(hash_set)
    return version


def run(kills: int, directory: Path, seed: int = 1) -> Counter[str]:
    """Kill as many writers, half of them at a step of a change and half at any time. Gives what was done to whom."""
    rng = random.Random(seed)
    hash_set = create(directory)
    outcomes: Counter[str] = Counter()
    for _ in range(kills):
        doomed = rng.choice([None, *CHANGES])
        doomed = rng.choice([None, doomed])
        arguments = (directory, rng.randrange(2**32), doomed, rng.randrange(STEPS))
        process, pipe = children.start(change_until_killed, *arguments)
        assert pipe.recv() == "ready"
        process.join(rng.uniform(0, 0.3) if doomed is None else 2)
        key = f"at a step of {doomed}" if process.exitcode is not None else "at any time"
        outcomes[key] += 1
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        check(hash_set)
    outcomes["generations"] = hash_set.generation
    return outcomes


def main() -> None:
    """Run, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--encrypt", action="store_true", help="encrypt the hash set")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as parent:
        if arguments.encrypt:
            write_key_file(Path(parent) / "set.key")
        done = run(arguments.kills, Path(parent) / "set", seed=arguments.seed)
    print(f"{arguments.kills} kills, 0 broken sets, {time.monotonic() - started:.0f} s: {dict(done)}")


if __name__ == "__main__":
    main()
