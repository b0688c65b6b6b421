"""The ledger, or only its database, for a command; closed in the end.

Both raise :class:`~uploadguard.errors.LedgerError` and :class:`~uploadguard.errors.ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.ledger.database import Database
    from uploadguard.ledger.ledger import Ledger

__all__ = ["opened_database", "opened_ledger"]


@contextmanager
def opened_ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger that the settings name, with the plugins that they name."""
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.plugins import Plugins

    ledger = Ledger.open(settings, Plugins(settings))
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def opened_database(settings: Settings, *, create: bool = False) -> Iterator[Database]:
    """The ledger's database. With ``create`` its tables are made, or brought to the version of this package."""
    from uploadguard.ledger.database import open_database

    database = open_database(settings, create=create)
    try:
        yield database
    finally:
        database.close()
