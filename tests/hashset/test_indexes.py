"""The Hamming and exact indexes against numpy."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hashset.made_up import distances_bits
from uploadguard.hashset.exact import ExactIndex
from uploadguard.hashset.hamming import HammingIndex

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, rows=st.integers(0, 600), length=st.sampled_from([8, 32]), limit=st.integers(0, 256))
def test_hamming_query_batch_is_the_brute_force_in_order(seed: int, rows: int, length: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (max(1, rows // 3), length), dtype=np.uint8)[
        rng.integers(0, max(1, rows // 3), rows)  # with duplicates
    ]
    ids = rng.integers(0, 50, rows).astype(np.uint32)
    queries = np.concatenate([codes[:3], rng.integers(0, 256, (2, length), dtype=np.uint8)])
    index = HammingIndex.build(codes, ids)
    expected = []
    for number, query in enumerate(queries):
        distances = distances_bits(codes, query)
        expected += sorted((number, int(distances[row]), int(ids[row])) for row in np.flatnonzero(distances <= limit))
    found_queries, found_ids, found_distances = index.query_batch(queries, limit)
    assert list(zip(found_queries.tolist(), found_distances.tolist(), found_ids.tolist(), strict=True)) == expected
    for number, query in enumerate(queries):
        one_ids, one_distances = index.query(query.tobytes(), limit)
        assert [(number, d, i) for d, i in zip(one_distances.tolist(), one_ids.tolist(), strict=True)] == [
            hit for hit in expected if hit[0] == number
        ]


def test_hamming_ids_are_row_numbers_by_default_and_ties_go_by_id() -> None:
    codes = np.zeros((300, 32), np.uint8)
    codes[7, 0] = 1
    ids, distances = HammingIndex.build(codes).query(bytes(32), 1)
    assert ids.tolist() == [*range(7), *range(8, 300), 7]
    assert distances.tolist() == [0] * 299 + [1]
    assert HammingIndex.build(codes).query(bytes(32))[0].dtype == np.uint32


def test_hamming_wraps_a_memory_map_without_copying(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    path.write_bytes(np.arange(64 * 32, dtype=np.uint16).astype(np.uint8).tobytes())
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        index = HammingIndex(np.frombuffer(mapped, np.uint8).reshape(-1, 32))
        assert index.query(b"\xaa" * 32, 0)[0].tolist() == []
        mapped[5 * 32 : 6 * 32] = b"\xaa" * 32  # seen, so nothing was copied
        assert index.query(b"\xaa" * 32, 0)[0].tolist() == [5]


def test_hamming_build_takes_any_layout() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (100, 32), dtype=np.uint8)
    for layout in (np.asfortranarray(codes), np.repeat(codes, 2, axis=0)[::2], codes):
        assert HammingIndex.build(layout).query(codes[42].tobytes(), 0)[0].tolist() == [42]
    with pytest.raises(ValueError, match="C-contiguous"):
        HammingIndex(np.asfortranarray(codes))


@pytest.mark.parametrize("codes", [np.zeros((2, 16), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int8)])
def test_hamming_refuses_other_codes(codes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="codes must be uint8"):
        HammingIndex.build(codes)
    with pytest.raises(ValueError, match="queries must be uint8"):
        HammingIndex.build(np.zeros((2, 32), np.uint8)).query_batch(codes)


@pytest.mark.parametrize("ids", [np.zeros(3, np.uint32), np.zeros(2, np.int64), np.zeros((2, 1), np.uint32)])
def test_indexes_refuse_other_ids(ids: np.ndarray) -> None:
    for index in (HammingIndex, ExactIndex):
        with pytest.raises(ValueError, match="ids must be uint32"):
            index(np.zeros((2, 32), np.uint8), ids)


@given(
    seed=SEEDS,
    rows=st.integers(0, 400),
    length=st.integers(1, 64),
    values=st.sampled_from([2, 256]),
    shared_prefix=st.booleans(),
)
def test_exact_query_is_the_brute_force(seed: int, rows: int, length: int, values: int, shared_prefix: bool) -> None:
    rng = np.random.default_rng(seed)
    records = rng.integers(0, values, (rows, length), dtype=np.uint8)
    records = records[rng.integers(0, max(1, rows // 2), rows)] if rows else records
    if shared_prefix:
        records[:, : length // 2] = 7
    ids = rng.permutation(rows).astype(np.uint32)
    index = ExactIndex.build(records, ids)
    stored = [row.tobytes() for row in index.sections()["records"]]
    assert stored == sorted(row.tobytes() for row in records)
    keys = np.concatenate([records[:10], rng.integers(0, values, (5, length), dtype=np.uint8)])
    expected = [sorted(ids[(records == key).all(axis=1)].tolist()) for key in keys]
    assert [index.query(key.tobytes()).tolist() for key in keys] == expected
    queries, found = index.query_batch(keys)
    assert [found[queries == number].tolist() for number in range(len(keys))] == expected


def test_exact_ids_are_row_numbers_by_default() -> None:
    records = np.array([[1] * 16, [2] * 16, [2] * 16, [3] * 16], np.uint8)
    index = ExactIndex(records)
    assert index.query(bytes([2] * 16)).tolist() == [1, 2]
    assert index.query_batch(records[1:])[1].tolist() == [1, 2, 1, 2, 3]
    assert ExactIndex.build(records[::-1]).query(bytes([2] * 16)).tolist() == [1, 2]


@pytest.mark.parametrize("records", [np.zeros((2, 65), np.uint8), np.zeros((2, 0), np.uint8), np.zeros(16, np.uint8)])
def test_exact_refuses_other_records(records: np.ndarray) -> None:
    with pytest.raises(ValueError, match="records must be uint8"):
        ExactIndex(records)
    with pytest.raises(ValueError, match="keys must be uint8"):
        ExactIndex(np.zeros((2, 16), np.uint8)).query_batch(records)


def test_sections_come_back_as_the_same_index() -> None:
    values = np.random.default_rng(3).integers(0, 256, (100, 32), dtype=np.uint8)
    for kind in (HammingIndex, ExactIndex):
        sections = {name: memoryview(array.tobytes()) for name, array in kind.build(values).sections().items()}
        index = kind.from_sections(sections, 32)
        hits = (
            index.query_batch(values[40:41], 0) if isinstance(index, HammingIndex) else index.query_batch(values[40:41])
        )
        assert hits[1].tolist() == [40]
        assert len(index) == 100
        with pytest.raises(KeyError):
            kind.from_sections({}, 32)
        with pytest.raises(ValueError, match="reshape"):
            kind.from_sections(sections, 31)


def test_reprs_show_counts_only() -> None:
    assert repr(HammingIndex.build(np.zeros((2, 8), np.uint8))) == "HammingIndex(rows=2, length_bytes=8)"
    assert repr(ExactIndex.build(np.zeros((2, 20), np.uint8))) == "ExactIndex(rows=2, length_bytes=20)"
