"""Multi-index hashing finds what numpy's brute force finds: every row, once, whatever the limit, size and skew."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from uploadguard._native import _kernel
from uploadguard.hashset.hamming import HammingIndex
from uploadguard.hashset.tables import build_tables

Codes = NDArray[np.uint8]


def brute_force(codes: Codes, queries: Codes, limit_bits: int) -> list[tuple[int, int, int]]:
    """(query, row, distance) of all within the limit, sorted."""
    found = []
    for number, query in enumerate(queries):
        distances = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.int64)
        found += [(number, int(row), int(distances[row])) for row in np.nonzero(distances <= limit_bits)[0]]
    return found


def through_tables(
    codes: Codes, queries: Codes, limit_bits: int, tables: int, line_bits: int
) -> list[tuple[int, int, int]] | None:
    """The kernel's answer, forced through such tables."""
    made = build_tables(codes, tables, line_bits)
    packed = _kernel.mih_query(
        codes.data, codes.shape[1], tables, line_bits, made.lines.data, made.overflow.data, queries.data, limit_bits,
        10 * (len(codes) + 1) * 32,
    )  # fmt: skip
    return None if packed is None else sorted(map(tuple, np.frombuffer(packed, np.uint32).reshape(-1, 3).tolist()))


@st.composite
def searches(draw: st.DrawFn) -> tuple[Codes, Codes, int, int, int]:
    """Codes (random, clustered, duplicated or of few bits), queries near them and far from them, a limit, a shape."""
    length = draw(st.sampled_from([8, 32]))
    rows = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["random", "clustered", "duplicates", "sparse"]))
    codes = rng.integers(0, 256, (rows, length), dtype=np.uint8)
    if kind == "clustered":
        noise = np.packbits(rng.random((rows, length * 8)) < draw(st.floats(0, 0.3)), axis=1)
        codes = codes[rng.integers(0, max(1, rows // 50), rows)] ^ noise
    elif kind == "duplicates":
        codes = codes[rng.integers(0, 3, rows) % rows]
    elif kind == "sparse":
        codes = np.packbits(rng.random((rows, length * 8)) < 0.02, axis=1)
    queries = codes[rng.integers(0, rows, 3)]
    queries = queries ^ np.packbits(rng.random((3, length * 8)) < draw(st.floats(0, 0.2)), axis=1)
    # Wide limits with few tables enumerate millions of keys: true, but slow to test.
    tables = draw(st.integers(16, 32) if length == 32 else st.integers(5, 16))
    limit = draw(st.integers(0, 64) if length == 32 else st.integers(0, 24))
    shortest, longest = length * 8 // tables, -(-length * 8 // tables)
    line_bits = draw(st.integers(max(1, longest - 4), shortest))
    return np.ascontiguousarray(codes), np.ascontiguousarray(queries), limit, tables, line_bits


@given(searches())
def test_the_tables_find_every_row_once(search: tuple[Codes, Codes, int, int, int]) -> None:
    codes, queries, limit_bits, tables, line_bits = search
    assert through_tables(codes, queries, limit_bits, tables, line_bits) == brute_force(codes, queries, limit_bits)


@pytest.mark.parametrize(("tables", "line_bits"), [(12, 18), (13, 16), (14, 15), (16, 12), (16, 16)])
@pytest.mark.parametrize("limit_bits", [0, 9, 10, 11, 12, 31])
def test_the_tables_of_large_sets_find_every_row_once(tables: int, line_bits: int, limit_bits: int) -> None:
    rng = np.random.default_rng(tables)
    codes = rng.integers(0, 256, (3000, 32), dtype=np.uint8)
    codes[1500:] = codes[:1500] ^ np.packbits(rng.random((1500, 256)) < 0.1, axis=1)
    queries = codes[:20] ^ np.packbits(rng.random((20, 256)) < 0.03, axis=1)
    assert through_tables(codes, queries, limit_bits, tables, line_bits) == brute_force(codes, queries, limit_bits)


@pytest.mark.parametrize("limit_bits", [0, 31, 64, 100])
@pytest.mark.parametrize("length", [8, 32])
def test_an_index_is_exact_at_any_limit(length: int, limit_bits: int) -> None:
    rng = np.random.default_rng(length)
    codes = rng.integers(0, 256, (60_000, length), dtype=np.uint8)
    codes[59_000:] = codes[:1000]
    index = HammingIndex.build(codes)
    assert set(index.sections()) == {"codes", "ids", "table_shape", "table_lines", "table_overflow"}
    queries = np.ascontiguousarray(codes[:4] ^ np.uint8(1))
    numbers, ids, distances = index.query_batch(queries, limit_bits)
    assert sorted(zip(numbers.tolist(), ids.tolist(), distances.tolist(), strict=True)) == brute_force(
        codes, queries, limit_bits
    )


def test_codes_that_are_nearly_all_alike_are_scanned() -> None:
    """A bucket that holds everything would make tables slower than reading all codes once."""
    codes = np.repeat(np.arange(32, dtype=np.uint8)[None, :], 50_000, axis=0)
    codes[::1000, 0] ^= 1
    index = HammingIndex.build(codes)
    assert "table_lines" in index.sections()
    ids, distances = index.query(codes[1], 31)
    assert len(ids) == 50_000
    assert distances.max() == 1


def test_few_codes_have_no_tables() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (4000, 32), dtype=np.uint8)
    assert set(HammingIndex.build(codes).sections()) == {"codes", "ids"}


def test_one_index_serves_many_threads() -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 256, (60_000, 32), dtype=np.uint8)
    index = HammingIndex.build(codes)

    def found(row: int) -> bool:
        ids, distances = index.query(codes[row] ^ np.uint8(128), 40)
        return row in ids.tolist() and int(distances[ids.tolist().index(row)]) == 32

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(found, range(400)))


