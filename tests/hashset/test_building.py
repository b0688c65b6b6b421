"""Building in parts: whatever the number of parts, and wherever they are spooled, the result is that of one piece."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.hashset.made_up import TYPES, entries, entry, value
from uploadguard._native import _kernel
from uploadguard.errors import HashSetWriteError
from uploadguard.hashset import Segment, columns, hamming, runs, spool, tables
from uploadguard.hashset.directory import is_leftover
from uploadguard.hashset.exact import ExactIndex
from uploadguard.hashset.hamming import HammingIndex
from uploadguard.hashset.merge import merge_segments
from uploadguard.hashset.segment_writer import write_segment
from uploadguard.hashset.spool import Spools
from uploadguard.hashset.tables import Tables, build_tables, count_line_rows, stream_tables
from uploadguard.hashset.tombstones import Delta
from uploadguard.lists.base import ListEntry


def skewed(rng: np.random.Generator, rows: int, length: int, alike: float) -> NDArray[np.uint8]:
    """Random codes; of a share of them some bytes are the same."""
    codes = rng.integers(0, 256, (rows, length), np.uint8)
    codes[rng.random(rows) < alike, : int(rng.integers(0, length + 1))] = 5
    return codes


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that little data has many of them."""
    monkeypatch.setattr(tables, "_BLOCK_LINES", 64)
    monkeypatch.setattr(tables, "_WINDOW_WORDS", 50)
    monkeypatch.setattr(tables, "_KEYS_AT_ONCE", 100)
    monkeypatch.setattr(runs, "_SORTING_BYTES", 1)
    monkeypatch.setattr(runs, "_LEAST_RUN_ROWS", 37)
    monkeypatch.setattr("uploadguard.hashset.segment_writer._FLUSHED_HASHES", 50)
    monkeypatch.setattr(spool, "_WAITING_BYTES", 100)
    for module in (runs, spool):
        monkeypatch.setattr(module, "PART_BYTES", 300)
    monkeypatch.setattr(columns, "CHUNK_ENTRIES", 64)
    for name in ("merge", "tombstones"):
        monkeypatch.setattr(f"uploadguard.hashset.{name}.CHUNK_ENTRIES", 64)


def tables_by_numpy(codes: NDArray[np.uint8], count: int, line_bits: int) -> list[list[list[int]]]:
    """For each table and line the rows in it, by value and then by number."""
    bits = np.unpackbits(codes, axis=1, bitorder="little").astype(np.int64)
    found, first = [], 0
    for key_bits in _kernel.mih_key_bits(codes.shape[1], count, line_bits):
        keys = bits[:, first : first + key_bits] @ (1 << np.arange(key_bits))
        first += key_bits
        lines: list[list[int]] = [[] for _ in range(1 << line_bits)]
        for row in np.lexsort((np.arange(len(keys)), keys)).tolist():
            lines[int(keys[row]) >> (key_bits - line_bits)].append(row)
        found.append(lines)
    return found


def rows_of(made: Tables, length: int) -> list[list[list[int]]]:
    """What :func:`tables_by_numpy` gives, read from tables."""
    found = []
    lines = made.lines.reshape(made.count, -1, 16)
    for table, key_bits in enumerate(_kernel.mih_key_bits(length, made.count, made.line_bits)):
        values = 1 << (key_bits - made.line_bits)
        rows = []
        for line in lines[table]:
            if line[0] == line[1] == 0xFFFFFFFF:
                place = int(line[2])
                total = int(made.overflow[place + values - 1])
                rows.append(made.overflow[place + values : place + values + total].tolist())
            else:
                counts = int(line[0]) | int(line[1]) << 32
                rows.append(line[2 : 2 + sum(counts >> 4 * v & 15 for v in range(16))].tolist())
        found.append(rows)
    return found


