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

def mih_layout(rows: int, code_bytes: int, tables: int) -> tuple[int, ...]:
    """Where each table's offsets start in one array of all, and how many there are. Raises ``ValueError``."""

def mih_build_table(codes: Buffer, code_bytes: int, tables: int, table: int, offsets: Buffer, row_ids: Buffer) -> None:
    """Fill one table's part of the offsets and row ids, writable and uint32. Several may be filled at once."""

def mih_cost(rows: int, code_bytes: int, tables: int, max_distance_bits: int) -> tuple[float, float]:
    """How many probes one query takes, and how many candidates follow if codes are spread evenly."""

def mih_query(
    codes: Buffer,
    code_bytes: int,
    tables: int,
    offsets: Buffer,
    row_ids: Buffer,
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
