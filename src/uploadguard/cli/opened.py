"""The ledger for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.cli.state import State
    from uploadguard.ledger.ledger import Ledger

__all__ = ["opened_ledger"]


@contextmanager
def opened_ledger(options: State) -> Iterator[Ledger]:
    """The ledger that the configuration names, closed in the end.

    Raises :class:`~uploadguard.errors.LedgerError`, :class:`~uploadguard.errors.ConfigError`.
    """
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.plugins import Plugins

    settings = options.load_settings()
    ledger = Ledger.open(settings, Plugins(settings))
    try:
        yield ledger
    finally:
        ledger.close()
