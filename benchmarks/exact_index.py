"""Exact look-up beside a Python set, a dict and numpy's binary search, in one run and on one thread.

Run: ``python -m benchmarks.exact_index [--rows 100000 1000000 10000000] [--json]``: digests of 16, 20 and 32 bytes,
half of the keys listed. "kernel ns" is one look-up of many in one call of the kernel, "Python ns" one by way of
``ExactIndex.query``, with its ids; the set, the dict and numpy (in one call) answer the same keys. Bytes a hash: what
is stored with ids of 4 bytes; of the set and the dict their tables and the objects in them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import progress, show
from uploadguard._native import _kernel
from uploadguard.hashset.exact import ExactIndex

Records = NDArray[np.uint8]


def ns_each(call: Callable[..., object], keys: int, rounds: int) -> float:
    """Nanoseconds for each of the keys that one call looks up: the median of some rounds, after one to warm up."""
    call()
    times_ns = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        call()
        times_ns.append(time.perf_counter_ns() - started)
    return float(np.median(times_ns)) / keys


def numpy_search(records: Records) -> Callable[[Records], NDArray[np.bool_]]:
    """Whether each key is there: binary search by the first eight bytes, then all bytes. Records are sorted."""
    prefixes = np.ascontiguousarray(records[:, :8]).view(">u8")[:, 0].astype(np.uint64)

    def search(keys: Records) -> NDArray[np.bool_]:
        wanted = np.ascontiguousarray(keys[:, :8]).view(">u8")[:, 0].astype(np.uint64)
        rows = np.minimum(np.searchsorted(prefixes, wanted), len(records) - 1)
        return np.asarray((records[rows] == keys).all(axis=1))

    return search


def measure(rows: int, length_bytes: int, key_count: int, rounds: int) -> dict[str, Any]:
    """All ways at one size."""
    progress.print(f"{rows:,} x {length_bytes} bytes")
    rng = np.random.default_rng(rows + length_bytes)
    records = rng.integers(0, 256, (rows, length_bytes), dtype=np.uint8)
    listed = records[rng.integers(0, rows, key_count // 2)]
    keys = np.concatenate([listed, rng.integers(0, 256, (key_count - len(listed), length_bytes), dtype=np.uint8)])
    keys = np.ascontiguousarray(keys[rng.permutation(key_count)])
    started = time.perf_counter()
    index = ExactIndex.build(records)
    build_s = time.perf_counter() - started
    stored = sum(part.nbytes for part in index.sections().values())
    buffer = index.sections()["records"].data
    texts = [key.tobytes() for key in keys]
    row = {
        "rows": rows,
        "bytes": length_bytes,
        "kernel ns": ns_each(lambda: _kernel.exact_find_many(buffer, length_bytes, keys.data), key_count, rounds),
        "Python ns": ns_each(lambda: [index.query(text) for text in texts], key_count, rounds),
        "bytes a hash": stored / rows,
        "build s": build_s,
    }
    found = np.unique(index.query_batch(keys)[0])
    search = numpy_search(index.sections()["records"])
    assert np.array_equal(np.flatnonzero(search(keys)), found), "numpy disagrees"
    row["numpy ns"] = ns_each(lambda: search(keys), key_count, rounds)
    data = records.tobytes()
    objects = [data[start : start + length_bytes] for start in range(0, len(data), length_bytes)]
    del data
    as_set = set(objects)
    assert sum(text in as_set for text in texts) == len(found), "the set disagrees"
    row["set ns"] = ns_each(lambda held=as_set: [text in held for text in texts], key_count, rounds)
    row["set bytes"] = (sys.getsizeof(as_set) + rows * sys.getsizeof(objects[0])) / rows
    del as_set
    as_dict = dict(zip(objects, range(rows), strict=True))
    row["dict ns"] = ns_each(lambda: [as_dict.get(text) for text in texts], key_count, rounds)
    row["dict bytes"] = (sys.getsizeof(as_dict) + rows * (sys.getsizeof(objects[0]) + sys.getsizeof(1 << 20))) / rows
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [
        measure(rows, length, arguments.keys, arguments.rounds) for rows in arguments.rows for length in (16, 20, 32)
    ]
    show("exact look-up, one thread", found, as_json=arguments.json)


if __name__ == "__main__":
    main()
