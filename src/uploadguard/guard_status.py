"""How a Guard is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from uploadguard.sandbox.inspector import SandboxStatus

if TYPE_CHECKING:
    from uploadguard.ledger.recorder import RecorderStatus

__all__ = ["GuardStatus"]


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """How a Guard is doing, for readiness probes and monitoring.

    ``checks`` counts decisions by verdict label, ``failures`` those with a failure by its code, ``plugin_errors`` what
    plugins raised by their names. ``refresh_error`` is why the newest generation on disk is not the one that serves, if
    it is not. ``updated_at`` is when a list was last imported or updated, UTC, and ``stale`` whether that was longer
    ago than ``hashset.stale_after_h``; ``oldest_at`` is when the list was that waits longest. ``sandbox`` is how
    uploads are isolated, and how the workers are doing. ``ledger`` is how decisions are kept; None: they are not.
    ``tripped`` has the lists and match services whose matches are only queued, since they matched too much; where it is
    not known which do, ``breaker_error`` says why, and all are. ``late`` has how many answers are still to come from
    match services that answer later, by their names, without those that owe none; None: none is to answer later, or it
    cannot be read.
    """

    ready: bool
    generation: int
    entries: int
    checks: Mapping[str, int]
    failures: Mapping[str, int]
    plugin_errors: Mapping[str, int]
    fail_open: tuple[str, ...]
    refresh_error: str | None
    updated_at: datetime | None
    oldest_at: datetime | None
    stale: bool
    sandbox: SandboxStatus
    ledger: RecorderStatus | None
    tripped: tuple[str, ...] = field(default=(), repr=False)
    breaker_error: str | None = None
    late: Mapping[str, int] | None = field(default=None, repr=False)
