"""Watches how many cases wait. None is ever dropped or decided by itself, so all that can be done is to say so."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database

__all__ = ["QueueWatch"]


class QueueWatch:
    """Raises an alarm when more than ``max_open`` cases are open, and again only after there were fewer. 0: never."""

    def __init__(self, database: Database, max_open: int, alarm: Callable[[Alarm], None]) -> None:
        self._database = database
        self._max_open = max_open
        self._alarm = alarm
        self._is_full = False

    def run(self) -> None:
        """Look now. Raises :class:`~uploadguard.errors.LedgerError`."""
        if not self._max_open:
            return
        waiting = schema.cases.c.status.in_(("open", "proposed"))
        with self._database.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(schema.cases).where(waiting)).scalar_one()
        was_full, self._is_full = self._is_full, count > self._max_open
        if self._is_full and not was_full:
            text = f"{count:,} cases wait for a person, more than ledger.max_open_cases; their uploads stay unserved"
            self._alarm(Alarm(AlarmKind.QUEUE_FULL, text, count=count))