@pytest.mark.usefixtures("small_parts")
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 1500), alike=st.sampled_from([0.0, 0.1, 1.0]),
    shape=st.sampled_from([(32, 30, 7), (32, 24, 8), (32, 28, 8), (8, 6, 9), (8, 7, 8), (8, 5, 10)]),
)  # fmt: skip
def test_tables_hold_every_row_in_its_line(seed: int, rows: int, alike: float, shape: tuple[int, int, int]) -> None:
    length, count, line_bits = shape
    codes = skewed(np.random.default_rng(seed), rows, length, alike)
    made = build_tables(codes, count, line_bits)
    assert rows_of(made, length) == tables_by_numpy(codes, count, line_bits)
    with Spools(None) as spools:
        overflow: list[NDArray[np.uint32]] = []
        lines = np.concatenate(list(stream_tables(codes, count, line_bits, spools, overflow.append)))
    assert np.array_equal(lines, made.lines)
    assert np.array_equal(np.concatenate(overflow), made.overflow)
    counted = np.concatenate([rows for rows, _ in count_line_rows(made, length)])
    assert counted.tolist() == [len(line) for table in rows_of(made, length) for line in table]


def test_the_number_of_parts_makes_no_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes = skewed(np.random.default_rng(1), 30_000, 32, 0.2)
    whole = HammingIndex.build(codes).sections()
    assert len(whole["table_overflow"]) > 30_000
    ids = np.arange(30_000, dtype=np.uint32)
    for block_lines, window_words in ((1 << 6, 1000), (1 << 8, 1 << 22), (1 << 20, 70_001)):
        monkeypatch.setattr(tables, "_BLOCK_LINES", block_lines)
        monkeypatch.setattr(tables, "_WINDOW_WORDS", window_words)
        with Spools(tmp_path) as spools:
            streamed = {
                name: (length, b"".join(parts))
                for name, length, parts in HammingIndex.stream_sections(codes, ids, spools)
            }
        assert {name: data for name, (_, data) in streamed.items()} == {
            name: values.tobytes() for name, values in whole.items()
        }
        assert all(length == len(data) for length, data in streamed.values())


def test_the_size_is_known_before() -> None:
    for rows in (10, 5000, 50_000):
        codes = np.random.default_rng(1).integers(0, 256, (rows, 32), np.uint8)
        sections = HammingIndex.build(codes).sections()
        without = sum(
            values.nbytes for name, values in sections.items() if name not in ("table_overflow", "table_shape")
        )
        assert HammingIndex.size_bytes(rows, 32) == without


def test_damaged_tables_are_not_counted() -> None:
    codes = skewed(np.random.default_rng(1), 30_000, 32, 0.2)
    made = build_tables(codes, 16, 12)
    lines = made.lines.copy()
    lines.reshape(-1, 16)[:, :2] = 0xFFFFFFFF
    lines.reshape(-1, 16)[:, 2] = 0xFFFFFFFF
    with pytest.raises(ValueError, match="damaged"):
        list(count_line_rows(Tables(16, 12, lines, made.overflow), 32))


def in_runs(records: NDArray[np.uint8], ids: NDArray[np.uint32], cuts: list[int], spools: Spools) -> ExactIndex:
    """The index of records that are added in such parts."""
    sorting = runs.SortedRuns(records.shape[1], spools)
    for part, part_ids in zip(np.split(records, cuts), np.split(ids, cuts), strict=True):
        sorting.add(part, part_ids)
    assert len(sorting) == len(records)
    found, found_ids = [np.empty((0, records.shape[1]), np.uint8)], [np.empty(0, np.uint32)]
    for merged, merged_ids in sorting.merged():
        found.append(merged.copy())
        found_ids.append(merged_ids.copy())
    return ExactIndex(np.concatenate(found), np.concatenate(found_ids))


