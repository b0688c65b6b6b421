"""Builds the tables of a Hamming index, a block of lines at a time, on several CPUs.

A block, the rows' keys in one table, and the rows that do not fit their lines are all that is held at once: about
160 MiB with four CPUs, whatever the number of codes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uploadguard._native import _kernel
from uploadguard.hashset.spool import Spools, bytes_of

__all__ = [
    "LINE_BYTES",
    "Tables",
    "build_tables",
    "count_line_rows",
    "room_on_lines",
    "stream_tables",
    "tables_bytes",
]

LINE_BYTES = 64
_LINE_WORDS = LINE_BYTES // 4
_BLOCK_LINES = 1 << 18
_WINDOW_WORDS = 1 << 22
"""How much overflow of a block is made at once; only where very many codes are alike is there more."""

_KEYS_AT_ONCE = 1 << 18
_WORKERS = 4
"""More of them would hold more blocks at once."""

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Tables for multi-index hashing: ``count`` of them, each of 2 to the power of ``line_bits`` lines.

    ``lines`` and ``overflow`` are uint32, one-dimensional; the kernel's ``mih.h`` says what they hold.
    """

    count: int
    line_bits: int
    lines: Words
    overflow: Words


def tables_bytes(count: int, line_bits: int) -> int:
    """What the lines of so many tables take."""
    return count * LINE_BYTES << line_bits


def count_line_rows(
    tables: Tables, length_bytes: int
) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]]:
    """How many rows each line has, and whether that is more than it holds, many lines at a time.

    Raises ``ValueError`` for damaged tables.
    """
    lines = tables.lines.reshape(tables.count, -1, _LINE_WORDS)
    for table, key_bits in enumerate(_kernel.mih_key_bits(length_bytes, tables.count, tables.line_bits)):
        last_value = (1 << (key_bits - tables.line_bits)) - 1
        for start in range(0, lines.shape[1], _BLOCK_LINES):
            block = lines[table, start : start + _BLOCK_LINES]
            counts = np.ascontiguousarray(block[:, :2]).view(np.uint64)[:, 0]
            overflowing = counts == np.uint64(2**64 - 1)
            rows = counts * np.uint64(0x1111111111111111) >> np.uint64(60)  # the sum of sixteen counts of four bits
            ends = block[overflowing, 2].astype(np.int64) + last_value
            if len(ends) and int(ends.max()) >= len(tables.overflow):
                raise ValueError("the tables are damaged")
            rows[overflowing] = tables.overflow[ends]
            yield rows, overflowing


def room_on_lines(size_bytes: int) -> Codes:
    """Room that begins on a cache line of the processor's, so that what is laid out for one line takes no second."""
    room = np.empty(size_bytes + LINE_BYTES, np.uint8)
    return room[-room.ctypes.data % LINE_BYTES :][:size_bytes]


def build_tables(codes: Codes, count: int, line_bits: int) -> Tables:
    """The tables of ``codes``, in memory."""
    lines = room_on_lines(tables_bytes(count, line_bits)).view(np.uint32)
    words = _LINE_WORDS * min(_BLOCK_LINES, 1 << line_bits)
    overflow: list[Words] = []
    with Spools(None) as spools:
        blocks = _Blocks(codes, count, line_bits, spools, lambda number: lines[number * words : (number + 1) * words])
        for _ in blocks.made(overflow.append):
            pass
    return Tables(count, line_bits, lines, np.concatenate(overflow) if overflow else np.empty(0, np.uint32))


def stream_tables(
    codes: Codes, count: int, line_bits: int, spools: Spools, on_overflow: Callable[[Words], None]
) -> Iterator[Words]:
    """The lines of the tables of ``codes``, a block at a time; tells the next words of their overflow before each."""
    words = _LINE_WORDS * min(_BLOCK_LINES, 1 << line_bits)
    yield from _Blocks(codes, count, line_bits, spools, lambda _: np.empty(words, np.uint32)).made(on_overflow)


