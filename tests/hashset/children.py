"""What the tests run in processes of their own. Imports little, so that each starts in milliseconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from tests.hashset.made_up import TYPES, create_set, entries, holds, open_set
from uploadguard._native import _kernel
from uploadguard.hashset import files, hamming, runs, sections, spool, tables

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["uploadguard.hashset", "unittest.mock"])

WRITE_STEPS: tuple[tuple[Any, str], ...] = (
    (os, "open"), (os, "write"), (os, "fsync"), (Path, "replace"), (Path, "unlink")
)  # fmt: skip
KILL_STEPS = (*WRITE_STEPS, (os, "close"), (files.AtomicFile, "write"), (files.AtomicFile, "seek"))


def start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Run ``target(pipe, *arguments)`` in a process; gives the process and the other end of the pipe."""
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


@contextlib.contextmanager
def at_step(number: int, action: Callable[[], None], steps: tuple[tuple[Any, str], ...]) -> Iterator[list[str]]:
    """Call ``action`` just before call ``number`` of these functions, counted from 0; gives the list of calls made."""
    made: list[str] = []

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            if len(made) == number + 1:
                action()
            return original(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for owner, name in steps:
            stack.enter_context(mock.patch.object(owner, name, counted(name, getattr(owner, name))))
        yield made


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _small_parts() -> None:
    """Have few entries take every phase, many times."""
    hamming._choose_tables = lambda rows, length_bytes: (32, 7) if length_bytes == 32 else (6, 9)
    tables._BLOCK_LINES = 64
    spool._WAITING_BYTES = 0
    runs._SORTING_BYTES, runs._LEAST_RUN_ROWS = 1, 10


def change_in_parts_and_die(pipe: Connection, directory: Path, change: str, phase: str, step: int) -> None:
    """Change the list "a" in many small parts, killed at that step of a phase; sends "survived" if there was none."""
    _small_parts()
    hash_set = open_set(directory)
    steps: dict[str, tuple[tuple[Any, str], ...]] = {
        "spooling": ((spool._FileSpool, "append"), (spool._FileSpool, "map"), (spool, "_unnamed_file")),
        "sorting": ((runs, "sorted_order"), (_kernel, "exact_merge")),
        "tables": ((_kernel, "mih_keys"), (_kernel, "mih_place"), (_kernel, "mih_fill")),
        "writing": ((sections.SectionWriter, "append"), (sections.SectionWriter, "finish")),
    }
    with at_step(step, _die, steps[phase]):
        if change == "import":
            hash_set.add_list("a", entries(40, "new"), TYPES, replace=True)
        elif change == "update":
            removed = (f"id-old{number}" for number in range(20))
            hash_set.update_list("a", entries(40, "new"), removed, TYPES)
        else:
            hash_set.compact(keep_previous=True)
    pipe.send("survived")


def import_and_die(pipe: Connection, directory: Path, step: int) -> None:
    """Replace the list "a" by entries "new", killed at that step; sends "survived" if there was no such step."""
    hash_set = open_set(directory)
    with at_step(step, _die, KILL_STEPS):
        hash_set.add_list("a", entries(20, "new"), TYPES, replace=True)
    pipe.send("survived")


def create_and_die(pipe: Connection, directory: Path, step: int) -> None:
    """Create a hash set, killed at that step; sends "survived" if there was no such step."""
    with at_step(step, _die, KILL_STEPS):
        create_set(directory)
    pipe.send("survived")


def count_in(generation: int) -> int:
    """How many entries :func:`replace_for_ever` imports in that generation."""
    return 100 + generation * 37 % 400


def replace_for_ever(pipe: Connection, directory: Path) -> None:
    """Replace the list "a" again and again by entries that tell of their generation, which is also its source."""
    hash_set = open_set(directory)
    pipe.send("ready")
    while True:
        number = hash_set.generation + 1
        hash_set.add_list("a", entries(count_in(number), f"{number}-"), TYPES, source=str(number), replace=True)


def add_lists(pipe: Connection, directory: Path, prefix: str, count: int) -> None:
    """Add ``count`` lists, one after the other."""
    hash_set = open_set(directory, lock_timeout_s=60)
    pipe.send("ready")
    for number in range(count):
        hash_set.add_list(f"{prefix}{number}", entries(50, f"{prefix}{number}-"), TYPES)


def read_until_told(pipe: Connection, directory: Path) -> None:
    """Load and match while lists come (odd generations) and go (even ones); sends the number of loads."""
    hash_set = open_set(directory)
    loaded = 0
    kept = hash_set.load()
    pipe.send("ready")
    while not pipe.poll():
        generation = hash_set.load()
        if generation.number % 2:
            assert holds(generation, f"{generation.number}-0")
            assert not holds(generation, f"{generation.number - 2}-0")
        else:
            assert generation.lists == ()
        assert hash_set.changed_since(generation.number - 1)
        loaded += 1
    assert holds(kept, "1-0"), "a generation that was replaced long ago goes on"
    pipe.send(loaded)


def scan_out_of_memory(pipe: Connection) -> None:
    """Look for more hits than there is memory for, then for a few; sends what came of both."""
    codes = bytes(8 * 1_000_000)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit_bytes = pages * resource.getpagesize() + 100_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    try:
        _kernel.hamming_scan(codes, 8, bytes(8 * 64), 0)
        outcome = "it fitted"
    except MemoryError:
        outcome = "MemoryError"
    pipe.send((outcome, len(_kernel.hamming_scan(codes[:80], 8, bytes(8), 0))))
