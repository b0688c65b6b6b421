"""Importing a list file: what is counted stays bounded, whatever the file holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from uploadguard.config import Settings
from uploadguard.errors import HeldListError, ListError, ShrunkListError
from uploadguard.hashset import HashSet
from uploadguard.importing import import_list, update_from_file
from uploadguard.lists import BadLine
from uploadguard.lists.local import LOCAL_LISTS
from uploadguard.plugins import Plugins


@pytest.mark.parametrize("name", sorted(LOCAL_LISTS))
def test_the_ledgers_lists_are_not_for_files(tmp_path: Path, name: str) -> None:
    hashset = HashSet.create(tmp_path / "hashset")
    with pytest.raises(ListError, match="by the ledger"):
        import_list(hashset, name, io.BytesIO(b""), Plugins(Settings()))
    with pytest.raises(ListError, match="by the ledger"):
        update_from_file(hashset, name, None, Plugins(Settings()), removed=["x"])


def test_names_that_a_file_makes_up_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = [f'{{"signal_type": "made-up-{number}", "hash": "{number:032x}"}}' for number in range(1000)]
    lines.append('{"md5": "0123456789abcdef0123456789abcdef"}')
    hashset = HashSet.create(tmp_path / "set")
    done = import_list(hashset, "many", io.BytesIO("\n".join(lines).encode()), Plugins(Settings()))
    assert done.entries == 1
    assert len(done.ignored) == 21
    assert sum(done.ignored.values()) == 1000


class Watching:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.compiled: list[tuple[int, int]] = []

    def bad_line(self, bad: BadLine) -> None: ...

    def bytes_read(self, count: int) -> None:
        assert not self.compiled, "reading comes before compiling"
        self.read.append(count)

    def compiling(self, done_bytes: int, total_bytes: int) -> None:
        self.compiled.append((done_bytes, total_bytes))


def assert_counts_up(compiled: list[tuple[int, int]], at_least: int) -> None:
    done = [done_bytes for done_bytes, _ in compiled]
    assert done == sorted(done)
    (total,) = {total_bytes for _, total_bytes in compiled}
    assert done[0] == 0
    assert done[-1] == total
    assert len(set(done)) >= at_least
    assert all(done_bytes < total for done_bytes in done[:-1])


def test_a_watcher_follows_an_import_and_an_update_to_their_ends(tmp_path: Path) -> None:
    rows = [f"{number},{number:032x},{number * 0x9E3779B97F4A7C15:064x}" for number in range(1, 30_001)]
    data = "\n".join(["id,md5,pdq", *rows]).encode()
    hashset = HashSet.create(tmp_path / "set")
    watching = Watching()
    import_list(hashset, "many", io.BytesIO(data), Plugins(Settings()), watcher=watching)
    assert watching.read[-1] == len(data)
    assert_counts_up(watching.compiled, 5)
    # What was promised is about what was written.
    (record,) = hashset.stats().lists
    assert 0.5 < watching.compiled[-1][1] / record.size_bytes < 1.1
    watching = Watching()
    update_from_file(hashset, "many", io.BytesIO(data[:100_000]), Plugins(Settings()), watcher=watching)
    assert_counts_up(watching.compiled, 2)
    compacting: list[tuple[int, int]] = []
    hashset.compact(compiling=lambda name, done_bytes, total_bytes: compacting.append((done_bytes, total_bytes)))
    assert_counts_up(compacting, 5)


def test_a_file_that_shrank_is_held_or_refused_and_the_old_list_goes_on(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    bounded = Plugins(Settings())
    direct = Plugins(Settings.load(None, safety={"activation": "direct"}))
    strict = Plugins(Settings.load(None, hashset={"max_shrink_percent": 0}))

    def listing(count: int) -> Path:
        path = tmp_path / "list.txt"
        path.write_text("".join(f"{number:032x}\n" for number in range(1, count + 1)))
        return path

    def add(count: int, plugins: Plugins = bounded, **options: Any) -> int:
        done = import_list(hash_set, "a", listing(count), plugins, signal_type="md5", replace=True, **options)
        assert done.in_force
        return done.info.entries

    assert add(200) == 200
    with pytest.raises(HeldListError, match=r"from 200 to 99 entries.*max_shrink_percent"):
        add(99)
    assert [item.after.entries for item in hash_set.staging.changes()] == [99]
    hash_set.staging.discard("a")
    with pytest.raises(ShrunkListError, match=r"99 entries.*max_shrink_percent"):
        add(99, direct)
    assert hash_set.staging.changes() == ()
    assert [info.entries for info in hash_set.lists()] == [200]
    assert add(100) == 100
    assert add(50, direct) == 50
    assert add(1, strict) == 1, "small lists are not bounded"
    assert add(200) == 200
    assert add(2, allow_shrink=True) == 2
