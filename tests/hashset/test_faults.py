"""Full disks, killed writers, writers and readers at once: the old generation or the new one, and nothing left over."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effort import tries
from tests.hashset import children
from tests.hashset.made_up import TYPES, entries, expected_files, files_of, holds
from uploadguard.errors import HashSetWriteError, ManifestError
from uploadguard.hashset import HashSet


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    """A hash set of one list, "a", with entries "old"."""
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(20, "old"), TYPES)
    return hash_set


def assert_clean(hash_set: HashSet) -> None:
    assert files_of(hash_set) == expected_files(hash_set)


def assert_old(hash_set: HashSet) -> None:
    assert hash_set.generation == 1
    generation = hash_set.load()
    assert holds(generation, "old0")
    assert not holds(generation, "new0")


def assert_old_or_new(hash_set: HashSet) -> int:
    """Fails unless the set is whole, and is again clean and usable after the next change. Gives its generation."""
    generation = HashSet.open(hash_set.directory).load(verify=True)
    assert generation.number in (1, 2)
    assert [holds(generation, seed) for seed in ("old19", "new19")] == [generation.number == 1, generation.number == 2]
    hash_set.add_list("b", entries(1, "b"), TYPES)
    assert_clean(hash_set)
    assert holds(hash_set.load(), "b0")
    return generation.number


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """No file may grow past this inside the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory where 512 KiB are all there is: a file system of that size, or else a limit on the size of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    else:
        with file_size_limit(512 * 1024):
            yield disk


def test_a_full_disk_keeps_the_old_generation(small_disk: Path) -> None:
    hash_set = HashSet.create(small_disk / "set")
    hash_set.add_list("a", entries(20, "old"), TYPES)
    for count in (4_000, 40_000):  # full near the end of the import, and early in it
        with pytest.raises(HashSetWriteError, match=str(hash_set.directory)) as caught:
            hash_set.add_list("a", entries(count, "new"), TYPES, replace=True)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
        assert_clean(hash_set)
        assert_old(hash_set)
    hash_set.add_list("a", entries(30, "new"), TYPES, replace=True)
    assert holds(hash_set.load(), "new0")


def test_a_file_that_may_not_grow_keeps_the_old_generation(hash_set: HashSet) -> None:
    with file_size_limit(100_000), pytest.raises(HashSetWriteError, match="File too large"):
        hash_set.add_list("a", entries(4_000, "new"), TYPES, replace=True)
    assert_clean(hash_set)
    assert_old(hash_set)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_whatever_step_the_disk_refuses_the_set_is_whole(tmp_path: Path, number: int) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    generations = []
    for step in itertools.count():
        hash_set = HashSet.create(tmp_path / f"set{step}")
        hash_set.add_list("a", entries(20, "old"), TYPES)
        error: HashSetWriteError | None = None
        with children.at_step(step, refuse, children.WRITE_STEPS) as made:
            try:
                hash_set.add_list("a", entries(20, "new"), TYPES, replace=True)
            except HashSetWriteError as caught:
                error = caught
        if len(made) <= step:
            break
        generation = assert_old_or_new(hash_set)
        generations.append(generation)
        if error is None:
            assert generation == 2
        else:
            assert str(hash_set.directory) in str(error)
            assert ("is unchanged" in str(error)) != ("did not confirm" in str(error))
            assert generation == 1 or "manifest.json: the disk did not confirm" in str(error)
    assert set(generations) == {1, 2}
    assert len(generations) > 8


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HashSetWriteError, match=str(tmp_path / "file")):
        HashSet.create(tmp_path / "file" / "set")


def test_killed_at_every_step_of_an_import(tmp_path: Path) -> None:
    generations = []
    for step in itertools.count():
        hash_set = HashSet.create(tmp_path / f"set{step}")
        hash_set.add_list("a", entries(20, "old"), TYPES)
        process, pipe = children.start(children.import_and_die, hash_set.directory, step)
        process.join()
        if process.exitcode == 0:
            assert pipe.recv() == "survived"
            break
        assert process.exitcode == -9
        generations.append(assert_old_or_new(hash_set))
    assert generations == sorted(generations)
    assert set(generations) == {1, 2}
    assert len(generations) > 20


