"""The Hamming index beside FAISS's binary indexes, our own scan and numpy, in one run and on one thread.

Run: ``python -m benchmarks.hamming_index [--rows 100000 1000000 10000000] [--photos DIR] [--json]``.
Codes of 256 bits within 31 bits (inclusive), then, unless ``--no-64``, of 64 bits within 7. Queries are half hits, half
misses; see benchmarks/codes.py. From ``--only-ours-from`` rows on (20 million) the others are left out.

Ours is saved and opened by memory map; "first us" is the first query behind that, the others run once all pages are
mapped, as in a process that has served for a while. Recall is of the pairs that numpy finds over the first
``--recall-queries`` queries. Bytes a hash are what is stored; for FAISS's multi-index, which cannot say, by how much
the process grew. FAISS's radius is exclusive: it is given one more.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.codes import Codes, Workload, workload
from benchmarks.timing import p50_p99, progress, resident_bytes, show, timed_us
from uploadguard.hashset.hamming import HammingIndex

Pairs = set[tuple[int, int]]
Search = Callable[[Codes], tuple[NDArray[Any], NDArray[Any]]]
"""Query numbers and rows of all hits of a batch (q, bytes)."""

BATCH = 8
LIMITS_BITS = {32: 31, 8: 7}
FAISS_TABLES = {32: (16, 16), 8: (4, 16)}
"""Tables and bits of each, so that one flipped bit (nflip 1) in one of them is enough within the limit."""


def numpy_search(codes: Codes, limit_bits: int) -> Search:
    """Every code compared, a chunk at a time."""
    words = codes.view(np.uint64)

    def search(queries: Codes) -> tuple[NDArray[Any], NDArray[Any]]:
        numbers, rows = [], []
        for number, query in enumerate(queries.view(np.uint64)):
            for start in range(0, len(words), 1 << 18):
                distances = np.bitwise_count(words[start : start + (1 << 18)] ^ query).sum(axis=1, dtype=np.uint16)
                found = np.flatnonzero(distances <= limit_bits) + start
                rows.append(found)
                numbers.append(np.full(len(found), number))
        return np.concatenate(numbers), np.concatenate(rows)

    return search


def faiss_search(index: Any, limit_bits: int) -> Search:
    """A range search, whose radius is exclusive."""

    def search(queries: Codes) -> tuple[NDArray[Any], NDArray[Any]]:
        ends, _, rows = index.range_search(queries, limit_bits + 1)
        return np.repeat(np.arange(len(queries)), np.diff(ends.astype(np.int64))), rows

    return search


def our_search(index: HammingIndex, limit_bits: int) -> Search:
    """As a host calls it."""

    def search(queries: Codes) -> tuple[NDArray[Any], NDArray[Any]]:
        numbers, ids, _ = index.query_batch(queries, limit_bits)
        return numbers, ids

    return search


def pairs(found: tuple[NDArray[Any], NDArray[Any]]) -> Pairs:
    """Hits as a set."""
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def measure(
    name: str, search: Search, work: Workload, truth: Pairs, recall_queries: int, **facts: Any
) -> dict[str, Any]:
    """Times of single queries and batches, and recall."""
    progress.print(f"{len(work.codes):,} x {work.codes.shape[1] * 8} bits: {name}")
    singles = [work.queries[i : i + 1] for i in range(len(work.queries))]
    batches = [work.queries[i : i + BATCH] for i in range(0, len(work.queries) - BATCH + 1, BATCH)]
    for query in singles[: min(20, len(singles))]:
        search(query)
    p50_us, p99_us = p50_p99(timed_us(search, singles))
    batch_us, _ = p50_p99(timed_us(search, batches))
    found = pairs(search(work.queries[:recall_queries])) if recall_queries else set()
    return {
        "rows": len(work.codes),
        "bits": work.codes.shape[1] * 8,
        "index": name,
        "first us": facts.get("first_us"),
        "p50 us": p50_us,
        "p99 us": p99_us,
        "batch of 8, us a query": batch_us / BATCH,
        "recall": len(found & truth) / len(truth) if truth else None,
        "false hits": len(found - truth) if truth else None,
        "bytes a hash": facts.get("stored_bytes", 0) / len(work.codes),
        "build s": facts.get("build_s"),
        "save s": facts.get("save_s"),
        "open ms": facts.get("open_ms"),
    }


def save(index: HammingIndex, path: Path) -> dict[str, tuple[int, int]]:
    """Write the sections one behind the other, each from a page's start, as segments do; returns where they are."""
    places = {}
    with path.open("wb") as file:
        for name, values in index.sections().items():
            file.write(bytes(-file.tell() % 4096))
            places[name] = (file.tell(), values.nbytes)
            file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return places


