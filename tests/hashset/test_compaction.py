"""Merging segments: by a delta's writer, as a whole, beside other writers; and what is left on the disk."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hashset.made_up import TYPES, entries, entry, expected_files, files_of, holds
from uploadguard._native import _kernel
from uploadguard.errors import HashSetBusyError, HashSetError, ListError, SegmentError
from uploadguard.hashset import BucketSkew, HashSet, Segment, build_segment, compaction
from uploadguard.hashset.directory import Directory
from uploadguard.hashset.merge import merge_segments
from uploadguard.lists.base import ListEntry


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    """A hash set of the list "a" with entries 0 to 99."""
    hash_set = HashSet.create(tmp_path / "set", lock_timeout_s=10)
    hash_set.add_list("a", entries(100), TYPES, source="a.csv")
    return hash_set


def change(hash_set: HashSet, number: int) -> None:
    """Take entry ``number`` out and put "new``number``" in."""
    hash_set.update_list("a", [entry(f"new{number}")], [f"id-{number}"], TYPES)


def assert_changed(hash_set: HashSet, count: int) -> None:
    generation = hash_set.load()
    for number in range(100):
        assert holds(generation, number) == (number >= count)
        assert holds(generation, f"new{number}") == (number < count)
    (info,) = generation.lists
    assert info.entries == 100
    assert info.hashes == dict.fromkeys(TYPES, 100)
    assert hash_set.verify().ok


def test_a_delta_is_small_and_leaves_the_rest_alone(hash_set: HashSet) -> None:
    (base,) = hash_set.load().segments
    change(hash_set, 0)
    first, second = hash_set.load().segments
    assert first.checksum == base.checksum
    assert second.metadata.entries == 1
    assert second.size_bytes < base.size_bytes / 2
    (info,) = hash_set.lists()
    assert (info.source, info.dead_entries, info.segments) == ("a.csv", 1, 2)
    assert_changed(hash_set, 1)


def test_many_deltas_stay_few_segments_and_the_large_one_is_not_copied(hash_set: HashSet) -> None:
    (base,) = hash_set.load().segments
    for number in range(30):
        change(hash_set, number)
        assert hash_set.lists()[0].segments <= 6
        assert hash_set.load().segments[0].checksum == base.checksum
    assert_changed(hash_set, 30)


def test_a_replaced_entry_never_comes_back(hash_set: HashSet) -> None:
    for turn in range(12):
        listed = entry(f"again{turn}")
        hash_set.update_list("a", [type(listed)("same", listed.hashes)], [], TYPES)
    hash_set.update_list("a", [], ["same"], TYPES)
    (info,) = hash_set.lists()
    assert info.entries == 100
    generation = hash_set.load()
    assert not any(holds(generation, f"again{turn}") for turn in range(12))


def test_compaction_leaves_one_segment_and_nothing_of_the_past(hash_set: HashSet) -> None:
    for number in range(7):
        change(hash_set, number)
    removed = [b'"id-3"', entry(3).hashes[0][1]]
    on_disk = b"".join(path.read_bytes() for path in hash_set.directory.glob("segment-*"))
    assert all(data in on_disk for data in removed)
    kept = hash_set.load()
    before = hash_set.lists()[0]
    done = hash_set.compact()
    assert (done.lists, done.dead_entries, done.kept_previous) == (1, 7, False)
    assert done.after_bytes < done.before_bytes
    (info,) = hash_set.lists()
    assert (info.segments, info.dead_entries, info.source) == (1, 0, "a.csv")
    assert (info.added_at, info.updated_at) == (before.added_at, before.updated_at)
    on_disk = b"".join(path.read_bytes() for path in hash_set.directory.glob("segment-*"))
    assert not any(data in on_disk for data in removed)
    assert hash_set.previous_generations == ()
    assert_changed(hash_set, 7)
    assert holds(kept, "new6")
    assert not holds(kept, 3)
    assert hash_set.compact().generation == done.generation, "there is nothing more to do"


def test_a_removed_list_is_gone_from_disk_with_purge_or_compaction(hash_set: HashSet) -> None:
    for remove in (
        lambda: hash_set.remove_list("b", purge=True),
        lambda: (hash_set.remove_list("b"), hash_set.compact()),
    ):
        hash_set.add_list("b", entries(5, "b"), TYPES)
        (path,) = (hash_set.directory / segment.path.name for segment in hash_set.load().segments[1:] if segment.path)
        remove()
        assert not path.exists()
        assert files_of(hash_set) == expected_files(hash_set)


def test_the_previous_generations_stay_for_a_while(hash_set: HashSet) -> None:
    (first,) = hash_set.directory.glob("segment-*")
    hash_set.add_list("a", entries(3, "x"), TYPES, replace=True)
    for number in range(2):
        hash_set.add_list(f"b{number}", entries(1, f"b{number}-"), TYPES)
        assert first.exists()
    assert hash_set.previous_generations == (3, 2, 1)
    assert hash_set.rollback(1) == 5
    assert_changed(hash_set, 0)
    assert hash_set.previous_generations == (4, 3, 2)
    assert hash_set.rollback() == 6
    assert [info.name for info in hash_set.lists()] == ["a", "b0", "b1"]
    for number in range(3):
        hash_set.add_list(f"c{number}", entries(1, f"c{number}-"), TYPES)
    assert not first.exists()
    with pytest.raises(HashSetError, match="there is no generation 1 to go back to"):
        hash_set.rollback(1)
    hash_set.compact()
    with pytest.raises(HashSetError, match="there is no previous generation to go back to"):
        hash_set.rollback()


def test_a_damaged_generation_is_not_gone_back_to(hash_set: HashSet) -> None:
    (path,) = hash_set.directory.glob("segment-*")
    hash_set.remove_list("a")
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(SegmentError, match="is altered"):
        hash_set.rollback()
    verification = hash_set.verify()
    assert [(problem.path, problem.in_force) for problem in verification.problems] == [(path, False)]
    path.unlink()
    with pytest.raises(HashSetError):
        hash_set.rollback()
    assert hash_set.generation == 2


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Do ``act`` once, while the next compaction has written its segment and not yet published it."""

    def merge(*arguments: Any, **options: Any) -> Any:
        done = merge_segments(*arguments, **options)
        monkeypatch.setattr(compaction, "merge_segments", merge_segments)
        act()
        return done

    monkeypatch.setattr(compaction, "merge_segments", merge)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_deltas_during_a_compaction_are_kept(hash_set: HashSet, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for number in range(3):
        change(hash_set, number)

    def act() -> None:
        other = HashSet.open(hash_set.directory)
        for number in range(3, 3 + count):
            change(other, number)
        other.update_list("a", [entry("new1")], [], TYPES)  # ends what the compaction copied from a delta

    meanwhile(monkeypatch, act)
    hash_set.compact()
    assert_changed(hash_set, 3 + count)
    assert hash_set.lists()[0].segments == 2
    hash_set.compact()
    assert_changed(hash_set, 3 + count)
    assert hash_set.lists()[0].dead_entries == 0
    assert files_of(hash_set) == expected_files(hash_set)


@pytest.mark.parametrize(
    "overtake",
    [
        lambda other: other.remove_list("a"),
        lambda other: other.add_list("a", entries(3, "x"), TYPES, replace=True),
        lambda other: other.rollback(),
    ],
)
def test_a_compaction_that_was_overtaken_changes_nothing(
    hash_set: HashSet, monkeypatch: pytest.MonkeyPatch, overtake: Callable[[HashSet], Any]
) -> None:
    change(hash_set, 0)
    other = HashSet.open(hash_set.directory)
    meanwhile(monkeypatch, lambda: overtake(other))
    with pytest.raises(HashSetError, match="while it was compacted"):
        hash_set.compact()
    assert hash_set.generation == 3
    assert files_of(hash_set) == expected_files(hash_set)


def test_a_compaction_at_work_keeps_its_file_and_a_dead_ones_goes(
    hash_set: HashSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = hash_set.directory / ".compaction.segment-1-0123456789abcdef.ugs.aa.tmp"
    left.touch()
    change(hash_set, 0)
    assert not left.exists()
    seen: list[int] = []

    def act() -> None:
        change(HashSet.open(hash_set.directory), 1)
        seen.append(len(list(hash_set.directory.glob(".compaction.*"))))

    meanwhile(monkeypatch, act)
    hash_set.compact()
    assert seen == [1]
    assert_changed(hash_set, 2)


def test_damage_is_not_copied_under_a_right_checksum(hash_set: HashSet) -> None:
    change(hash_set, 0)
    path = hash_set.load().segments[0].path
    assert path is not None
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(SegmentError, match="is altered"):
        hash_set.compact()
    assert hash_set.generation == 2
    assert not hash_set.verify().ok


def test_many_dead_entries_are_merged_beside_the_writer(hash_set: HashSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_DUE_DEAD_ENTRIES", 20)
    hash_set.update_list("a", [], [f"id-{number}" for number in range(20)], TYPES)
    assert hash_set.lists()[0].dead_entries == 20
    hash_set.update_list("a", [], [f"id-{number}" for number in range(20, 30)], TYPES)
    for thread in threading.enumerate():
        if thread.name == "uploadguard-compaction":
            thread.join()
    (info,) = hash_set.lists()
    assert (info.entries, info.dead_entries, info.segments) == (70, 0, 1)
    assert hash_set.previous_generations == (2, 1, 0)
    hash_set.rollback(1)
    assert_changed(hash_set, 0)


def test_a_compaction_that_finds_the_set_busy_is_left_to_a_later_change(
    hash_set: HashSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(hash_set, 0)
    monkeypatch.setattr(compaction, "_DUE_DEAD", 0)
    monkeypatch.setattr(compaction, "_DUE_DEAD_ENTRIES", 0)
    files = Directory(hash_set.directory, lock_timeout_s=0)
    with files.locked(), pytest.raises(HashSetBusyError):
        compaction.compact_if_due(files, "a")
    with files.compacting():
        compaction.compact_if_due(files, "a")
    assert hash_set.lists()[0].segments == 2
    compaction.compact_if_due(files, "a")
    assert hash_set.lists()[0].segments == 1


def test_hashes_of_one_list_are_stored_in_one_way(hash_set: HashSet) -> None:
    other = {**TYPES, "phash": (8, 0)}
    with pytest.raises(ListError, match="phash hashes were stored for another kind of look-up"):
        hash_set.update_list("a", [], ["id-1"], other)
    with pytest.raises(ListError, match="phash hashes were stored for another kind of look-up"):
        hash_set.add_list("a", entries(1), other, append=True)
    hash_set.add_list("a", entries(1), other, replace=True)


def test_merging_segments_in_memory() -> None:
    parts = [
        Segment.from_buffer(build_segment(entries(20, name), TYPES, list_name="a", source=name)) for name in ("x", "y")
    ]
    output = io.BytesIO()
    metadata, moved = merge_segments(output, parts)
    merged = Segment.from_buffer(output.getvalue())
    assert merged.metadata == metadata
    assert (metadata.entries, metadata.source) == (40, "y")
    assert [merged.entry(row).entry_id for row in moved.rows[parts[1].metadata.segment_id].tolist()] == [
        f"id-y{number}" for number in range(20)
    ]
    assert merged.find_entries("id-y7") == [27]
    assert merged.find_entries("id-y77") == []


def test_stats(hash_set: HashSet) -> None:
    hash_set.add_list("b", [entry(1, "md5")], TYPES, role="allow")
    change(hash_set, 0)
    stats = hash_set.stats()
    assert (stats.generation, stats.previous) == (3, (2, 1, 0))
    assert stats.age_s < 300
    assert [(item.info.name, item.info.entries, item.info.dead_entries) for item in stats.lists] == [
        ("a", 100, 1),
        ("b", 1, 0),
    ]
    assert stats.size_bytes == sum(item.size_bytes for item in stats.lists)
    assert stats.previous_bytes == 0
    assert set(stats.lists[0].skew) == {"pdq", "phash"}
    assert stats.lists[0].skew["pdq"] == BucketSkew(), "so few are scanned"
    hash_set.remove_list("b")
    assert hash_set.stats().previous_bytes == stats.lists[1].size_bytes


def test_skew_is_that_of_the_tables_lines(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (20_000, 32), np.uint8)
    codes[:90] = codes[0]
    codes[90:120, 16:] = codes[0, 16:]
    listed = [ListEntry(str(number), (("pdq", code.tobytes()),)) for number, code in enumerate(codes)]
    hash_set.add_list("a", listed, TYPES)
    (segment,) = hash_set.load().segments
    sections = segment.index("pdq").sections()
    _, count, line_bits = sections["table_shape"].tolist()
    bits = np.unpackbits(codes, axis=1, bitorder="little")
    rows: list[int] = []
    first = 0
    for key_bits in _kernel.mih_key_bits(32, count, line_bits):
        high = bits[:, first + key_bits - line_bits : first + key_bits]
        numbers = high @ (1 << np.arange(line_bits))
        rows += np.bincount(numbers, minlength=1 << line_bits).tolist()
        first += key_bits
    expected = BucketSkew(
        lines=count << line_bits,
        rows=20_000 * count,
        fullest_line=max(rows),
        overflowing_lines=sum(row > 14 for row in rows),
        overflowing_rows=sum(row for row in rows if row > 14),
    )
    found = hash_set.stats().lists[0].skew["pdq"]
    assert found == expected
    assert found.fullest_line >= 120
    assert 0 < found.overflowing_lines_share < found.overflowing_rows_share < 1
