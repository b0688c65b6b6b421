"""The migrations make the tables that the code works with, on both databases."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from uploadguard.config import Settings
from uploadguard.errors import ConfigError, LedgerError
from uploadguard.ledger import migrations, schema
from uploadguard.ledger.database import Database, open_database


def test_the_migrations_make_the_schema(database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        assert migrations.current(connection) == migrations.HEAD


def test_the_last_migration_is_the_head() -> None:
    files = sorted((Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))
    assert files[-1].name.startswith(migrations.HEAD)


def test_upgrading_twice_changes_nothing(settings: Settings, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(sa.update(schema.audit_head).values(seq=5))
    open_database(settings, create=True).close()
    with database.reading() as connection:
        assert connection.execute(sa.select(schema.audit_head.c.seq)).scalar() == 5


def test_a_ledger_that_is_not_there_is_not_made_by_the_way(settings: Settings) -> None:
    with pytest.raises(LedgerError, match=r"uploadguard (init|ledger upgrade)"):
        open_database(settings)
    assert settings.ledger.path is not None
    settings.ledger.path.mkdir()
    with pytest.raises(LedgerError, match="uploadguard ledger upgrade"):
        open_database(settings)


def test_another_version_is_refused(settings: Settings, database: Database) -> None:
    with database.changing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="version 9999"):
        open_database(settings)


def test_only_the_owner_can_read_the_file(sqlite_settings: Settings) -> None:
    open_database(sqlite_settings, create=True).close()
    assert sqlite_settings.ledger.path is not None
    assert stat.S_IMODE(sqlite_settings.ledger.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((sqlite_settings.ledger.path / "ledger.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ({"url": "postgresql://localhost/x"}, "ledger.path: is needed"),
        ({"path": "x", "url": "postgresql://a/b", "url_env": "X"}, "give one of the two"),
        ({"path": "x", "url_env": "NOT_SET_ANYWHERE"}, "is not set"),
        ({"path": "x", "url": "nonsense"}, "not a database URL"),
        ({"path": "x", "url": "mysql://a/b"}, "must be a PostgreSQL URL"),
    ],
)
def test_wrong_settings_are_named(ledger: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_database(Settings.load(ledger=ledger), create=True)


def test_an_error_of_the_database_holds_no_values(database: Database) -> None:
    with pytest.raises(LedgerError) as caught, database.changing() as connection:
        connection.execute(sa.insert(schema.accounts).values(name="secret-name", password=None, roles=[]))
    assert "secret-name" not in str(caught.value)
