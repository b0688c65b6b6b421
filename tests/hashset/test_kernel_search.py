"""The search half of the native kernel against numpy, and its argument checks."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.hashset import children
from tests.hashset.made_up import distances_bits
from uploadguard._native import _kernel

SEEDS = st.integers(0, 2**32 - 1)
# Around the kernel's block of 256 rows, and a few blocks.
ROWS = st.one_of(st.integers(0, 20), st.integers(250, 262), st.integers(505, 520), st.integers(0, 2000))


def random_codes(seed: int, rows: int, length: int, *, ones: float = 0.5, near: int | None = None) -> NDArray[np.uint8]:
    """Codes with a share of ``ones``; with ``near``, all within that many bits of the first."""
    rng = np.random.default_rng(seed)
    if near is None:
        return np.packbits(rng.random((rows, 8 * length)) < ones, axis=1)
    flips = np.zeros((rows, 8 * length), bool)
    for row in flips:
        row[rng.integers(0, 8 * length, near)] = True
    return np.packbits(flips, axis=1) ^ rng.integers(0, 256, length, dtype=np.uint8)


def scan(codes: NDArray[np.uint8], queries: NDArray[np.uint8], limit: int) -> set[tuple[int, ...]]:
    packed = _kernel.hamming_scan(codes.tobytes(), codes.shape[1], queries.tobytes(), limit)
    hits = np.frombuffer(packed, np.uint32).reshape(-1, 3).tolist()
    assert len(hits) == len(set(map(tuple, hits)))
    return set(map(tuple, hits))


def brute_force(codes: NDArray[np.uint8], queries: NDArray[np.uint8], limit: int) -> set[tuple[int, ...]]:
    found = set()
    for number, query in enumerate(queries):
        distances = distances_bits(codes, query)
        found |= {(number, int(row), int(distances[row])) for row in np.flatnonzero(distances <= limit)}
    return found


@given(
    seed=SEEDS,
    rows=ROWS,
    length=st.sampled_from([8, 32]),
    query_count=st.integers(0, 9),
    limit=st.integers(0, 256),
    shape=st.sampled_from([{"ones": 0.5}, {"ones": 0.02}, {"near": 3}, {"near": 40}]),
)
def test_hamming_scan_finds_what_numpy_finds(
    seed: int, rows: int, length: int, query_count: int, limit: int, shape: dict[str, Any]
) -> None:
    codes = random_codes(seed, rows, length, **shape)
    queries = random_codes(seed + 1, query_count, length)
    queries[::2] = codes[: len(queries[::2])] if rows >= len(queries[::2]) else queries[::2]
    assert scan(codes, queries, limit) == brute_force(codes, queries, limit)


@pytest.mark.parametrize("length", [8, 32])
def test_the_limit_is_inclusive_wherever_the_bits_differ(length: int) -> None:
    query = np.zeros((1, length), np.uint8)
    for limit in range(8 * length + 1):
        bits = np.zeros((3, 8 * length), bool)
        bits[0, :limit] = bits[1, 8 * length - limit :] = bits[2, : limit + 1] = True
        expected = {(0, 0, limit), (0, 1, limit)} | ({(0, 2, limit)} if limit == 8 * length else set())
        assert scan(np.packbits(bits, axis=1), query, limit) == expected


def test_codes_of_any_alignment_are_read_in_place() -> None:
    codes = random_codes(1, 700, 32, near=20)
    for offset in (1, 3, 8):
        moved = memoryview(bytes(offset) + codes.tobytes())[offset:]
        hits = np.frombuffer(_kernel.hamming_scan(moved, 32, codes[:3].tobytes(), 31), np.uint32).reshape(-1, 3)
        assert set(map(tuple, hits.tolist())) == brute_force(codes, codes[:3], 31)


def test_more_hits_than_fit_any_first_guess_all_come_back() -> None:
    codes = np.zeros((100_000, 8), np.uint8)
    assert len(_kernel.hamming_scan(codes, 8, bytes(8 * 5), 0)) == 12 * 5 * 100_000


def test_more_hits_than_memory_are_a_memory_error() -> None:
    process, pipe = children.start(children.scan_out_of_memory)
    assert pipe.recv() == ("MemoryError", 10 * 12)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"", 16, b"", 0), "codes of 16 bytes are not supported; use 8 or 32"),
        ((b"", 0, b"", 0), "codes of 0 bytes"),
        ((b"", -8, b"", 0), "codes of -8 bytes"),
        ((bytes(33), 32, bytes(32), 0), "codes holds 33 bytes, which is not a multiple of 32"),
        ((bytes(32), 32, bytes(31), 0), "queries holds 31 bytes, which is not a multiple of 32"),
        ((bytes(32), 32, bytes(32), -1), "max_distance_bits is -1; it must be 0 or more"),
    ],
)
def test_hamming_scan_refuses_wrong_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernel.hamming_scan(*arguments)


def test_buffers_must_be_contiguous_and_numbers_fit() -> None:
    with pytest.raises((ValueError, BufferError)):
        _kernel.hamming_scan(memoryview(bytes(128))[::2], 32, bytes(32), 0)
    with pytest.raises(OverflowError):
        _kernel.hamming_scan(bytes(32), 32, bytes(32), 2**64)
    with pytest.raises(TypeError):
        _kernel.hamming_scan("text", 32, bytes(32), 0)  # type: ignore[arg-type]
    assert len(_kernel.hamming_scan(bytes(32), 32, b"\xff" * 32, sys.maxsize)) == 12


def sorted_records(seed: int, rows: int, length: int, skew: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (rows, length), dtype=np.uint8)
    match skew:
        case "duplicates":
            records = records[rng.integers(0, max(1, rows // 10), rows)] if rows else records
        case "one prefix":
            records[:, : min(8, length - 1)] = 0x41
        case "geometric":  # the first eight bytes grow by powers of two: interpolation lands at the wrong end
            records[:, : length - 1] = 0
            for row in range(rows):
                records[row, min(row // 32, length - 1)] |= 1 << row % 8
        case "two ends":
            records[: rows // 2, :-1] = 0
            records[rows // 2 :, :-1] = 0xFF
        case "few values":
            records &= 1
    return records[np.lexsort(records.T[::-1])]


@given(
    seed=SEEDS,
    rows=ROWS,
    length=st.one_of(st.sampled_from([16, 20, 32]), st.integers(1, 64)),
    skew=st.sampled_from(["none", "duplicates", "one prefix", "geometric", "two ends", "few values"]),
)
def test_exact_find_finds_what_numpy_finds(seed: int, rows: int, length: int, skew: str) -> None:
    records = sorted_records(seed, rows, length, skew)
    rng = np.random.default_rng(seed + 1)
    present = records[rng.integers(0, rows, 20)] if rows else records
    beside = present.copy()
    beside[:, -1] ^= 1
    ends = np.array([[0] * length, [255] * length], np.uint8)
    keys = np.concatenate([present, beside, ends, rng.integers(0, 256, (5, length), dtype=np.uint8)])
    ranges = np.frombuffer(_kernel.exact_find_many(records, length, keys), np.uint64).reshape(-1, 2).tolist()
    rows_as_bytes = [row.tobytes() for row in records]
    for key, (low, high) in zip(keys, ranges, strict=True):
        assert low == sum(row < key.tobytes() for row in rows_as_bytes)
        assert high - low == rows_as_bytes.count(key.tobytes())
        assert _kernel.exact_find(records, length, key.tobytes()) == (low, high)


@given(data=st.binary(max_size=4000), length=st.integers(1, 64), key=st.binary(min_size=64, max_size=64))
def test_unsorted_records_give_a_range_inside_them(data: bytes, length: int, key: bytes) -> None:
    data = data[: len(data) // length * length]
    low, high = _kernel.exact_find(data, length, key[:length])
    assert 0 <= low <= high <= len(data) // length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"", 0, b""), "records of 0 bytes are not supported; use 1 to 64"),
        ((b"", 65, b""), "records of 65 bytes"),
        ((b"", -1, b""), "records of -1 bytes"),
        ((bytes(17), 16, bytes(16)), "records holds 17 bytes, which is not a multiple of 16"),
    ],
)
def test_exact_find_refuses_wrong_arguments(arguments: Any, message: str) -> None:
    for find in (_kernel.exact_find, _kernel.exact_find_many):
        with pytest.raises(ValueError, match=message):
            find(*arguments)


def test_exact_find_refuses_wrong_keys() -> None:
    with pytest.raises(ValueError, match="key holds 15 bytes, records 16 each"):
        _kernel.exact_find(bytes(32), 16, bytes(15))
    with pytest.raises(ValueError, match="keys holds 15 bytes, which is not a multiple of 16"):
        _kernel.exact_find_many(bytes(32), 16, bytes(15))


def test_a_scan_lets_other_threads_run() -> None:
    codes = np.zeros((4_000_000, 8), np.uint8)
    done = threading.Event()
    ticks_during_scan = 0

    def scan_in_background() -> None:
        _kernel.hamming_scan(codes, 8, b"\xff" * 8 * 64, 1)
        done.set()

    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread = threading.Thread(target=scan_in_background)
        thread.start()
        while not done.is_set():
            ticks_during_scan += 1
        thread.join()
    finally:
        sys.setswitchinterval(switch_interval_s)
    # A scan that kept the GIL would let this thread count before and after it only.
    assert ticks_during_scan > 1000
