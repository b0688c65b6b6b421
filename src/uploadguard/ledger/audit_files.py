"""The audit log as a file: NDJSON, exported in pieces that follow one another, and verified without the database.

Each line is an object: ``{"seq": 7, "digest": "...", "entry": {...}}`` for an entry, ``{"checkpoint": {...}}`` after
the entry that it signs, ``{"head": {...}}`` where a piece ends, and where one begins that is not the
first. The digest of an entry is SHA-256 over the bytes of the digest before it and the entry as it stands there. Where
tampering left something else in the database, ``text`` has it in place of ``entry``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import sqlalchemy as sa

from uploadguard.errors import AuditError
from uploadguard.ledger import schema
from uploadguard.ledger.audit import Head, Row, canonical, read_log
from uploadguard.ledger.audit_verify import AuditReport, FaultKind, Verifier
from uploadguard.ledger.checkpoints import Checkpoint, PublicKey, checkpoint_line, load_checkpoints, parse_checkpoint

if TYPE_CHECKING:
    from uploadguard.ledger.database import Database

__all__ = ["end_of_export", "export_log", "verify_file"]

_MAX_LINE_BYTES = 1 << 20
_BLOCK = 1000
_TAIL_BYTES = 2 * _MAX_LINE_BYTES


def export_log(database: Database, first: int = 1) -> Iterator[bytes]:
    """The lines of the log's entries from ``first`` on, with its checkpoints and its head. It may be written to
    meanwhile. What was tampered with is exported as it is.

    Raises :class:`~uploadguard.errors.AuditError` where there is no entry before ``first``.
    """
    if first > 1:
        with database.reading() as connection:
            columns = schema.audit.c
            digest = connection.execute(sa.select(columns.digest).where(columns.seq == first - 1)).scalar()
        if digest is None:
            raise AuditError(f"the audit log has no entry {first - 1} to go on from")
        yield _head_line(Head(first - 1, digest))
    block: list[Row] = []
    for item in read_log(database, first if first > 1 else None):
        if isinstance(item, Row):
            block.append(item)
            if len(block) < _BLOCK:
                continue
        yield from _lines(database, block)
        block = []
        if isinstance(item, Head):
            yield _head_line(item)
    yield from _lines(database, block)


def _lines(database: Database, block: list[Row]) -> Iterator[bytes]:
    """The entries, each with its checkpoint."""
    numbers = [row.seq for row in block if row.seq is not None]
    signed: dict[int, Checkpoint] = {}
    if numbers:
        with database.reading() as connection:
            found = load_checkpoints(connection, numbers[0], numbers[-1])
        signed = {one.seq: one for one in found if isinstance(one, Checkpoint)}
    for row in block:
        yield _row_line(row)
        if row.seq in signed:
            yield f"{checkpoint_line(signed[row.seq])}\n".encode("ascii")


def _row_line(row: Row) -> bytes:
    digest = json.dumps(row.digest.hex() if row.digest is not None else None)
    try:
        plain = row.text is not None and canonical(json.loads(row.text)) == row.text and row.text.startswith("{")
    except (ValueError, RecursionError):
        plain = False
    content = f'"entry":{row.text}' if plain else f'"text":{json.dumps(row.text)}'
    return f'{{"seq":{json.dumps(row.seq)},"digest":{digest},{content}}}\n'.encode("ascii")


def _head_line(head: Head) -> bytes:
    value = {"seq": head.seq, "digest": head.digest.hex() if head.digest is not None else None}
    return f"{canonical({'head': value})}\n".encode("ascii")


def _parse(line: bytes) -> Row | Head | Checkpoint:
    """What a line holds, if it is just as an export writes it. Raises ``ValueError``."""
    try:
        found: Any = json.loads(line)
        item: Row | Head | Checkpoint
        if "checkpoint" in found:
            item = signed = parse_checkpoint(found["checkpoint"])
            again = f"{checkpoint_line(signed)}\n".encode("ascii")
        elif "head" in found:
            item = Head(found["head"]["seq"], _bytes_of(found["head"]["digest"]))
            again = _head_line(item)
        else:
            text = canonical(found["entry"]) if "entry" in found else found["text"]
            item = Row(found["seq"], text, _bytes_of(found["digest"]))
            again = _row_line(item)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("not a line of an export") from None
    if again != line or not (item.seq is None or type(item.seq) is int):
        raise ValueError("not a line as an export has it")
    return item


def _bytes_of(found: Any) -> bytes | None:
    return bytes.fromhex(found) if found is not None else None


def verify_file(
    file: IO[bytes],
    *,
    public_keys: Iterable[PublicKey] = (),
    checkpoints: Iterable[Checkpoint] = (),
    first: int = 1,
    progress: Callable[[int], None] | None = None,
    now: datetime | None = None,
) -> AuditReport:
    """As :func:`~uploadguard.ledger.audit_verify.verify`, for the file of an export, or several put together.

    ``first`` is the number that it must begin with; ``progress`` is told the bytes that were read. Raises ``OSError``.
    """
    verifier = Verifier(public_keys, checkpoints, first=first)
    number = read_bytes = told_bytes = 0
    after_entry = False
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        read_bytes += len(line)
        if progress is not None and read_bytes - told_bytes >= _MAX_LINE_BYTES:
            progress(told_bytes := read_bytes)
        try:
            item = _parse(line)
        except ValueError:
            text = f"line {number} was changed or is not whole: it is not as an export writes it"
            verifier.fault(verifier.last + 1, FaultKind.ALTERED, text)
            continue
        if isinstance(item, Row):
            verifier.entry(item)
        elif isinstance(item, Head):
            verifier.head(item)
        else:
            if item.seq != verifier.last or not after_entry:
                text = f"line {number}: the checkpoint of entry {item.seq} stands elsewhere than after it"
                verifier.fault(item.seq, FaultKind.CHECKPOINT, text)
            verifier.checkpoint(item)
        after_entry = isinstance(item, Row)
    return verifier.finish(now)


def end_of_export(path: Path) -> tuple[int, int]:
    """How far a file of an export goes, which may have been interrupted: the number of the last entry that is there
    for certain with its checkpoint, and how many bytes of the file that is. The rest is to be cut off.

    Raises :class:`~uploadguard.errors.AuditError` where it is no export, and ``OSError``.
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        start = max(0, size_bytes - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
    tail = tail[: tail.rfind(b"\n") + 1]
    line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    if not line and start == 0:
        return 0, 0
    try:
        item = _parse(line)
    except ValueError:
        item = Row(None, None, None)
    if item.seq is None:
        raise AuditError(f"{path}: does not end as an export of an audit log does")
    if isinstance(item, Row):  # its checkpoint may be missing
        return item.seq - 1, start + len(tail) - len(line)
    return item.seq, start + len(tail)