def test_damaged_tables_are_refused_and_never_read_outside() -> None:
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (60_000, 32), dtype=np.uint8)
    sections = {name: bytearray(part.tobytes()) for name, part in HammingIndex.build(codes).sections().items()}
    refused = 0
    for _ in range(80):
        name = ("table_lines", "table_overflow")[int(rng.integers(2))]
        damaged = {**sections, name: bytearray(sections[name])}
        start = int(rng.integers(len(damaged[name]) // 4)) * 4
        length = int(rng.choice([4, 4096, len(damaged[name])]))
        damaged[name][start : start + length] = rng.bytes(len(damaged[name][start : start + length]))
        index = HammingIndex.from_sections({key: memoryview(part) for key, part in damaged.items()}, 32)
        try:
            index.query(codes[int(rng.integers(60_000))], 31)
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017 - damage that no query meets is not seen by queries
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("drop", ["table_lines", "table_overflow"])
def test_half_of_the_tables_is_refused(drop: str) -> None:
    codes = np.random.default_rng(6).integers(0, 256, (60_000, 32), dtype=np.uint8)
    sections = {name: part.data.cast("B") for name, part in HammingIndex.build(codes).sections().items()}
    whole = sections.pop(drop)
    with pytest.raises(KeyError, match=drop):
        HammingIndex.from_sections(sections, 32)
    if drop == "table_lines":
        with pytest.raises(ValueError, match="do not fit"):
            HammingIndex.from_sections({**sections, drop: whole[:-64]}, 32)


@pytest.mark.parametrize("shape", [(0, 12), (16, 0), (16, 27), (33, 4), (16, 17), (16, 11), (2**31, 2**31)])
def test_a_shape_that_cannot_be_is_refused(shape: tuple[int, int]) -> None:
    codes = np.random.default_rng(6).integers(0, 256, (60_000, 32), dtype=np.uint8)
    sections = {name: part.data.cast("B") for name, part in HammingIndex.build(codes).sections().items()}
    shape_section = np.array([_kernel.MIH_LAYOUT, *shape], "<u4").data.cast("B")
    with pytest.raises(ValueError, match=r"no index|do not fit"):
        HammingIndex.from_sections({**sections, "table_shape": shape_section}, 32)


def test_tables_of_another_layout_are_refused() -> None:
    codes = np.random.default_rng(6).integers(0, 256, (60_000, 32), dtype=np.uint8)
    sections = {name: part.data.cast("B") for name, part in HammingIndex.build(codes).sections().items()}
    layout, *shape = np.frombuffer(sections["table_shape"], "<u4").tolist()
    sections["table_shape"] = np.array([layout - 1, *shape], "<u4").data.cast("B")
    with pytest.raises(ValueError, match="layout"):
        HammingIndex.from_sections(sections, 32)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("mih_cost", (10, 32, 0, 12, 31)),
        ("mih_cost", (10, 32, 33, 4, 31)),
        ("mih_cost", (10, 32, 8, 26, 31)),
        ("mih_cost", (10, 16, 11, 20, 31)),
        ("mih_cost", (-1, 32, 11, 20, 31)),
        ("mih_cost", (10, 32, 11, 20, -1)),
        ("mih_key_bits", (32, 0, 12)),
        ("mih_key_bits", (32, 33, 4)),
        ("mih_key_bits", (16, 11, 20)),
        ("mih_keys", (bytes(64), 32, 16, 12, 16, bytearray(8))),
        ("mih_keys", (bytes(64), 32, 16, 12, -1, bytearray(8))),
        ("mih_keys", (bytes(64), 32, 16, 12, 0, bytearray(12))),
        ("mih_keys", (bytes(65), 32, 16, 12, 0, bytearray(8))),
        ("mih_keys", (bytes(64), 0, 16, 12, 0, bytearray(8))),
        ("mih_keys", (bytes(64), 32, 16, 12, 0, bytearray(7))),
        ("mih_place", (bytes(8), 5, 0, bytearray(4 * 32), bytearray(64))),
        ("mih_place", (bytes(8), -1, 0, bytearray(4), bytearray(64))),
        ("mih_place", (bytes(8), 1, 0, bytearray(4), bytearray(64))),
        ("mih_place", (bytes(8), 0, 0, bytearray(0), bytearray(0))),
        ("mih_place", (bytes(8), 0, -1, bytearray(4), bytearray(64))),
        ("mih_place", (bytes(8), 0, 1 << 26, bytearray(4), bytearray(64))),
        ("mih_place", (bytes(8), 4, (1 << 24), bytearray(64), bytearray(64))),
        ("mih_place", (bytes(7), 0, 0, bytearray(4), bytearray(64))),
        ("mih_place", (bytes(8), 0, 0, bytearray(4), bytearray(63))),
        ("mih_fill", (bytes(8), 0, 0, bytearray(4), bytearray(64), bytearray(3), 0)),
        ("mih_fill", (bytes(8), 0, 0, bytearray(4), bytearray(64), bytearray(4), -1)),
        ("mih_fill", (bytes(8), 0, 0, bytearray(8), bytearray(64), bytearray(4), 0)),
        ("mih_fill", (bytes(8), 0, 0, bytearray((64).to_bytes(4, "little")), bytearray(64), bytearray(4), 0)),
        ("mih_shift_overflow", (bytearray(63), 1)),
        ("mih_query", (bytes(64), 32, 16, 12, bytes(16 * 64 << 12), b"", bytes(31), 31, 9)),
        ("mih_query", (bytes(64), 32, 16, 12, bytes(16 * 64 << 12), b"", bytes(32), -1, 9)),
        ("mih_query", (bytes(64), 32, 16, 12, bytes(16 * 64 << 12), b"", bytes(32), 31, -1)),
        ("mih_query", (bytes(64), 32, 16, 12, bytes(16 * 64 << 12), b"abc", bytes(32), 31, 9)),
        ("mih_query", (bytes(64), 32, 16, 12, bytes(15 * 64 << 12), b"", bytes(32), 31, 9)),
        ("mih_query", (bytes(63), 32, 16, 12, bytes(16 * 64 << 12), b"", bytes(32), 31, 9)),
        ("mih_query", (bytes(64), 0, 16, 12, bytes(16 * 64 << 12), b"", bytes(32), 31, 9)),
    ],
)
def test_the_kernel_refuses_what_does_not_fit(function: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"must|no index|no such table|not fit|not those"):
        getattr(_kernel, function)(*arguments)


