"""The ledger's tables, for SQLite and PostgreSQL alike. ``migrations/`` makes them; a test compares the two.

Times are UTC. JSON columns hold what :mod:`uploadguard.ledger.codec` writes. Who may write what, and in which order, is
:mod:`uploadguard.ledger.database`'s matter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = [
    "ByteText",
    "Id",
    "Utc",
    "accounts",
    "audit",
    "audit_checkpoints",
    "audit_head",
    "case_events",
    "case_keys",
    "cases",
    "counts",
    "decisions",
    "evidence",
    "feedback",
    "local_entries",
    "local_keys",
    "metadata",
    "preview_grants",
    "sessions",
    "tasks",
]


class Utc(TypeDecorator[datetime]):
    """A time with its zone, which must be given, stored as UTC to the microsecond."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """PostgreSQL keeps the zone; SQLite gets UTC without it."""
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts up by itself only where the type is exactly INTEGER.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Sorted by its bytes, so that an index finds all that begin alike.
ByteText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _id() -> sa.Column[Any]:
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


cases = sa.Table(
    "cases",
    metadata,
    _id(),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("opened_at", Utc, nullable=False),
    sa.Column("updated_at", Utc, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text),
    sa.Column("uploader", sa.Text),
    sa.Column("uploads", sa.Integer, nullable=False),
    sa.Column("claimed_by", sa.Text),
    sa.Column("claimed_at", Utc),
    sa.Column("proposed", sa.Text),
    sa.Column("proposed_by", sa.Text),
    sa.Column("escalated", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("viewed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_at", Utc),
    sa.Column("round", sa.Integer, nullable=False, server_default="1"),
    sa.Column("legal_hold", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_cases_status_opened_at", "status", "opened_at"),
    sa.Index("ix_cases_uploader", "uploader"),
    sqlite_autoincrement=True,
)
"""``status``: open, proposed (waits for a second person), confirmed or dismissed. An open one may be claimed or
escalated. ``reason`` is the weightiest of the first upload's. ``round`` counts how often the case was opened: once, and
once more for each re-queue after a decision. ``viewed``: somebody was shown a file of it."""

case_keys = sa.Table(
    "case_keys",
    metadata,
    sa.Column("case_id", Id, sa.ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", ByteText, primary_key=True),
    sa.Index("ix_case_keys_key", "key"),
)
"""What makes two uploads one matter: the entries they match, else their digest."""

case_events = sa.Table(
    "case_events",
    metadata,
    _id(),
    sa.Column("case_id", Id, sa.ForeignKey("cases.id", ondelete="CASCADE"), nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_case_events_case_id", "case_id"),
    sqlite_autoincrement=True,
)

decisions = sa.Table(
    "decisions",
    metadata,
    _id(),
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("decided_at", Utc, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("report_due", sa.Boolean, nullable=False),
    sa.Column("media_type", sa.Text),
    sa.Column("tenant", sa.Text),
    sa.Column("uploader", sa.Text),
    sa.Column("object_id", sa.Text),
    sa.Column("record", sa.JSON, nullable=False),
    sa.Column("case_id", Id, sa.ForeignKey("cases.id")),
    sa.Column("legal_hold", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_decisions_decided_at", "decided_at"),
    sa.Index("ix_decisions_case_id", "case_id"),
    sa.Index("ix_decisions_uploader", "uploader"),
    sa.Index("ix_decisions_object_id", "object_id"),
    sqlite_autoincrement=True,
)

OPEN_TASKS = sa.text("state IN ('pending', 'opened', 'finishing')")
"""Tasks that a worker still has something to do for; in a query, these words let the index of them be used."""

tasks = sa.Table(
    "tasks",
    metadata,
    _id(),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("occasion", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("decision_id", Id, sa.ForeignKey("decisions.id"), nullable=False),
    sa.Column("case_id", Id, sa.ForeignKey("cases.id")),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("due_at", Utc),
    sa.Column("next_at", Utc, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease", sa.Text),
    sa.Column("lease_until", Utc),
    sa.Column("remote_id", sa.Text),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("cancelled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("refused_in", sa.Text),
    sa.Column("alarmed_at", Utc),
    sa.Column("done_at", Utc),
    sa.Column("claim_order", Utc, sa.Computed("coalesce(due_at, created_at)", persisted=True)),
    sa.UniqueConstraint("decision_id", "action", "occasion", "round"),
    sa.Index("ix_tasks_case_id", "case_id"),
    sa.Index("ix_tasks_open", "action", "claim_order", "id", postgresql_where=OPEN_TASKS, sqlite_where=OPEN_TASKS),
    sa.Index("ix_tasks_state_action", "state", "action"),
    sqlite_autoincrement=True,
)
"""The outbox. ``round`` is the case's, but 0 for reports: no upload is ever reported twice to one destination.
``refused_in`` is the state that a refused task goes back to when it is tried again. ``claim_order`` is what workers go
by: a report's deadline, and for a callback when it was asked for."""

