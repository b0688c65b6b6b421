"""Finds reports that nobody made a task of: a match was recorded by a host whose configuration had no destination.

Tasks are made by whoever records or decides, from the actions that its own configuration has. One host of many with an
old configuration, or a destination that was configured only after the first match, would leave reports that are due and
in no outbox. So whoever runs the outbox looks for them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from uploadguard.actions import Occasion
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.recording import Plan, add_tasks
from uploadguard.logs import log

__all__ = ["MissingReports"]

_LOOK_BACK = timedelta(days=30)
_BATCH = 200


class MissingReports:
    """Adds the tasks that are missing in the outbox, for the destinations of ``plan``.

    A destination gets what was decided since its first task; and what no destination at all has a task of, up to 30
    days back. So one that is configured beside others is not sent what these were told before it.
    """

    def __init__(self, database: Database, plan: Plan) -> None:
        self._database = database
        self._plan = plan

    def run(self, *, now: datetime | None = None) -> int:
        """Look now; returns how many tasks were added. Raises :class:`~uploadguard.errors.LedgerError`."""
        now = now or datetime.now(UTC)
        actions = [name for name, occasions in self._plan.occasions.items() if Occasion.REPORT in occasions]
        added = {name: self._add(name, now) for name in sorted(actions)}
        if total := sum(added.values()):
            log.warning("%d report(s) were due and in no outbox: their tasks were added", total)
        return total

    def _add(self, action: str, now: datetime) -> int:
        plan = replace(self._plan, occasions={action: frozenset({Occasion.REPORT})})
        decisions = schema.decisions.c
        added = after = 0
        while True:
            found = sa.select(decisions.id, decisions.case_id).where(decisions.id > after, *_missing(action, now))
            with self._database.reading() as connection:
                rows = connection.execute(found.order_by(decisions.id).limit(_BATCH)).all()
            if not rows:
                return added
            after = rows[-1].id
            with self._database.writing() as connection:
                # What was recorded, decided or purged since is looked at again, now that nobody else writes.
                ids = [row.id for row in rows]
                sure = connection.execute(
                    sa.select(decisions.id, decisions.case_id).where(decisions.id.in_(ids), *_missing(action, now))
                ).all()
                new = sum(add_tasks(connection, plan, Occasion.REPORT, row.id, row.case_id, now=now) for row in sure)
                if new:
                    audit.append(connection, "outbox", "task.add", f"action:{action}", missing=new)
            added += new


def _missing(action: str, now: datetime) -> list[sa.ColumnElement[bool]]:
    """Of decisions: a report is due, and this destination ought to have its task and has none."""
    decisions, cases = schema.decisions.c, schema.cases.c
    theirs, others, first = (schema.tasks.alias(name) for name in ("theirs", "others", "first"))
    status = sa.select(cases.status).where(cases.id == decisions.case_id).scalar_subquery()
    is_report = Occasion.REPORT.value
    since = (
        sa.select(sa.func.min(first.c.created_at))
        .where(first.c.action == action, first.c.occasion == is_report)
        .scalar_subquery()
    )
    blocked = sa.and_(
        decisions.verdict == "block",
        decisions.report_due.is_(sa.true()),
        sa.or_(decisions.case_id.is_(None), status != "dismissed"),
    )

    def has_task(tasks: sa.FromClause, *where: sa.ColumnElement[bool]) -> sa.Exists:
        return sa.exists().where(tasks.c.decision_id == decisions.id, tasks.c.occasion == is_report, *where)

    return [
        decisions.decided_at >= now - _LOOK_BACK,
        sa.or_(blocked, status == "confirmed"),
        ~has_task(theirs, theirs.c.action == action),
        sa.or_(decisions.decided_at >= since, ~has_task(others)),
    ]
