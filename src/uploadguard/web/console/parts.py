"""The parts of the library that the console works with, from settings or from a host's Guard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from uploadguard.config import Settings
from uploadguard.errors import ConfigError, UploadguardError
from uploadguard.guard import Guard
from uploadguard.hashset import HashSet
from uploadguard.ledger.accounts import Accounts
from uploadguard.ledger.ledger import Ledger
from uploadguard.logs import log
from uploadguard.opening import open_hashset
from uploadguard.plugins import Plugins

__all__ = ["Parts", "open_parts"]


@dataclass(frozen=True)
class Parts:
    """The ledger with what the console adds to it. Shared between threads."""

    settings: Settings
    ledger: Ledger
    guard: Guard | None

    @cached_property
    def accounts(self) -> Accounts:
        """The local accounts."""
        return Accounts(self.ledger.database, idle=timedelta(minutes=self.settings.console.session_minutes))

    @property
    def keeps_files(self) -> bool:
        """Whether files of uploads are preserved at all."""
        return self.settings.evidence.path is not None

    def hashset(self) -> HashSet:
        """This host's hash set. Raises ``HashSetError``, and ``ConfigError`` where its key is not to be had."""
        return open_hashset(self.settings)

    def decided(self) -> None:
        """Bring what was just decided into this host's hash set at once; the others, and a failure here, follow."""
        try:
            self.ledger.apply_local_lists()
        except UploadguardError as error:
            log.warning("what was decided is not in the hash set yet, and is tried again: %s", type(error).__name__)

    def close(self) -> None:
        """Let go of the ledger."""
        self.ledger.close()


def open_parts(source: Guard | Settings) -> Parts:
    """The parts. Raises :class:`~uploadguard.errors.ConfigError` where there is no ledger, ``LedgerError``.

    With a Guard the console has connections of its own to the ledger, which may wait longer than an upload may.
    """
    guard = None if isinstance(source, Settings) else source
    settings = source if isinstance(source, Settings) else source.settings
    if settings.ledger.path is None:
        raise ConfigError("the console works on the ledger, and there is none: set ledger.path")
    plugins = Plugins(settings) if guard is None else guard.plugins
    return Parts(settings, Ledger.open(settings, plugins), guard)