feedback = sa.Table(
    "feedback",
    metadata,
    _id(),
    sa.Column("list_name", sa.Text, nullable=False),
    sa.Column("entry_id", sa.Text, nullable=False),
    sa.Column("opinion", sa.Text, nullable=False),
    sa.Column("case_id", Id, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("sent_at", Utc),
    sa.UniqueConstraint("list_name", "entry_id", "case_id", "opinion"),
    sqlite_autoincrement=True,
)
"""What reviewers say of list entries, for the exchanges to send: ``opinion`` is right or wrong."""

local_entries = sa.Table(
    "local_entries",
    metadata,
    sa.Column("seq", Id, primary_key=True, autoincrement=True),
    sa.Column("list_name", sa.Text, nullable=False),
    sa.Column("entry_id", sa.Text, nullable=False),
    sa.Column("hashes", sa.JSON, nullable=False),
    sa.Column("removed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("case_id", Id),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Index("ix_local_entries_list_name_seq", "list_name", "seq"),
    sa.Index("ix_local_entries_list_name_entry_id_seq", "list_name", "entry_id", "seq"),
    sa.Index("ix_local_entries_case_id", "case_id"),
    sqlite_autoincrement=True,
)
"""Changes of the local lists, in order: each host applies those after the last one that its hash set has."""

local_keys = sa.Table(
    "local_keys",
    metadata,
    sa.Column("seq", Id, sa.ForeignKey("local_entries.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Index("ix_local_keys_key", "key"),
)
"""The hashes of entries of the local lists, so that what one list says can be looked up when the other is added to."""

evidence = sa.Table(
    "evidence",
    metadata,
    _id(),
    sa.Column("decision_id", Id, sa.ForeignKey("decisions.id"), nullable=False, unique=True),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("media_type", sa.Text),
    sa.Column("stored_at", Utc, nullable=False),
    sa.Column("keep_until", Utc),
    sa.Column("viewed_at", Utc),
    sa.Column("destroyed_at", Utc),
    sa.Index("ix_evidence_file", "file"),
    sqlite_autoincrement=True,
)
"""Preserved files. ``viewed_at``: when somebody was first shown all of it, in the clear. One with ``destroyed_at`` is
gone, or about to be, and opened no more."""

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
)
"""``entry`` is the canonical JSON that ``digest`` covers, together with the digest before it."""

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
)
"""One row, of the last entry. Whoever writes locks it first, so that the ledger's writers queue up here."""

audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
)
""":mod:`uploadguard.ledger.checkpoints` signs them; ``previous`` chains each to the one before."""

counts = sa.Table(
    "counts",
    metadata,
    sa.Column("hour", Utc, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""Checks by the hour: ``name`` is the verdict's label."""

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("password", sa.Text, nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", Utc, nullable=False),
)
"""The console's own accounts; ``password`` is its Argon2 hash."""

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token", sa.LargeBinary, primary_key=True),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False),
    sa.Column("csrf", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("seen_at", Utc, nullable=False),
)
"""Who is signed in to the console: ``token`` is the SHA-256 of the cookie."""

preview_grants = sa.Table(
    "preview_grants",
    metadata,
    sa.Column("token", sa.LargeBinary, primary_key=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("decision_id", Id, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("clear", sa.Boolean, nullable=False),
    sa.Column("frame", sa.Integer, nullable=False),
    sa.Column("expires_at", Utc, nullable=False),
)
"""Previews that a person asked the console for and has not been shown yet: each serves once, within a minute."""
