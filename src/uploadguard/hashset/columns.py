"""The hashes of one signal type on their way into a segment: collected in spools, written as an index."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from uploadguard.hashset.exact import MAX_RECORD_BYTES
from uploadguard.hashset.hamming import CODE_LENGTHS_BYTES, HammingIndex
from uploadguard.hashset.ids import Rows
from uploadguard.hashset.metadata import IndexKind, check_signal_name
from uploadguard.hashset.runs import Part, SortedRuns
from uploadguard.hashset.sections import SectionWriter
from uploadguard.hashset.spool import Spools, bytes_of, parts_of

__all__ = ["CHUNK_ENTRIES", "CollectedColumn", "Column", "HashCounts", "kind_of", "write_sorted"]

CHUNK_ENTRIES = 1 << 18
"""How many entries are worked on at a time."""

HashCounts = Callable[[], Iterator[npt.NDArray[np.integer]]]
"""How many hashes each entry has, many entries at a time, all of them in order. Can be called again."""


def kind_of(max_distance_bits: int) -> IndexKind:
    """How hashes are stored that are looked up within that limit."""
    return "hamming" if max_distance_bits > 0 else "exact"


class Column:
    """The hashes of one signal type. Takes a fixed amount of memory, whatever their number."""

    def __init__(self, name: str, kind: IndexKind, length_bytes: int, spools: Spools, columns: int = 1) -> None:
        """``columns`` is how many are collected at once, which share the memory to sort in."""
        self.name = name
        self.kind = kind
        self.length_bytes = length_bytes
        self._spools = spools
        self._runs = SortedRuns(length_bytes, spools, columns) if kind == "exact" else None
        self._codes = spools.new()
        self._ids = spools.new()
        self.counts: HashCounts = lambda: iter(())

    def __len__(self) -> int:
        return len(self._runs) if self._runs is not None else self._ids.size_bytes // 4

    @property
    def index_bytes(self) -> int:
        """What the index will take, about."""
        if self._runs is not None:
            return len(self) * (self.length_bytes + 4)
        return HammingIndex.size_bytes(len(self), self.length_bytes)

    def add(self, values: npt.NDArray[np.uint8], entries: Rows) -> None:
        """Take hashes, uint8 (n, length), and the number of each one's entry; fewer than a million at a time."""
        if self._runs is not None:
            self._runs.add(values, entries)
        else:
            self._codes.append(bytes_of(values))
            self._ids.append(bytes_of(entries))

    def add_sorted(self, parts: Iterable[Part]) -> None:
        """Take hashes for exact look-up that come by (hash, entry)."""
        assert self._runs is not None
        self._runs.add_run(parts)

    def write(self, writer: SectionWriter) -> None:
        """Write the index. Lets go of the hashes."""
        prefix = f"signals/{self.name}/"
        if self._runs is not None:
            write_sorted(writer, prefix, self._runs, self.length_bytes, self._spools)
            return
        codes = self._codes.map(np.uint8).reshape(-1, self.length_bytes)
        for part, length_bytes, parts in HammingIndex.stream_sections(codes, self._ids.map(np.uint32), self._spools):
            writer.write_parts(prefix + part, length_bytes, parts)


class CollectedColumn(Column):
    """Hashes that come one by one with the entries, in their order.

    They are put behind each other in ``values``, and the number of each one's entry into ``entries``: an import's time
    goes into such steps. :meth:`flush` is to be called now and then.
    """

    def __init__(self, name: str, length_bytes: int, max_distance_bits: int, spools: Spools, columns: int) -> None:
        """Raises ``ValueError`` for what no index is for."""
        check_signal_name(name)
        kind = kind_of(max_distance_bits)
        supported = CODE_LENGTHS_BYTES if kind == "hamming" else range(1, MAX_RECORD_BYTES + 1)
        if max_distance_bits < 0 or length_bytes not in supported:
            raise ValueError(
                f"signal type {name!r}: no look-up for {length_bytes} bytes within {max_distance_bits} bits; "
                f"exact look-up takes 1 to {MAX_RECORD_BYTES} bytes, Hamming look-up 8 or 32"
            )
        super().__init__(name, kind, length_bytes, spools, columns)
        self.values = bytearray()
        self.entries = array("I")
        self._entries = spools.new() if kind == "exact" else self._ids

    def flush(self) -> None:
        """Let go of what was put into ``values`` and ``entries``; the objects stay the same."""
        values = np.frombuffer(bytes(self.values), np.uint8).reshape(-1, self.length_bytes)
        entries = np.frombuffer(self.entries.tobytes(), np.uint32)
        self.values.clear()
        del self.entries[:]
        self.add(values, entries)
        if self._entries is not self._ids:
            self._entries.append(bytes_of(entries))

    def close(self, entries: int) -> None:
        """There are no more hashes, and so many entries."""
        self.flush()
        ascending = self._entries.map(np.uint32)

        def counts() -> Iterator[npt.NDArray[np.integer]]:
            for start in range(0, entries, CHUNK_ENTRIES):
                end = min(start + CHUNK_ENTRIES, entries)
                low, high = np.searchsorted(ascending, np.array([start, end], np.uint32))  # of one type: no copy
                yield np.bincount(ascending[low:high] - np.uint32(start), minlength=end - start)

        self.counts = counts


def write_sorted(writer: SectionWriter, prefix: str, runs: SortedRuns, length_bytes: int, spools: Spools) -> None:
    """Write what an :class:`~uploadguard.hashset.exact.ExactIndex` of these records stores."""
    ids = spools.new()

    def records() -> Iterator[memoryview]:
        for part, part_ids in runs.merged():
            ids.append(bytes_of(part_ids.astype("<u4", copy=False)))
            yield bytes_of(part)

    writer.write_parts(f"{prefix}records", len(runs) * length_bytes, records())
    writer.write_parts(f"{prefix}ids", len(runs) * 4, parts_of(ids.map(np.uint8)))