class _Blocks:
    """All blocks of all tables, in order, some of them made ahead."""

    def __init__(self, codes: Codes, count: int, line_bits: int, spools: Spools, room: Callable[[int], Words]) -> None:
        """``room`` gives the words for the lines of the block of that number."""
        self._codes = codes
        self._shape = (codes.shape[1], count, line_bits)
        self._low_bits = [bits - line_bits for bits in _kernel.mih_key_bits(*self._shape)]
        self._spools = spools
        self._room = room
        self._per_table = max(1, (1 << line_bits) // _BLOCK_LINES)

    def made(self, on_overflow: Callable[[Words], None]) -> Iterator[Words]:
        """The lines of each block, once ``on_overflow`` has had the words of overflow that belong to it."""
        workers = min(os.cpu_count() or 1, _WORKERS)
        words_before = 0
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[_Block]] = deque()
            coming = self._submitted(pool)
            try:
                while True:
                    waiting.extend(future for _, future in zip(range(workers + 1 - len(waiting)), coming, strict=False))
                    if not waiting:
                        break
                    block = waiting.popleft().result()
                    for window in block.overflow():
                        on_overflow(window)
                    if words_before + block.overflow_words >= 1 << 32:
                        raise MemoryError("the codes are so much alike that the tables' overflow cannot be numbered")
                    if words_before and block.overflow_words:
                        _kernel.mih_shift_overflow(block.lines.data, words_before)
                    words_before += block.overflow_words
                    yield block.lines
                    del block
            finally:
                for future in waiting:
                    future.cancel()

    def _submitted(self, pool: ThreadPoolExecutor) -> Iterator[Future[_Block]]:
        """Have the blocks made, in order, as far as they are asked for. A table's keys are made before its turn."""
        tables = len(self._low_bits)
        keys = pool.submit(self._keys, 0)
        for table in range(tables):
            present = keys
            if table + 1 < tables:
                keys = pool.submit(self._keys, table + 1)
            for part in range(self._per_table):
                yield pool.submit(self._block, present, table, part)

    def _keys(self, table: int) -> Words:
        spool = self._spools.new()
        keys = np.empty(min(_KEYS_AT_ONCE, len(self._codes)), np.uint32)
        for start in range(0, len(self._codes), _KEYS_AT_ONCE):
            codes = self._codes[start : start + _KEYS_AT_ONCE]
            part = keys[: len(codes)]
            _kernel.mih_keys(codes.data, *self._shape, table, part.data)
            spool.append(bytes_of(part))
        found: Words = spool.map(np.uint32)
        spool.close()
        return found

    def _block(self, keys: Future[Words], table: int, part: int) -> _Block:
        lines = self._room(table * self._per_table + part)
        return _Block(keys.result(), self._low_bits[table], part * _BLOCK_LINES, lines)


class _Block:
    """Some lines of one table, with the rows in them."""

    def __init__(self, keys: Words, low_bits: int, first_line: int, lines: Words) -> None:
        self.lines = lines
        places = np.empty(len(lines) // _LINE_WORDS << low_bits, np.uint32)
        self._arguments: tuple[memoryview, int, int, memoryview, memoryview] | None = (
            keys.data, low_bits, first_line, places.data, lines.data,
        )  # fmt: skip
        self.overflow_words = _kernel.mih_place(*self._arguments)
        self._first = self._window(0)
        if self.overflow_words <= _WINDOW_WORDS:
            self._arguments = None  # lets go of the places

    def overflow(self) -> Iterator[Words]:
        """The words of overflow, a window at a time."""
        yield self._first
        for first in range(_WINDOW_WORDS, self.overflow_words, _WINDOW_WORDS):
            yield self._window(first)

    def _window(self, first: int) -> Words:
        window = np.empty(min(_WINDOW_WORDS, self.overflow_words - first), np.uint32)
        assert self._arguments is not None
        _kernel.mih_fill(*self._arguments, window.data, first)
        return window
