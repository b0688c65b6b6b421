"""Decisions that the ledger has, for ``GET /v1/decisions/{reference}``."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploadguard.config import Settings
from uploadguard.models import Decision

if TYPE_CHECKING:
    from uploadguard.ledger.database import Database

__all__ = ["Found", "RecordedDecisions"]

_REFERENCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """A decision with where it stands. ``about`` is JSON types: times as ISO 8601."""

    decision: Decision
    about: dict[str, Any]


class RecordedDecisions:
    """The ledger's decisions, over connections of their own that are made when first needed. Thread-safe."""

    def __init__(self, settings: Settings, late_matchers: Sequence[str] = ()) -> None:
        """``late_matchers`` are the match services that answer later: a decision of theirs revises an earlier one."""
        self._settings = settings
        self._late_matchers = tuple(late_matchers)
        self._opening = threading.Lock()
        self._database: Database | None = None

    def find(self, reference: str) -> Found | None:
        """The decision of that reference, or the weightiest that revised it; None where none is kept. Blocks.

        Raises :class:`~uploadguard.errors.LedgerError`.
        """
        if self._settings.ledger.path is None or not _REFERENCE.fullmatch(reference):
            return None
        import sqlalchemy as sa

        from uploadguard.late import revised_reference
        from uploadguard.ledger import schema

        decisions, cases = schema.decisions, schema.cases
        wanted = [reference, *(revised_reference(reference, name) for name in self._late_matchers)]
        query = (
            sa.select(decisions.c.record, cases.c.id, cases.c.status, cases.c.decided_at)
            .select_from(decisions.outerjoin(cases, cases.c.id == decisions.c.case_id))
            .where(decisions.c.reference.in_(wanted))
        )
        with self._open().reading() as connection:
            rows = connection.execute(query).all()
        return max(map(_found, rows), key=_weight, default=None)

    def close(self) -> None:
        """Let go of the connections."""
        with self._opening:
            database, self._database = self._database, None
        if database is not None:
            database.close()

    def _open(self) -> Database:
        from uploadguard.ledger.database import open_database

        with self._opening:
            if self._database is None:
                self._database = open_database(self._settings, timeout_s=_TIMEOUT_S)
            return self._database


def _weight(found: Found) -> tuple[Any, ...]:
    """Of two that revise the same one, the later holds what the earlier found, and more."""
    decision = found.decision
    return decision.verdict, decision.revises is not None, len(decision.matches), len(decision.failures)


def _found(row: Any) -> Found:
    from uploadguard.ledger.codec import from_record

    recorded = from_record(row.record)
    decided = None if row.decided_at is None else row.decided_at.isoformat()
    return Found(
        recorded.decision,
        {
            "decided_at": recorded.decided_at.isoformat(),
            "object_id": recorded.context.object_id,
            "tenant": recorded.context.tenant,
            "case": None if row.id is None else {"state": row.status, "decided_at": decided},
        },
    )
