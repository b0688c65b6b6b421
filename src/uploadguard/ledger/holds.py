"""Legal holds: records that must be kept, whatever their age and whatever was ordered before.

A hold on a case covers its uploads; a hold on an upload keeps its case too. What removes anything, the retention's
purge and the destruction of evidence, stops at both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import UnknownRecordError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role

__all__ = ["MAX_NOTE", "HeldKind", "hold", "is_held", "release_hold"]

HeldKind = Literal["case", "decision"]

MAX_NOTE = 1000
"""Characters of a note; what is longer is cut off."""

_TABLES: dict[str, sa.Table] = {"case": schema.cases, "decision": schema.decisions}


def is_held(connection: Connection, decision_id: int) -> bool:
    """Whether an upload must be kept: it, or its case, is under a hold.

    Ask within the transaction that removes, one of ``Database.writing``: holds are placed in such, so none comes in
    between.
    """
    decisions, cases = schema.decisions, schema.cases
    joined = decisions.outerjoin(cases, cases.c.id == decisions.c.case_id)
    found = connection.execute(
        sa.select(sa.literal(1))
        .select_from(joined)
        .where(decisions.c.id == decision_id, sa.or_(decisions.c.legal_hold, cases.c.legal_hold))
    )
    return found.first() is not None


def hold(database: Database, kind: HeldKind, record_id: int, person: Person, note: str) -> bool:
    """Hold a case or a decision; returns False where it was held already, and nothing was changed.

    ``note`` says why, as the order's file number: it goes to the audit log, which is kept for ever, so it should name
    nobody. Raises :class:`~uploadguard.errors.NotPermittedError` without the role LEAD,
    :class:`~uploadguard.errors.UnknownRecordError`, and ``ValueError`` for an empty note.
    """
    return _set(database, kind, record_id, person, note, held=True)


def release_hold(database: Database, kind: HeldKind, record_id: int, person: Person, note: str) -> bool:
    """End the hold of :func:`hold`, on the same terms; returns False where there was none."""
    return _set(database, kind, record_id, person, note, held=False)


def _set(database: Database, kind: HeldKind, record_id: int, person: Person, note: str, *, held: bool) -> bool:
    person.require(Role.LEAD)
    note = note.replace("\0", "\ufffd").encode("utf-8", "replace").decode().strip()[:MAX_NOTE]
    if not note:
        raise ValueError("a hold needs a note that says why")
    table = _TABLES[kind]
    case_id: sa.Column[Any] = table.c.id if kind == "case" else table.c.case_id
    with database.writing() as connection:
        found = connection.execute(
            sa.select(table.c.legal_hold, case_id.label("case")).where(table.c.id == record_id)
        ).one_or_none()
        if found is None:
            raise UnknownRecordError(f"there is no {kind} {record_id}")
        if found.legal_hold == held:
            return False
        connection.execute(sa.update(table).where(table.c.id == record_id).values(legal_hold=held))
        what = "hold" if held else "unhold"
        if found.case is not None:
            connection.execute(
                sa.insert(schema.case_events).values(
                    case_id=found.case,
                    at=datetime.now(UTC),
                    actor=person.name,
                    kind=what,
                    note=note if kind == "case" else f"decision:{record_id}: {note}",
                )
            )
        audit.append(connection, person.name, f"{kind}.{what}", f"{kind}:{record_id}", note=note)
    return True