@pytest.mark.usefixtures("small_parts")
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 800), length=st.sampled_from([1, 3, 8, 16, 20, 32, 64]),
    alike=st.sampled_from([0.0, 0.5, 1.0]), cuts=st.lists(st.integers(0, 800), max_size=5),
)  # fmt: skip
def test_sorted_runs_are_the_exact_index(seed: int, rows: int, length: int, alike: float, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    records = skewed(rng, rows, length, alike)
    ids = rng.permutation(rows).astype(np.uint32)
    whole = ExactIndex.build(records, ids)
    with Spools(None) as spools:
        parts = in_runs(records, ids, sorted(min(cut, rows) for cut in cuts), spools)
    assert np.array_equal(parts.sections()["records"], whole.sections()["records"])
    assert np.array_equal(parts.ids, whole.ids)


def test_runs_that_come_sorted_are_not_sorted_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records = skewed(rng, 999, 16, 0.3)
    whole = ExactIndex.build(records)
    with Spools(tmp_path) as spools:
        sorting = runs.SortedRuns(16, spools)
        for start in range(0, 999, 333):
            part = ExactIndex.build(records[start : start + 333], np.arange(start, start + 333, dtype=np.uint32))
            pairs = part.sections()["records"], part.ids
            sorting.add_run((pairs[0][at : at + 100], pairs[1][at : at + 100]) for at in range(0, 333, 100))
        sorting.add_run([])
        merged = [(found.copy(), ids.copy()) for found, ids in sorting.merged()]
    assert np.array_equal(np.concatenate([found for found, _ in merged]), whole.sections()["records"])
    assert np.array_equal(np.concatenate([ids for _, ids in merged]), whole.ids)


@pytest.mark.parametrize(
    "arguments",
    [
        (bytes(32), 0, bytes(8), bytearray(16), bytearray(16), bytearray(4)),
        (bytes(130), 65, bytes(8), bytearray(16), bytearray(65), bytearray(4)),
        (bytes(31), 16, bytes(8), bytearray(16), bytearray(16), bytearray(4)),
        (bytes(32), 16, bytes(4), bytearray(16), bytearray(16), bytearray(4)),
        (bytes(32), 16, bytes(8), bytearray(15), bytearray(16), bytearray(4)),
        (bytes(32), 16, bytes(8), bytearray(16), bytearray(17), bytearray(4)),
        (bytes(32), 16, bytes(8), bytearray((0).to_bytes(8, "little") + (3).to_bytes(8, "little")), bytearray(16),
         bytearray(4)),
        (bytes(32), 16, bytes(8), bytearray((2).to_bytes(8, "little") + (1).to_bytes(8, "little")), bytearray(16),
         bytearray(4)),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        _kernel.exact_merge(*arguments)


def listed(rng: np.random.Generator, count: int) -> list[ListEntry]:
    """Entries with no, one or many hashes of some signal types, some of them the same, some ids twice."""
    found = []
    for number in range(count):
        names = [name for name in TYPES if rng.random() < 0.7] * int(rng.integers(1, 4))
        hashes = tuple((name, value(name, int(rng.integers(0, count)))) for name in names)
        found.append(ListEntry(f"id-{rng.integers(0, count)}", hashes, fields={"n": number}))
    return found


def contents(data: bytes) -> dict[str, bytes]:
    """The sections of a segment but for its metadata, which has a random number and the time."""
    segment = Segment.from_buffer(data)
    return {name: bytes(segment._section(name)) for name in segment._sections if name != "metadata"}


def built(listed: list[ListEntry], spools: Spools) -> bytes:
    output = io.BytesIO()
    write_segment(output, listed, TYPES, list_name="a", spools=spools)
    return output.getvalue()


def test_segments_are_the_same_wherever_and_in_how_many_parts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    reference = listed(np.random.default_rng(2), 700)
    with Spools(None) as spools:
        whole = built(reference, spools)
        deltas = [built(reference[start::3], spools) for start in range(3)]
        merged = merged_of(deltas, spools)
    for name in TYPES:  # a segment's indexes are those of an index built in one piece
        kept = [item for item in reference if item.hashes]
        hashes = [(code, row) for row, item in enumerate(kept) for kind, code in item.hashes if kind == name]
        codes = np.frombuffer(b"".join(code for code, _ in hashes), np.uint8).reshape(len(hashes), -1)
        rows = np.array([row for _, row in hashes], np.uint32)
        kind = HammingIndex if TYPES[name][1] else ExactIndex
        for part, values in kind.build(codes, rows).sections().items():
            assert contents(whole)[f"signals/{name}/{part}"] == values.tobytes()
    request.getfixturevalue("small_parts")
    for directory in (None, tmp_path):
        with Spools(directory) as spools:
            assert contents(built(reference, spools)) == contents(whole)
            assert contents(merged_of(deltas, spools)) == contents(merged)
    assert list(tmp_path.iterdir()) == []


def merged_of(parts: list[bytes], spools: Spools) -> bytes:
    output = io.BytesIO()
    merge_segments(output, [Segment.from_buffer(part) for part in parts], spools=spools)
    return output.getvalue()


@pytest.mark.usefixtures("small_parts")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 200), removed=st.integers(0, 20))
def test_a_delta_ends_what_a_dictionary_says(seed: int, count: int, removed: int) -> None:
    rng = np.random.default_rng(seed)
    with Spools(None) as spools:
        older = Segment.from_buffer(built([*entries(50), *listed(rng, 100), entry(1)], spools))
        delta = Delta([older], "0123456789abcdef", spools)
        ids = [f"id-{rng.integers(0, 60)}" for _ in range(removed)]
        delta.remove(ids)
        alive: dict[str, int] = {}
        superseded, written, touched = [], 0, set(ids)
        for item in (coming := listed(rng, count)):
            touched.add(item.entry_id)
            if item.entry_id in alive:
                superseded.append(alive.pop(item.entry_id))
            if item.hashes:
                alive[item.entry_id] = written
                written += 1
        assert [item.fields for item in delta.add(coming)] == [item.fields for item in coming if item.hashes]
        ended = [row for row in range(older.metadata.entries) if older.entry(row).entry_id in touched]
        found = {segment_id: rows.tolist() for segment_id, rows in delta.tombstones().items()}
        expected = {older.metadata.segment_id: ended, "0123456789abcdef": sorted(superseded)}
        assert found == {segment_id: rows for segment_id, rows in expected.items() if rows}
        assert (delta.added, delta.removed) == (len(alive), len(ended))


def test_spooled_files_have_no_name_and_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for unnamed in (True, False):
        if not unnamed:
            monkeypatch.delattr(os, "O_TMPFILE")
        with Spools(tmp_path) as spools:
            made = spools.new()
            made.append(b"1234")
            made.append(b"5678" * 20_000)
            assert list(tmp_path.iterdir()) == []
            statuses = [
                path.stat() for path in Path("/proc/self/fd").iterdir()
                if path.is_symlink() and str(path.readlink()).startswith(f"{tmp_path}/")
            ]  # fmt: skip
            assert {(stat.S_IMODE(status.st_mode), status.st_nlink) for status in statuses} == {(0o600, 0)}
            mapped = made.map(np.uint32)
        assert mapped.tobytes() == b"1234" + b"5678" * 20_000, "a map outlives its spool"
        with pytest.raises(ValueError, match="read-only"):
            mapped[0] = 1


def test_a_spool_that_was_named_and_left_is_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    names: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: names.append(path.name))
    monkeypatch.setattr(spool, "_WAITING_BYTES", 0)
    with Spools(tmp_path) as spools:
        spools.new().append(b"1")
    assert [path.name for path in tmp_path.iterdir()] == names
    assert is_leftover(names[0])


def test_without_files_that_have_no_name_there_is_a_way_and_other_errors_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    number = errno.EOPNOTSUPP

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(spool, "_WAITING_BYTES", 0)
    with Spools(tmp_path) as spools:
        spools.new().append(b"1")
    number = errno.ENOSPC
    with Spools(tmp_path) as spools, pytest.raises(HashSetWriteError, match=f"{tmp_path}: cannot be written"):
        spools.new().append(b"1")


def test_in_memory_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(spool, "_unnamed_file", refuse)
    monkeypatch.setattr(spool, "_WAITING_BYTES", 0)
    with Spools(None) as spools:
        contents(built(listed(np.random.default_rng(2), 300), spools))
        assert hamming.HammingIndex.build(np.zeros((1, 32), np.uint8)) is not None
