"""Watching the outbox: alarms for what is late, refused or nobody's, once for each task and again each hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from uploadguard.actions import Occasion, State
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.config_ledger import OutboxSettings
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.delivery.leases import Clock
from uploadguard.ledger.outbox import UNDONE, Outbox, OutboxStatus, is_late

__all__ = ["Watch"]

_AGAIN = timedelta(hours=1)
_NOBODYS_AFTER = timedelta(minutes=5)
_AT_ONCE = 1000


class Watch:
    """Several workers may watch one outbox: each task's alarm is raised by one of them."""

    def __init__(
        self,
        database: Database,
        settings: OutboxSettings,
        actions: Collection[str],
        alarm: Callable[[Alarm], None],
        watcher: Callable[[OutboxStatus], None] | None,
    ) -> None:
        self._database = database
        self._alarm_before = timedelta(hours=settings.alarm_before_h)
        self._actions = sorted(actions)
        self._alarm = alarm
        self._watcher = watcher
        self._clock = Clock(database)
        self._outbox = Outbox(database, settings, actions=actions)

    def run(self) -> None:
        """Raise the alarms that are due, and tell the watcher how things stand."""
        found: Counter[tuple[AlarmKind, str]] = Counter()
        while True:
            with self._database.reading() as connection:
                if connection.execute(self._due(self._clock.read(connection)).limit(1)).first() is None:
                    break
            with self._database.changing() as connection:
                now = self._clock.read(connection)
                # What is being written to just now comes next time.
                due = connection.execute(self._due(now).limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
                ids = [row.id for row in due]
                marked = sa.update(schema.tasks).where(schema.tasks.c.id.in_(ids)).values(alarmed_at=now)
                connection.execute(marked)
            found.update((_kind(row.occasion, refused=row.refused, late=row.late), row.action) for row in due)
            if len(due) < _AT_ONCE:
                break
        for (kind, action), count in sorted(found.items()):
            self._alarm(Alarm(kind, _text(kind, action, count), action, count))
        if self._watcher is not None:
            self._watcher(self._outbox.status(done=False))

    def _due(self, now: datetime) -> sa.Select[Any]:
        """The tasks to raise an alarm for."""
        tasks = schema.tasks.c
        refused = tasks.state == State.REFUSED.value
        late = is_late(now + self._alarm_before)
        nobodys = sa.and_(
            schema.OPEN_TASKS,
            tasks.action.not_in(self._actions),
            tasks.next_at < now - _NOBODYS_AFTER,
            sa.or_(tasks.lease.is_(None), tasks.lease_until < now),
        )
        is_late_now = sa.func.coalesce(late, sa.false())
        return (
            sa.select(tasks.id, tasks.action, tasks.occasion, refused.label("refused"), is_late_now.label("late"))
            .where(tasks.state.in_([state.value for state in UNDONE]))  # lets an index be used
            .where(sa.or_(tasks.alarmed_at.is_(None), tasks.alarmed_at < now - _AGAIN))
            .where(sa.or_(refused, late, nobodys))
            .order_by(tasks.id)
        )


def _kind(occasion: str, *, refused: bool, late: bool) -> AlarmKind:
    if refused:
        return AlarmKind.REPORT_REFUSED if occasion == Occasion.REPORT.value else AlarmKind.TASK_REFUSED
    return AlarmKind.REPORT_LATE if late else AlarmKind.NO_ACTION


_TEXTS = {
    AlarmKind.REPORT_LATE: "{tasks} for {action} not filed, and the deadline near or over",
    AlarmKind.REPORT_REFUSED: "{tasks} for {action} refused: a person must look",
    AlarmKind.TASK_REFUSED: "{tasks} for {action} refused: a person must look",
    AlarmKind.NO_ACTION: "{tasks} waiting for {action}, which no worker has: is [actions.{action}] still configured?",
}


def _text(kind: AlarmKind, action: str, count: int) -> str:
    noun = "report" if kind in (AlarmKind.REPORT_LATE, AlarmKind.REPORT_REFUSED) else "task"
    return _TEXTS[kind].format(tasks=f"{count:,} {noun}{'s' if count != 1 else ''}", action=action)
