"""A ledger's files that are deleted or replaced while it is in use: no record goes where nobody finds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.config import Settings
from uploadguard.errors import LedgerDownError, NotRecordedError
from uploadguard.ledger import schema
from uploadguard.ledger.database import SQLITE_NAME, Database, open_database
from uploadguard.ledger.recorder import Recorder
from uploadguard.ledger.recording import Plan
from uploadguard.ledger.spool import Spool


def decisions(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.decisions)).scalar_one()


def recorder_of(database: Database, directory: Path, alarms: list[Alarm]) -> Recorder:
    return Recorder(database, Spool(directory / "spool"), Plan({}), timeout_s=10.0, alarm=alarms.append)


def test_a_deleted_database_is_an_outage_and_no_new_one_is_made(sqlite_settings: Settings) -> None:
    assert sqlite_settings.ledger.path is not None
    file = sqlite_settings.ledger.path / SQLITE_NAME
    database = open_database(sqlite_settings, create=True)
    alarms: list[Alarm] = []
    recorder = recorder_of(database, sqlite_settings.ledger.path, alarms)
    recorder.record(made_up_record())
    backup = file.with_suffix(".bak")
    database.close()
    shutil.copy(file, backup)
    recorder.record(made_up_record())
    file.unlink()

    recorder.record(made_up_record())
    assert [alarm.kind for alarm in alarms] == [AlarmKind.SPOOLING]
    assert "the file is gone" in alarms[0].text
    assert recorder.status().into == "spool"
    assert not file.exists()

    for name in (f"{SQLITE_NAME}-wal", f"{SQLITE_NAME}-shm"):
        file.with_name(name).unlink(missing_ok=True)
    backup.rename(file)
    recorder.tend()
    assert decisions(database) == 2  # that of the backup, and that of the spool
    assert recorder.status().into == "database"
    recorder.close()
    database.close()


def test_a_replaced_database_is_opened_anew(sqlite_settings: Settings, tmp_path: Path) -> None:
    assert sqlite_settings.ledger.path is not None
    database = open_database(sqlite_settings, create=True)
    assert decisions(database) == 0
    sqlite_settings.ledger.path.rename(tmp_path / "before")
    other = open_database(sqlite_settings, create=True)
    recorder = recorder_of(other, sqlite_settings.ledger.path, [])
    recorder.record(made_up_record())
    recorder.close()
    assert decisions(database) == 1
    other.close()
    database.close()


def test_without_its_directory_nothing_is_acknowledged(sqlite_settings: Settings) -> None:
    assert sqlite_settings.ledger.path is not None
    database = open_database(sqlite_settings, create=True)
    recorder = recorder_of(database, sqlite_settings.ledger.path, [])
    recorder.record(made_up_record())
    shutil.rmtree(sqlite_settings.ledger.path)
    with pytest.raises(NotRecordedError, match="No such file"):
        recorder.record(made_up_record())
    with pytest.raises(LedgerDownError, match="the file is gone"):
        decisions(database)
    assert recorder.refusing
    recorder.close()
    database.close()


def test_a_spool_file_that_vanished_takes_no_more_records(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append({"number": 1})
    shutil.rmtree(tmp_path / "spool")
    spool.append({"number": 2})
    spool.close()
    found: list[object] = []
    assert spool.drain(found.extend) == 1
    assert found == [{"number": 2}]
