"""The audit log: who did what to which record, each entry chained to the one before it by SHA-256.

An entry is canonical JSON. Its digest covers the previous entry's digest and that JSON; the last one is in
``audit_head`` too. So an entry that was changed, taken out, put in or moved breaks the chain, and one cut off at the
end leaves the head without it.

Whoever can write the database can also compute the whole chain anew. Against that the log is signed now and then
(:mod:`uploadguard.ledger.checkpoints`), and what is signed is kept elsewhere too. The digests are not keyed (a MAC):
each process that records would need that key, so whoever takes one of them over has it; whoever verifies would need it
as well, and could then forge the log. A signing key is needed on one host only, and verifying takes no secret.

:mod:`uploadguard.ledger.audit_verify` verifies the log, :mod:`uploadguard.ledger.audit_files` exports it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import AuditError
from uploadguard.ledger import schema

if TYPE_CHECKING:
    from uploadguard.ledger.database import Database

__all__ = [
    "Act",
    "AuditEntry",
    "Head",
    "Row",
    "append",
    "append_all",
    "canonical",
    "chained",
    "list_entries",
    "parse_entry",
    "read_log",
]

_PAGE = 2000


class Row(NamedTuple):
    """An entry as it is stored; None stands for what is not of its type, as only tampering leaves it."""

    seq: int | None
    text: str | None
    digest: bytes | None


class Head(NamedTuple):
    """What the log says of its end: number and digest of the last entry; 0 and no bytes where there is none."""

    seq: int | None
    digest: bytes | None


class Act(NamedTuple):
    """What an entry is to say; see :func:`append`."""

    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who (``actor``) did what (``action``) to which record (``subject``), when (``at``, UTC)."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def append(connection: Connection, actor: str, action: str, subject: str, **detail: Any) -> int:
    """Write one entry in a transaction of :meth:`~uploadguard.ledger.database.Database.writing`; returns its number.

    ``actor`` is a person's name or ``guard``, ``outbox``, ``system``; ``action`` says what was done, as ``case.claim``;
    ``subject`` names the record, as ``case:12``. ``detail`` holds JSON values: no hash, no list's name, nothing of an
    uploader, since the log is kept for ever. Raises :class:`~uploadguard.errors.AuditError`.
    """
    return append_all(connection, [Act(actor, action, subject, detail)])


def append_all(connection: Connection, acts: Sequence[Act]) -> int:
    """As :func:`append`, an entry for each of these, in order; returns the number of the last."""
    head = connection.execute(_HEAD).one_or_none()
    if head is None:
        raise AuditError("the audit log has no head, so nothing can be written to it")
    seq, digest = head
    rows = []
    for act in acts:
        seq += 1
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        entry = canonical({"seq": seq, "at": at, **act._asdict()})
        digest = chained(digest, entry)
        rows.append({"seq": seq, "entry": entry, "digest": digest})
    if rows:
        connection.execute(_ENTRIES, rows)
        connection.execute(_NEW_HEAD, {"new_seq": seq, "new_digest": digest})
    return int(seq)


# Made once: every decision is written by them, while all who record wait.
_HEAD = sa.select(schema.audit_head.c.seq, schema.audit_head.c.digest).where(schema.audit_head.c.id == 1)
_ENTRIES = sa.insert(schema.audit)
_NEW_HEAD = (
    sa.update(schema.audit_head)
    .where(schema.audit_head.c.id == 1)
    .values(seq=sa.bindparam("new_seq"), digest=sa.bindparam("new_digest"))
)


def canonical(value: Mapping[str, Any]) -> str:
    """The one way in which a JSON object is written: ASCII, keys sorted, no spaces. Raises ``ValueError`` for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def chained(previous: bytes, entry: str) -> bytes:
    """The digest of an entry, after one whose digest is ``previous``: 32 bytes."""
    return hashlib.sha256(previous + entry.encode("utf-8", "surrogatepass")).digest()


