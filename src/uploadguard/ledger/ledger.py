"""The ledger of one process: its database with all that works on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from uploadguard.actions import Action
from uploadguard.alarms import Alarm
from uploadguard.errors import LedgerDownError
from uploadguard.hashset.manifest import MANIFEST_NAME
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.recorder import Recorder, drain_spool
from uploadguard.ledger.recording import Plan
from uploadguard.ledger.spool import Spool
from uploadguard.logs import log

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.ledger.cases import Cases
    from uploadguard.ledger.checkpoints import Checkpointer
    from uploadguard.ledger.evidence import EvidenceRoom
    from uploadguard.ledger.outbox import Outbox, OutboxStatus
    from uploadguard.ledger.outbox_worker import OutboxWorker
    from uploadguard.ledger.vault import Vault
    from uploadguard.plugins import Plugins

__all__ = ["Ledger", "plan_of"]

_SPOOL = "spool"

_Part = TypeVar("_Part")

Chore = tuple[float, Callable[[], object]]


def plan_of(settings: Settings, actions: Mapping[str, Action]) -> Plan:
    """What the settings and these actions say of recording."""
    return Plan.of(
        actions.values(),
        join_window=timedelta(hours=settings.ledger.join_window_h),
        report_within=timedelta(hours=settings.outbox.report_within_h),
        block_opens_case=settings.ledger.block_opens_case,
    )


class _made_once(Generic[_Part]):  # noqa: N801 - it reads as a decorator
    """A property that is computed when first asked for, and kept; where two threads compute it at once, the first is.

    It has no lock, which a fork could leave locked for ever; ``functools.cached_property`` has one before Python 3.12.
    """

    def __init__(self, make: Callable[[Any], _Part]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type | None = None) -> _Part:
        kept: _Part = owner.__dict__.setdefault(self._name, self._make(owner))
        return kept


class Ledger:
    """Shared between threads. Its parts are made when they are first asked for."""

    def __init__(self, settings: Settings, plugins: Plugins, database: Database) -> None:
        assert settings.ledger.path is not None
        self.settings = settings
        self.database = database
        self.actions = plugins.actions
        self.plan = plan_of(settings, plugins.actions)
        self.spool = Spool(settings.ledger.path / _SPOOL)
        self.plugins = plugins
        self.down: str | None = None
        """Why the database could not be used when the ledger was opened."""

    @classmethod
    def open(cls, settings: Settings, plugins: Plugins, *, timeout_s: float | None = None, needed: bool = True) -> Self:
        """Open the ledger that the settings name. ``timeout_s`` bounds each wait for the database.

        A server that is down is no error unless it is ``needed``: decisions then go to the spool. A SQLite file that
        cannot be used is one: that will not mend itself. Raises :class:`~uploadguard.errors.LedgerError`,
        :class:`~uploadguard.errors.ConfigError`.
        """
        try:
            return cls(settings, plugins, open_database(settings, timeout_s=timeout_s))
        except LedgerDownError as error:
            database = open_database(settings, timeout_s=timeout_s, check=False)
            if needed or database.is_sqlite:
                raise
            log.error("the ledger's database is down, and decisions go to the spool: %s", error)
            opened = cls(settings, plugins, database)
            opened.down = str(error)
            return opened

    def recorder(self, alarm: Callable[[Alarm], None]) -> Recorder:
        """What records decisions."""
        return Recorder(
            self.database,
            self.spool,
            self.plan,
            timeout_s=self.settings.ledger.write_timeout_s,
            alarm=alarm,
            down=self.down,
        )

    @_made_once
    def vault(self) -> Vault | None:
        """Where files are preserved, if they are."""
        if self.settings.evidence.path is None:
            return None
        from uploadguard.ledger.vault import open_vault

        return open_vault(self.settings, self.plugins.evidence_key())

    @_made_once
    def cases(self) -> Cases:
        """The review cases."""
        from uploadguard.ledger.cases import Cases

        return Cases(
            self.database,
            self.plan,
            two_person=self.settings.ledger.two_person,
            min_quality=self.settings.signals.pdq.min_quality,
            outbox=self.settings.outbox,
        )

    @_made_once
    def outbox(self) -> Outbox:
        """The tasks."""
        from uploadguard.ledger.outbox import Outbox

        return Outbox(self.database, self.settings.outbox)

    @_made_once
    def evidence(self) -> EvidenceRoom:
        """The preserved files, and who may see them."""
        from uploadguard.ledger.evidence import EvidenceRoom
        from uploadguard.preview import make_preview

        def preview(data: bytes, clear: bool, frame: int, /) -> bytes:
            return make_preview(data, self.settings, clear=clear, frame=frame, plugins=self.plugins)

        def is_spooling() -> bool:
            waiting = self.spool.status()
            return waiting.files + waiting.damaged > 0

        return EvidenceRoom(self.database, self.vault, preview, is_spooling=is_spooling)

    @_made_once
    def checkpointer(self) -> Checkpointer:
        """What signs the audit log now and then."""
        from uploadguard.ledger.checkpoints import Checkpointer

        return Checkpointer(self.database, self.settings)

    def worker(
        self,
        alarm: Callable[[Alarm], None] | None = None,
        *,
        threads: int | None = None,
        watcher: Callable[[OutboxStatus], None] | None = None,
        chores: Sequence[Chore] = (),
    ) -> OutboxWorker:
        """A worker that carries tasks out, ``threads`` at once in place of what the settings say.

        It sets the outbox's metrics, where ``telemetry.metrics`` is on. The rest is as for :class:`OutboxWorker`.
        """
        from uploadguard.ledger.outbox_worker import OutboxWorker

        settings = self.settings.outbox
        if threads is not None:
            settings = settings.model_copy(update={"threads": threads})
        return OutboxWorker(
            self.database,
            self.actions,
            settings,
            evidence=self.evidence.for_action if self.vault is not None else None,
            alarm=alarm,
            watcher=self._watcher(watcher),
            chores=chores,
        )

    def _watcher(self, other: Callable[[OutboxStatus], None] | None) -> Callable[[OutboxStatus], None] | None:
        if not self.settings.telemetry.metrics:
            return other
        from uploadguard.telemetry.outbox import OutboxMetrics

        metrics = OutboxMetrics()

        def both(status: OutboxStatus) -> None:
            metrics.show(status)
            if other is not None:
                other(status)

        return both

    def chores(self, alarm: Callable[[Alarm], None]) -> Sequence[Chore]:
        """What must be done now and then, by at least one process of each host: seconds between, and a function."""
        from uploadguard.ledger.missing_reports import MissingReports
        from uploadguard.ledger.queue_watch import QueueWatch

        found: list[Chore] = [
            (2.0, partial(drain_spool, self.database, self.spool, self.plan)),
            (60.0, QueueWatch(self.database, self.settings.ledger.max_open_cases, alarm).run),
            (300.0, MissingReports(self.database, self.plan).run),
        ]
        if self.settings.ledger.signing_key_file is not None:
            found.append((30.0, self.checkpointer.run_if_due))
        if self.vault is not None:
            found.append((3600.0, self.evidence.sweep))
        if (self.settings.hashset.path / MANIFEST_NAME).exists():
            found.append((2.0, self.apply_local_lists))
        return found

    def apply_local_lists(self) -> bool:
        """Bring what reviewers confirmed and dismissed into this host's hash set; returns whether there was news."""
        from uploadguard.ledger.locallists import apply_local_lists
        from uploadguard.opening import open_hashset
        from uploadguard.signals.base import lookup_kinds

        return apply_local_lists(
            self.database, open_hashset(self.settings), lookup_kinds(self.plugins.signal_types.values())
        )

    def close(self) -> None:
        """Let go of the spool and the database."""
        self.spool.close()
        self.database.close()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections and files alone."""
        self.database.after_fork()
        self.spool.after_fork()
