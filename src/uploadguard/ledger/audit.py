"""The audit log: who did what to which record, each entry chained to the one before it by SHA-256.

An entry is canonical JSON. Its digest covers the previous entry's digest and that JSON; the last one is in
``audit_head`` too. So an entry that was changed, taken out, put in or moved breaks the chain, and one cut off at the
end leaves the head without it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import AuditError
from uploadguard.ledger import schema

__all__ = ["append"]


def append(connection: Connection, actor: str, action: str, subject: str, **detail: Any) -> int:
    """Write one entry in a transaction of :meth:`~uploadguard.ledger.database.Database.writing`; returns its number.

    ``actor`` is a person's name or ``guard``, ``outbox``, ``system``; ``action`` says what was done, as ``case.claim``;
    ``subject`` names the record, as ``case:12``. ``detail`` holds JSON values: no hash, no list's name, nothing of an
    uploader, since the log is kept for ever. Raises :class:`~uploadguard.errors.AuditError`.
    """
    head = connection.execute(
        sa.select(schema.audit_head.c.seq, schema.audit_head.c.digest).where(schema.audit_head.c.id == 1)
    ).one_or_none()
    if head is None:
        raise AuditError("the audit log has no head, so nothing can be written to it")
    seq: int = head.seq + 1
    entry = json.dumps(
        {
            "seq": seq,
            "at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "actor": actor,
            "action": action,
            "subject": subject,
            "detail": detail,
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    digest = chained(head.digest, entry)
    connection.execute(sa.insert(schema.audit).values(seq=seq, entry=entry, digest=digest))
    connection.execute(sa.update(schema.audit_head).where(schema.audit_head.c.id == 1).values(seq=seq, digest=digest))
    return seq


def chained(previous: bytes, entry: str) -> bytes:
    """The digest of an entry, after one whose digest is ``previous``: 32 bytes."""
    return hashlib.sha256(previous + entry.encode()).digest()