def parse_entry(text: str) -> AuditEntry:
    """The entry that a row's text holds. Raises ``ValueError``."""
    try:
        found = json.loads(text)
        entry = AuditEntry(at=datetime.fromisoformat(found.pop("at")), **found)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise ValueError("not an entry of the audit log") from None
    texts = (entry.actor, entry.action, entry.subject)
    plain = type(entry.seq) is int and isinstance(entry.detail, dict) and all(isinstance(one, str) for one in texts)
    if not plain or entry.at.tzinfo is None:
        raise ValueError("not an entry of the audit log")
    return entry


def list_entries(
    database: Database,
    *,
    before: int | None = None,
    limit: int = 50,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> list[AuditEntry]:
    """The latest entries, the last one first; with ``before`` those of lower numbers only.

    ``actor``, ``action`` and ``subject`` are matched whole. Raises :class:`~uploadguard.errors.AuditError` at an entry
    that cannot be read.
    """
    wanted = {"actor": actor, "action": action, "subject": subject}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    columns = schema.audit.c
    found: list[AuditEntry] = []
    while len(found) < limit:
        query = sa.select(columns.seq, columns.entry).order_by(columns.seq.desc()).limit(_PAGE if wanted else limit)
        if before is not None:
            query = query.where(columns.seq < before)
        for name, value in wanted.items():  # fewer rows to look into; LIKE may let too many through
            query = query.where(columns.entry.contains(f'"{name}":{json.dumps(value)}', autoescape=True))
        with database.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            break
        for row in rows:
            try:
                entry = parse_entry(row.entry)
            except ValueError as error:
                raise AuditError(f"entry {row.seq}: {error}; `uploadguard audit verify` says more") from None
            if all(getattr(entry, name) == value for name, value in wanted.items()):
                found.append(entry)
        before = rows[-1].seq
    return found[:limit]


def read_log(database: Database, first: int | None = None) -> Iterator[Row | Head]:
    """The entries as they are stored, by number, from ``first`` on (None: whatever has the lowest number), then the
    head that goes with the last one: one for each row of ``audit_head``, should there be none or several.

    The log may be written to meanwhile. Takes nothing that it reads for what it should be.
    """
    start = first if first is not None else _LOWEST
    while True:
        with database.reading() as connection:
            rows = _page(connection, start)
            heads = connection.execute(_HEADS[connection.dialect.name]).all() if not rows else []
        yield from rows
        if rows:
            start = cast(int, rows[-1].seq) + 1
            continue
        if heads and heads[0].latest is not None and heads[0].latest >= start:
            continue  # written since
        if database.is_sqlite:
            with database.reading() as connection:
                for _ in range(connection.execute(_STRAYS).scalar_one()):
                    yield Row(None, None, None)
        for head in heads:
            yield Head(head.seq if type(head.seq) is int else None, _bytes_of(head.digest))
        return


# SQLite keeps any type in any column: what is asked for are the types that belong there.
_PAGES = {
    "sqlite": sa.text(
        "SELECT seq, CASE typeof(entry) WHEN 'text' THEN CAST(entry AS BLOB) END AS entry, digest FROM audit "
        "WHERE typeof(seq) = 'integer' AND seq >= :first ORDER BY seq LIMIT :limit"
    ),
    "postgresql": sa.text("SELECT seq, entry, digest FROM audit WHERE seq >= :first ORDER BY seq LIMIT :limit"),
}
_HEADS = {
    "sqlite": sa.text(
        "SELECT seq, digest, (SELECT max(seq) FROM audit WHERE typeof(seq) = 'integer') AS latest FROM audit_head"
    ),
    "postgresql": sa.text("SELECT seq, digest, (SELECT max(seq) FROM audit) AS latest FROM audit_head"),
}
_STRAYS = sa.text("SELECT count(*) FROM audit WHERE typeof(seq) <> 'integer'")
_LOWEST = -(2**63)


def _page(connection: Connection, start: int) -> list[Row]:
    if start >= -_LOWEST:  # more than a column holds
        return []
    found = connection.execute(_PAGES[connection.dialect.name], {"first": start, "limit": _PAGE})
    return [Row(row.seq, _text_of(row.entry), _bytes_of(row.digest)) for row in found]


def _text_of(value: object) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None


def _bytes_of(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, bytes | memoryview) else None
