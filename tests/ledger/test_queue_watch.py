"""Too many open cases are told once, and again when it comes back."""

from __future__ import annotations

import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.queue_watch import QueueWatch
from uploadguard.ledger.recording import Plan, record


def test_it_tells_once_until_there_were_fewer(database: Database) -> None:
    alarms: list[Alarm] = []
    watch, never = QueueWatch(database, 2, alarms.append), QueueWatch(database, 0, alarms.append)

    def open_one() -> None:
        with database.writing() as connection:
            record(connection, [made_up_record(entry=None)], Plan({}))
        watch.run()
        never.run()

    open_one()
    open_one()
    assert alarms == []
    open_one()
    open_one()
    assert [(alarm.kind, alarm.count) for alarm in alarms] == [(AlarmKind.QUEUE_FULL, 3)]
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="dismissed"))
    watch.run()
    for _ in range(3):
        open_one()
    assert len(alarms) == 2
