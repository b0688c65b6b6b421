"""The native kernel. Buffers are C-contiguous; every function lets go of the GIL while it works."""

from typing_extensions import Buffer

def pdq_hash(
    pixels: Buffer,
    width: int,
    height: int,
    channels: int,
    full_width: int = 0,
    full_height: int = 0,
    scale: int = 1,
    bit_exact: bool = False,
) -> tuple[bytes, int, bool, int]:
    """PDQ of packed 8-bit pixels: eight hashes of 32 bytes, the quality, whether rounding had to decide, and how many
    coefficients lie within 0.5 of the median (at least one does, where the hash is not all zero).

    ``channels`` is 1 or 3. The pixels are means over ``scale`` by ``scale`` blocks of a ``full_width`` by
    ``full_height`` picture. ``bit_exact`` (scale 1 only) makes every bit the reference's. Raises ``ValueError``.
    """

def pdq_coefficients(
    pixels: Buffer,
    width: int,
    height: int,
    channels: int,
    full_width: int = 0,
    full_height: int = 0,
    scale: int = 1,
    reference_order: bool = False,
) -> tuple[bytes, bytes]:
    """What PDQ's bits come from: 64x64 samples and 16x16 coefficients, as float64 in native order."""

def hamming_scan(codes: Buffer, code_bytes: int, queries: Buffer, max_distance_bits: int) -> bytes:
    """Every query and code at most ``max_distance_bits`` apart, in one pass over ``codes``.

    Codes and queries are packed, 8 or 32 bytes each. Returns (query, row, distance) as packed native uint32 triples,
    in no set order. Raises ``ValueError`` for other lengths, and ``MemoryError`` if the hits do not fit.
    """

MIH_LAYOUT: int
"""What stored tables must have been written with to be read."""

def mih_shift_overflow(lines: Buffer, shift: int) -> None:
    """Add ``shift`` words to the places that a table's lines note, once its overflow stands behind others'."""

def mih_cost(rows: int, code_bytes: int, tables: int, line_bits: int, max_distance_bits: int) -> tuple[float, float]:
    """How many lines one query touches, and how many candidates follow if codes are spread evenly.

    Raises ``ValueError`` where no such tables can be made.
    """

def mih_query(
    codes: Buffer,
    code_bytes: int,
    tables: int,
    line_bits: int,
    lines: Buffer,
    overflow: Buffer,
    queries: Buffer,
    max_distance_bits: int,
    max_candidates: int,
) -> bytes | None:
    """What :func:`hamming_scan` gives, by way of the tables; None if there are more than ``max_candidates``.

    Raises ``ValueError`` for buffers that do not fit each other and for tables found to be damaged.
    """

def exact_find(records: Buffer, record_bytes: int, key: Buffer) -> tuple[int, int]:
    """The rows [low, high) equal to ``key`` in packed records of 1 to 64 bytes each, sorted bytewise.

    In records that are not sorted the answer is a wrong but valid range. Raises ``ValueError`` for wrong lengths.
    """

def exact_find_many(records: Buffer, record_bytes: int, keys: Buffer) -> bytes:
    """:func:`exact_find` for packed ``keys``: packed native uint64 pairs (low, high)."""

def mih_key_bits(code_bytes: int, tables: int, line_bits: int) -> tuple[int, ...]:
    """How many bits of a code each table has. Raises ``ValueError`` where no such tables can be made."""

def mih_keys(codes: Buffer, code_bytes: int, tables: int, line_bits: int, table: int, keys: Buffer) -> None:
    """Write the substring that one table has of each code, as native uint32, into ``keys``."""

def mih_place(keys: Buffer, low_bits: int, first_line: int, places: Buffer, lines: Buffer) -> int:
    """Lay out a block of a table's lines, as many as ``lines`` has room for; gives its words of overflow.

    ``keys`` are those of all rows. ``places``, a uint32 for each value of the block, is for :func:`mih_fill`. The
    places that the lines note count from the block's own first word of overflow.
    """

def mih_fill(
    keys: Buffer, low_bits: int, first_line: int, places: Buffer, lines: Buffer, overflow: Buffer, first_word: int
) -> None:
    """Put the rows into a block that :func:`mih_place` laid out, and its overflow from ``first_word`` on.

    Once for each window of the overflow, and once if there is none. Raises ``ValueError`` where the buffers do not fit
    each other; never writes outside them.
    """

def exact_merge(
    records: Buffer, record_bytes: int, ids: Buffer, runs: Buffer, merged: Buffer, merged_ids: Buffer
) -> int:
    """Merge sorted runs of records by (record, id): fill ``merged`` and ``merged_ids`` with the next rows.

    ``runs`` holds native uint64 pairs (at, end), which move on; gives how many rows were taken, 0 at the end.
    """

def jpeg_scan_end(data: Buffer, start: int) -> tuple[int, int, bool]:
    """Where the entropy-coded data of a JPEG from ``start`` on ends, the number of restart markers in it, and whether
    these count 0 to 7 in turn. Raises ``ValueError`` for a start outside the data."""

def sandbox_probe() -> tuple[bool, int]:
    """Whether system calls can be filtered here, and the version of Landlock's interface, 0 for none."""

def sandbox_state() -> tuple[bool, bool, bool, bool]:
    """Whether this process is non-dumpable, is killed when its parent ends, and can gain no privileges; whether this
    thread has no capabilities. Raises ``OSError``."""

def sandbox_try_thread() -> None:
    """Start a thread that ends at once. Raises ``BlockingIOError`` where a limit forbids it."""

def sandbox_die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises ``OSError``."""

def sandbox_make_non_dumpable() -> None:
    """Write no core, and keep processes of the same user out of this one's memory. Raises ``OSError``."""

def sandbox_drop_capabilities() -> None:
    """Give up the calling thread's capabilities. Raises ``OSError``."""

def sandbox_set_no_new_privs() -> None:
    """Never gain privileges by executing a file; the call filter needs it. Raises ``OSError``."""

def sandbox_restrict_landlock(abi: int) -> None:
    """Take all rights that Landlock of this version knows from the calling thread and those it starts: files, TCP,
    sockets and signals of other processes. Raises ``OSError``."""

def sandbox_filter_calls() -> None:
    """Allow all threads only the system calls that decoding needs; see ``sandbox_calls.h``.

    Others raise ``PermissionError``, or end the process with SIGSYS where only an exploit makes them. Raises
    ``OSError``: EBUSY where a thread has a filter of its own.
    """
