"""How the ledger's tables came to be, step by step (Alembic). ``versions/`` has one file for each step; they are never
changed once released. To add one: change ``schema.py``, write the file, and the test that compares them must pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from uploadguard.errors import LedgerError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

    from uploadguard.ledger.database import Database

__all__ = ["HEAD", "current", "require_current", "upgrade"]

HEAD = "0001"
"""The version of the tables that this code works with; a test compares it with the last file in ``versions/``."""

_LOCK = 0x75_67_6C_64  # any number, the same in all processes
_VERSIONS = sa.table("alembic_version", sa.column("version_num"))


def upgrade(database: Database) -> None:
    """Make the tables, or bring them up to date. Several processes may do so at once."""
    from alembic import command

    with database.changing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        command.upgrade(_config(connection), "head")


def current(connection: Connection) -> str | None:
    """The version of the tables that are there; None where there are none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.select(_VERSIONS.c.version_num)).scalar()
    return found


def require_current(database: Database, file: Path | None) -> None:
    """Raise :class:`LedgerError` unless the tables are of this version. ``file`` is the one that must be there."""
    if file is not None and not file.exists():
        raise LedgerError(f"{file}: there is no ledger; `uploadguard ledger upgrade` makes it")
    with database.reading() as connection:
        found = current(connection)
    if found is None:
        raise LedgerError("the database holds no ledger; `uploadguard ledger upgrade` makes it")
    if found != HEAD:
        raise LedgerError(
            f"the ledger's tables are of version {found}, this uploadguard works with {HEAD}: "
            "run `uploadguard ledger upgrade` with the newest version that is in use"
        )


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
