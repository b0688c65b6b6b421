"""The settings of the ledger: what is kept, who is told, who may look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from uploadguard.config_types import Count, Flag, Section, Span, Whole

__all__ = ["ConsoleSettings", "EvidenceSettings", "LedgerSettings", "OutboxSettings", "RetentionSettings"]


class RetentionSettings(Section):
    """How long the ledger keeps what, in days; 0 is for ever. `uploadguard ledger purge` removes what is older."""

    not_scanned_days: Count = Field(default=30, description="Decisions that no case and no report came of.")
    dismissed_days: Count = Field(default=90, description="Dismissed cases, with their decisions.")
    confirmed_days: Count = Field(
        default=365, description="Blocked uploads and confirmed cases, with their decisions and reports, once filed."
    )


class LedgerSettings(Section):
    """The durable record of decisions, cases and reports, and the audit log."""

    path: Path | None = Field(
        default=None,
        examples=[Path("ledger")],
        description="The ledger's directory: the SQLite database, and the spool for when the database is down. "
        "Relative as hashset.path is. Without it nothing is kept.",
    )
    url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        examples=["postgresql://uploadguard@db.internal/uploadguard"],
        description="A PostgreSQL database in place of SQLite, for several hosts (extra: postgresql).",
    )
    url_env: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        examples=["UPLOADGUARD_DATABASE_URL"],
        description="In place of url: the name of the environment variable that holds it.",
    )
    write_timeout_s: Span = Field(
        default=2.0, description="How long a check waits for the database before its decision goes to the spool."
    )
    record_not_scanned: Flag = Field(
        default=True, description="Whether decisions of the verdict not_scanned are kept too."
    )
    block_opens_case: Flag = Field(default=False, description="Whether a blocked upload opens a case, as a queued one.")
    join_window_h: Span = Field(
        default=24.0,
        description="For how many hours an open case takes in more uploads of the same uploader and the same hashes.",
    )
    max_open_cases: Count = Field(
        default=10_000, description="Alarm when more cases than this are open; 0 is never. None is ever dropped."
    )
    two_person: Literal["none", "confirm", "dismiss", "all"] = Field(
        default="none", description="Which decisions need a second person who says the same."
    )
    signing_key_file: Path | None = Field(
        default=None,
        examples=[Path("audit.key")],
        description="The Ed25519 key that checkpoints of the audit log are signed with (extra: encryption), as "
        "`uploadguard audit newkey` makes it.",
    )
    checkpoint_every: Annotated[Whole, Field(ge=1)] = Field(
        default=1000, description="A signed checkpoint after so many entries of the audit log, and each hour."
    )
    retention: RetentionSettings = Field(default_factory=RetentionSettings)


class OutboxSettings(Section):
    """How reports and callbacks are carried out."""

    run: Literal["none", "thread"] = Field(
        default="none",
        description="thread: the Guard carries tasks out in a thread of the host's process; none: `uploadguard outbox "
        "run` does.",
    )
    threads: Annotated[Whole, Field(ge=1, le=64)] = Field(
        default=4, description="Tasks that one worker carries out at once."
    )
    lease_s: Annotated[Span, Field(ge=1)] = Field(
        default=120.0, description="After how long without a sign of life another worker takes a task over."
    )
    first_wait_s: Span = Field(default=2.0, description="The wait after a first failed attempt; it doubles each time.")
    max_wait_s: Span = Field(default=900.0, description="The longest wait between attempts.")
    report_within_h: Span = Field(default=24.0, description="When a report must be filed, from when it was due.")
    alarm_before_h: Span = Field(
        default=6.0, description="Alarm so many hours before that, while a report is not filed."
    )


class EvidenceSettings(Section):
    """Keeping the files of queued and blocked uploads, encrypted (extra: encryption). Off without a path."""

    path: Path | None = Field(
        default=None,
        examples=[Path("evidence")],
        description="The directory of the vault. Relative as hashset.path is.",
    )
    key_file: Path | None = Field(
        default=None, examples=[Path("evidence.key")], description="The file with the key; see hashset.encryption."
    )
    key_env: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        examples=["EVIDENCE_KEY"],
        description="In place of key_file: the environment variable that holds it.",
    )
    keep: Literal["matches", "all"] = Field(
        default="matches",
        description="matches: files of queued and blocked uploads that matched an entry; all: those that could not be "
        "inspected as well.",
    )
    keep_days: Count = Field(
        default=365, description="Days to preserve them, unless they are destroyed on order; 0 is for ever."
    )


class ConsoleSettings(Section):
    """The review console, `uploadguard console` (extra: console)."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Annotated[Whole, Field(ge=0, le=65535)] = Field(default=8642, description="The port; 0 takes a free one.")
    secure_cookies: Flag = Field(
        default=True, description="Whether cookies are sent over HTTPS only; browsers count localhost as such."
    )
    session_minutes: Annotated[Whole, Field(ge=1)] = Field(
        default=60, description="After how long without a click a reviewer must sign in again."
    )
