"""The end of preserved files: those whose time is over, and those that no decision leads to.

Each step holds when it is cut short. A row is marked first, from when on its file is opened no more, and then the file
is removed; the next sweep finds files of marked rows that are still there, since it goes through the vault itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from uploadguard.actions import Occasion, State
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.vault import StoredFile, Vault

__all__ = ["sweep"]

_BATCH: Final = 100
_ORPHAN_AGE: Final = timedelta(days=1)
"""A decision whose file is preserved may wait in a spool for the database."""
_UNFINISHED_AGE: Final = timedelta(hours=1)
_OPEN_CASES: Final = ("open", "proposed")
_DONE: Final = (State.FILED.value, State.CANCELLED.value)
"""A task that was refused is not done: a person may mend it, and it may need the file."""


def sweep(database: Database, vault: Vault, now: datetime, *, orphans: bool) -> int:
    """See :meth:`uploadguard.ledger.evidence.EvidenceRoom.sweep`; ``orphans``: remove files without a decision too."""
    return _expire(database, vault, now) + _tidy(database, vault, now, orphans=orphans)


def _expire(database: Database, vault: Vault, now: datetime) -> int:
    removed = after = 0
    while True:
        with database.reading() as connection:
            rows = connection.execute(_expired(now).where(schema.evidence.c.id > after)).all()
        if not rows:
            return removed
        after = rows[-1].id
        over = _mark(database, [row.id for row in rows if _may_go(row, now)], now)
        for row in over:
            vault.remove(row.file)
        _note_erased(database, [row.decision_id for row in over])
        removed += len(over)


def _mark(database: Database, ids: Sequence[int], now: datetime) -> Sequence[sa.Row[Any]]:
    """Mark those of the rows that are still to go, now that nobody can hold them; returns these."""
    if not ids:
        return ()
    evidence = schema.evidence.c
    with database.writing() as connection:
        rows = connection.execute(_expired(now).where(evidence.id.in_(ids))).all()
        over = [row for row in rows if _may_go(row, now)]
        of_them = evidence.id.in_([row.id for row in over])
        connection.execute(sa.update(schema.evidence).where(of_them).values(destroyed_at=now))
        for row in over:
            audit.append(connection, "system", "evidence.expire", f"decision:{row.decision_id}")
    return over


def _expired(now: datetime) -> sa.Select[Any]:
    """Files whose time is over, that nothing but a late report may keep."""
    evidence, decisions, cases, tasks = schema.evidence.c, schema.decisions, schema.cases, schema.tasks.c
    joined = schema.evidence.join(decisions, decisions.c.id == evidence.decision_id).outerjoin(
        cases, cases.c.id == decisions.c.case_id
    )
    of_decision = tasks.decision_id == evidence.decision_id
    reported_at = (
        sa.select(sa.func.max(tasks.done_at))
        .where(of_decision, tasks.occasion == Occasion.REPORT.value, tasks.state == State.FILED.value)
        .scalar_subquery()
    )
    return (
        sa.select(
            evidence.id,
            evidence.decision_id,
            evidence.file,
            evidence.stored_at,
            evidence.keep_until,
            reported_at.label("reported_at"),
        )
        .select_from(joined)
        .where(
            evidence.destroyed_at.is_(None),
            evidence.keep_until <= now,
            decisions.c.legal_hold.is_(sa.false()),
            sa.or_(
                cases.c.id.is_(None), sa.and_(cases.c.legal_hold.is_(sa.false()), cases.c.status.not_in(_OPEN_CASES))
            ),
            ~sa.exists().where(of_decision, tasks.state.not_in(_DONE)),
        )
        .order_by(evidence.id)
        .limit(_BATCH)
    )


def _may_go(row: sa.Row[Any], now: datetime) -> bool:
    """Whether it was also kept long enough after it was reported, from when the law counts."""
    return row.reported_at is None or row.reported_at + (row.keep_until - row.stored_at) <= now


def _tidy(database: Database, vault: Vault, now: datetime, *, orphans: bool) -> int:
    """Remove files of rows that are marked, of no row, and those that were never finished."""
    removed = 0
    files = vault.files()
    while batch := list(islice(files, _BATCH)):
        for stored in batch:
            if stored.name is None and now - stored.changed_at > _UNFINISHED_AGE:
                vault.remove_unfinished(stored)
        named = {stored.name: stored for stored in batch if stored.name is not None}
        with database.reading() as connection:
            rows = {row.file: row for row in connection.execute(_rows_of(list(named)))}
        marked = [row for row in rows.values() if row.destroyed_at is not None and vault.remove(row.file)]
        _note_erased(database, [row.decision_id for row in marked])
        lost = [stored for name, stored in named.items() if name not in rows and now - stored.changed_at > _ORPHAN_AGE]
        removed += len(marked) + (_remove_orphans(database, vault, lost) if orphans and lost else 0)
    return removed


def _rows_of(names: Sequence[str]) -> sa.Select[Any]:
    evidence = schema.evidence.c
    return sa.select(evidence.file, evidence.decision_id, evidence.destroyed_at).where(evidence.file.in_(names))


def _remove_orphans(database: Database, vault: Vault, lost: Sequence[StoredFile]) -> int:
    names = [stored.name for stored in lost if stored.name is not None]
    with database.writing() as connection:
        known = {row.file for row in connection.execute(_rows_of(names))}
        names = [name for name in names if name not in known]
        if names:
            audit.append(connection, "system", "evidence.orphans", "vault", files=len(names))
    for name in names:
        vault.remove(name)
    return len(names)


def _note_erased(database: Database, decision_ids: Sequence[int]) -> None:
    if not decision_ids:
        return
    with database.writing() as connection:
        for decision_id in decision_ids:
            audit.append(connection, "system", "evidence.erased", f"decision:{decision_id}")