@pytest.mark.parametrize("limit_bits", [128, 256, 1000])
def test_limits_that_take_in_half_of_all_are_scanned_and_exact(limit_bits: int) -> None:
    rng = np.random.default_rng(8)
    codes = rng.integers(0, 256, (45_000, 32), dtype=np.uint8)
    index = HammingIndex.build(codes)
    assert "table_lines" in index.sections()
    _, ids, distances = index.query_batch(codes[:1], limit_bits)
    expected = brute_force(codes, codes[:1], limit_bits)
    assert sorted(zip(ids.tolist(), distances.tolist(), strict=True)) == [(row, bits) for _, row, bits in expected]


@pytest.mark.parametrize("rows", [3, 60_000])
@pytest.mark.parametrize("length", [8, 32])
def test_an_index_is_saved_and_opened_by_memory_map(rows: int, length: int, tmp_path: Path) -> None:
    codes = np.random.default_rng(rows).integers(0, 256, (rows, length), dtype=np.uint8)
    ids = np.arange(rows, dtype=np.uint32)[::-1] + 7
    HammingIndex.build(codes, ids).save(tmp_path / "index")
    opened = HammingIndex.open(tmp_path / "index")
    assert stat.S_IMODE((tmp_path / "index").stat().st_mode) == 0o700
    found, distances = opened.query(codes[2], 5)
    assert (int(found[0]), int(distances[0])) == (int(ids[2]), 0)
    assert not opened.sections()["codes"].flags.writeable