def open_saved(path: Path, places: dict[str, tuple[int, int]], length_bytes: int) -> tuple[mmap.mmap, HammingIndex]:
    """Map what :func:`save` wrote, without reading it."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)  # as segments are
    view = memoryview(mapped)
    sections = {name: view[at : at + size] for name, (at, size) in places.items()}
    return mapped, HammingIndex.from_sections(sections, length_bytes)


def ours(work: Workload, limit_bits: int, truth: Pairs, recall_queries: int, directory: Path) -> dict[str, Any]:
    """Build, save, open by memory map, and query that."""
    started = time.perf_counter()
    built = HammingIndex.build(work.codes)
    build_s = time.perf_counter() - started
    path = directory / "index"
    started = time.perf_counter()
    places = save(built, path)
    save_s = time.perf_counter() - started
    del built
    started = time.perf_counter()
    mapped, index = open_saved(path, places, work.codes.shape[1])
    open_ms = (time.perf_counter() - started) * 1e3
    search = our_search(index, limit_bits)
    (first_us,) = timed_us(search, [work.queries[:1]])
    for start in range(0, len(mapped), mmap.PAGESIZE):
        mapped[start]
    stored_bytes = sum(size for _, size in places.values())
    return measure(
        "uploadguard", search, work, truth, recall_queries,
        stored_bytes=stored_bytes, first_us=first_us, build_s=build_s, save_s=save_s, open_ms=open_ms,
    )  # fmt: skip


def theirs(work: Workload, limit_bits: int, truth: Pairs, recall_queries: int, queries: int) -> list[dict[str, Any]]:
    """FAISS's two exact indexes and numpy; numpy, and on large sets all, over fewer queries."""
    length = work.codes.shape[1]
    fewer = Workload(work.codes, work.queries[:queries])
    rows = []
    for name, index in (
        ("FAISS flat", faiss.IndexBinaryFlat(length * 8)),
        (f"FAISS multi-hash {FAISS_TABLES[length]}", faiss.IndexBinaryMultiHash(length * 8, *FAISS_TABLES[length])),
    ):
        before, started = resident_bytes(), time.perf_counter()
        index.add(work.codes)
        build_s, grown = time.perf_counter() - started, resident_bytes() - before
        if hasattr(index, "nflip"):
            index.nflip = 1
        stored = grown if hasattr(index, "nflip") else work.codes.nbytes
        search = faiss_search(index, limit_bits)
        rows.append(measure(name, search, fewer, truth, recall_queries, stored_bytes=stored, build_s=build_s))
        del index, search
        ctypes.CDLL(None).malloc_trim(0)
    few = Workload(work.codes, work.queries[: 2 * BATCH])
    search = numpy_search(work.codes, limit_bits)
    rows.append(measure("numpy", search, few, set(), 0, stored_bytes=work.codes.nbytes))
    return rows


def compare(rows: int, length_bytes: int, arguments: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """All indexes at one size."""
    limit_bits = LIMITS_BITS[length_bytes]
    work = workload(rows, length_bytes, arguments.queries, arguments.photos)
    recall_queries = min(arguments.recall_queries, arguments.queries)
    truth = pairs(numpy_search(work.codes, limit_bits)(work.queries[:recall_queries])) if recall_queries else set()
    found = [ours(work, limit_bits, truth, recall_queries, directory)]
    if rows < arguments.only_ours_from:
        scan = our_search(HammingIndex(work.codes), limit_bits)
        few = Workload(work.codes, work.queries[: arguments.slow_queries])
        found.append(measure("our scan", scan, few, truth, recall_queries, stored_bytes=work.codes.nbytes))
        found += theirs(work, limit_bits, truth, recall_queries, arguments.slow_queries)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rows-64", type=int, default=1_000_000)
    parser.add_argument("--no-64", action="store_true")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--slow-queries", type=int, default=400, help="queries of everything but our index")
    parser.add_argument("--recall-queries", type=int, default=40)
    parser.add_argument("--only-ours-from", type=int, default=20_000_000)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; otherwise pictures are drawn")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    sizes = [(rows, 32) for rows in arguments.rows] + ([] if arguments.no_64 else [(arguments.rows_64, 8)])
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        for rows, length_bytes in sizes:
            found += compare(rows, length_bytes, arguments, Path(directory))
    show("Hamming look-up, one thread; 256 bits within 31, 64 bits within 7", found, as_json=arguments.json)


if __name__ == "__main__":
    main()