@pytest.mark.parametrize("change", ["import", "update", "compact"])
@pytest.mark.parametrize("phase", ["spooling", "sorting", "tables", "writing"])
def test_killed_in_every_phase_of_a_change(tmp_path: Path, change: str, phase: str) -> None:
    ended = 0
    for step in (0, 2, 9, 40, 10_000):
        hash_set = HashSet.create(tmp_path / f"set{step}")
        hash_set.add_list("a", entries(20, "old"), TYPES)
        if change == "compact":
            hash_set.update_list("a", entries(15, "late"), (f"id-old{number}" for number in range(5, 19)), TYPES)
        before = hash_set.generation
        arguments = (hash_set.directory, change, phase, step)
        process, pipe = children.start(children.change_in_parts_and_die, *arguments)
        process.join()
        survived = process.exitcode == 0
        if survived:
            assert pipe.recv() == "survived"
        else:
            assert process.exitcode == -9
            ended += 1
        hash_set = HashSet.open(hash_set.directory)
        assert hash_set.generation == before + survived
        generation = hash_set.load(verify=True)
        assert holds(generation, "old0") == (change == "compact" or not survived)
        assert holds(generation, "old19") == (change == "compact" or not survived)
        assert holds(generation, "new39") == (change != "compact" and survived)
        assert holds(generation, "late14") == (change == "compact")
        hash_set.add_list("b", entries(1, "b"), TYPES)
        assert_clean(hash_set)
        assert holds(hash_set.load(), "b0")
        if survived:
            break
    assert survived
    assert ended > 1


def test_killed_at_every_step_of_a_creation(tmp_path: Path) -> None:
    outcomes = []
    for step in itertools.count():
        directory = tmp_path / f"set{step}"
        process, pipe = children.start(children.create_and_die, directory, step)
        process.join()
        if process.exitcode == 0:
            assert pipe.recv() == "survived"
            break
        try:
            hash_set = HashSet.open(directory)
            outcomes.append("there")
        except ManifestError:
            hash_set = HashSet.create(directory)
            outcomes.append("not there")
        hash_set.add_list("a", entries(1), TYPES)
        assert_clean(hash_set)
    assert outcomes == sorted(outcomes)[::-1] or outcomes == sorted(outcomes)
    assert set(outcomes) == {"there", "not there"}


def test_killed_at_random_moments(hash_set: HashSet) -> None:
    rng = random.Random(7)
    for _ in range(tries(8)):
        process, pipe = children.start(children.replace_for_ever, hash_set.directory)
        assert pipe.recv() == "ready"
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        process.join()
        generation = HashSet.open(hash_set.directory).load(verify=True)
        (info,) = generation.lists
        if info.source:  # not the fixture's list any more
            number = int(info.source)
            count = children.count_in(number)
            assert info.entries == count
            seeds = [f"{number}-0", f"{number}-{count - 1}", f"{number}-{count}", f"{number - 1}-0", f"{number + 1}-0"]
            assert [holds(generation, seed) for seed in seeds] == [True, True, False, False, False]
        hash_set.add_list("b", entries(1), TYPES)
        hash_set.remove_list("b")
        assert_clean(hash_set)
    assert hash_set.generation > 2 * tries(8) + 1, "no child ever got through an import"


def test_writers_at_once_queue_up(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    running = [children.start(children.add_lists, hash_set.directory, prefix, 8) for prefix in ("a", "b")]
    for process, _ in running:
        process.join()
        assert process.exitcode == 0
    assert hash_set.generation == 16
    assert {info.name for info in hash_set.lists()} == {f"{prefix}{n}" for prefix in ("a", "b") for n in range(8)}
    generation = hash_set.load()
    assert all(holds(generation, f"{info.name}-49") for info in generation.lists)
    assert_clean(hash_set)


def test_readers_in_another_process_see_whole_generations(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(300, "1-"), TYPES)
    running = [children.start(children.read_until_told, hash_set.directory) for _ in range(2)]
    for _, pipe in running:
        assert pipe.recv() == "ready"
    for number in range(2, 80):
        if number % 2:
            hash_set.add_list("a", entries(300, f"{number}-"), TYPES, replace=True)
        else:
            hash_set.remove_list("a")
    for process, pipe in running:
        pipe.send("stop")
        assert pipe.recv() > 5
        process.join()
        assert process.exitcode == 0
