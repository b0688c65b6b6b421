"""The ledger's first tables."""

import sqlalchemy as sa
from alembic import op

from uploadguard.ledger.schema import ByteText, Id, Utc

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them, and the head of an empty audit log."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.create_table(
        "cases",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("opened_at", Utc(), nullable=False),
        sa.Column("updated_at", Utc(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text()),
        sa.Column("uploader", sa.Text()),
        sa.Column("uploads", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.Text()),
        sa.Column("claimed_at", Utc()),
        sa.Column("proposed", sa.Text()),
        sa.Column("proposed_by", sa.Text()),
        sa.Column("escalated", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("viewed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_at", Utc()),
        sa.Column("round", sa.Integer(), server_default="1", nullable=False),
        sa.Column("legal_hold", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cases"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cases_status_opened_at", "cases", ["status", "opened_at"], unique=False)
    op.create_index("ix_cases_uploader", "cases", ["uploader"], unique=False)
    op.create_table(
        "counts",
        sa.Column("hour", Utc(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "name", name="pk_counts"),
    )
    op.create_table(
        "feedback",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("list_name", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("opinion", sa.Text(), nullable=False),
        sa.Column("case_id", Id, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("sent_at", Utc()),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint(
            "list_name", "entry_id", "case_id", "opinion", name="uq_feedback_list_name_entry_id_case_id_opinion"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "local_entries",
        sa.Column("seq", Id, autoincrement=True, nullable=False),
        sa.Column("list_name", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("hashes", sa.JSON(), nullable=False),
        sa.Column("removed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("case_id", Id),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_local_entries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_local_entries_list_name_seq", "local_entries", ["list_name", "seq"], unique=False)
    op.create_index(
        "ix_local_entries_list_name_entry_id_seq", "local_entries", ["list_name", "entry_id", "seq"], unique=False
    )
    op.create_index("ix_local_entries_case_id", "local_entries", ["case_id"], unique=False)
    op.create_table(
        "local_keys",
        sa.Column("seq", Id, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["seq"], ["local_entries.seq"], name="fk_local_keys_seq", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", "key", name="pk_local_keys"),
    )
    op.create_index("ix_local_keys_key", "local_keys", ["key"], unique=False)
    op.create_table(
        "case_events",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("case_id", Id, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_case_events_case_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_case_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_case_events_case_id", "case_events", ["case_id"], unique=False)
    op.create_table(
        "case_keys",
        sa.Column("case_id", Id, nullable=False),
        sa.Column("key", ByteText, nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_case_keys_case_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("case_id", "key", name="pk_case_keys"),
    )
    op.create_index("ix_case_keys_key", "case_keys", ["key"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("decided_at", Utc(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("report_due", sa.Boolean(), nullable=False),
        sa.Column("media_type", sa.Text()),
        sa.Column("tenant", sa.Text()),
        sa.Column("uploader", sa.Text()),
        sa.Column("object_id", sa.Text()),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("case_id", Id),
        sa.Column("legal_hold", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_decisions_case_id"),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.UniqueConstraint("reference", name="uq_decisions_reference"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_decisions_case_id", "decisions", ["case_id"], unique=False)
    op.create_index("ix_decisions_decided_at", "decisions", ["decided_at"], unique=False)
    op.create_index("ix_decisions_object_id", "decisions", ["object_id"], unique=False)
    op.create_index("ix_decisions_uploader", "decisions", ["uploader"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("csrf", sa.Text(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("seen_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_sessions_account", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token", name="pk_sessions"),
    )
    op.create_table(
        "evidence",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("decision_id", Id, nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text()),
        sa.Column("stored_at", Utc(), nullable=False),
        sa.Column("keep_until", Utc()),
        sa.Column("viewed_at", Utc()),
        sa.Column("destroyed_at", Utc()),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name="fk_evidence_decision_id"),
        sa.PrimaryKeyConstraint("id", name="pk_evidence"),
        sa.UniqueConstraint("decision_id", name="uq_evidence_decision_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_evidence_file", "evidence", ["file"])
    op.create_table(
        "tasks",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decision_id", Id, nullable=False),
        sa.Column("case_id", Id),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("due_at", Utc()),
        sa.Column("next_at", Utc(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease", sa.Text()),
        sa.Column("lease_until", Utc()),
        sa.Column("remote_id", sa.Text()),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("refused_in", sa.Text()),
        sa.Column("alarmed_at", Utc()),
        sa.Column("done_at", Utc()),
        sa.Column("claim_order", Utc(), sa.Computed("coalesce(due_at, created_at)", persisted=True)),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_tasks_case_id"),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name="fk_tasks_decision_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint(
            "decision_id", "action", "occasion", "round", name="uq_tasks_decision_id_action_occasion_round"
        ),
        sa.UniqueConstraint("key", name="uq_tasks_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_case_id", "tasks", ["case_id"], unique=False)
    op.create_index(
        "ix_tasks_open",
        "tasks",
        ["action", "claim_order", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'opened', 'finishing')"),
        sqlite_where=sa.text("state IN ('pending', 'opened', 'finishing')"),
    )
    op.create_index("ix_tasks_state_action", "tasks", ["state", "action"], unique=False)
    op.create_table(
        "preview_grants",
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("decision_id", Id, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("clear", sa.Boolean(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_preview_grants"),
    )
    head = sa.table(
        "audit_head", sa.column("id", sa.Integer), sa.column("seq", sa.Integer), sa.column("digest", sa.LargeBinary)
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "digest": b""}])
