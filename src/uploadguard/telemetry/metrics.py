"""Prometheus metrics, through the prometheus-client package (extra ``metrics``).

Nothing here is a custom collector or a callback, which prometheus-client cannot carry over processes: values are set
when decisions are made. So in servers with several processes it works as that package says, with
``PROMETHEUS_MULTIPROC_DIR``; the gauges of a process that ended go with it. No label holds a hash, a list's name or
anything of the uploader's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uploadguard.alarms import Alarm
from uploadguard.hookspecs import hookimpl
from uploadguard.models import Decision, Verdict
from uploadguard.telemetry.registry import registered

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from uploadguard.guard import Guard

__all__ = ["Metrics"]

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_PREFIX = "uploadguard"
_MAX_MEDIA_TYPES = 64
"""Plugins may sniff what they like; labels must stay few."""

_OPEN: dict[int, list[Metrics]] = {}
"""By registry, those whose Guard is open, the latest last: it sets what there is one of."""

_OPENING = threading.Lock()


class Metrics:
    """A plugin that counts and times decisions. ``registry`` is the package's own by default.

    Raises :class:`~uploadguard.errors.ConfigError` if prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry, self._metrics = registered(registry, _register)
        with _OPENING:
            self._open = _OPEN.setdefault(id(self._registry), [])
        self._guard: Guard | None = None
        self._counting = threading.Lock()
        self._counted: dict[tuple[str, str], int] = {}
        self._media_types: set[str] = set()
        self._children: dict[tuple[str, ...], Any] = {}

    @hookimpl
    def uploadguard_startup(self, guard: Guard) -> None:
        """Show what is loaded before the first check."""
        self._guard = guard
        with _OPENING:
            self._open.append(self)
        self._set_from_status()

    @hookimpl
    def uploadguard_shutdown(self) -> None:
        """Count what happened since the last decision. What is shown from now on is another open Guard's, if any."""
        self._set_from_status()
        self._guard = None
        with _OPENING:
            self._open.remove(self)
            others = tuple(self._open)
        if others:
            others[-1]._set_from_status()
        else:
            for name in ("workers", "busy", "waiting"):
                self._metrics[name].set(0)

    @hookimpl
    def uploadguard_generation_changed(self) -> None:
        """Show the new generation."""
        self._set_from_status()

    @hookimpl
    def uploadguard_decision_made(self, decision: Decision) -> None:
        """Count one decision and book its time."""
        self._child("checks", decision.verdict.label, self._media_type(decision)).inc()
        for code in sorted({failure.code.value for failure in decision.failures}):
            self._child("failures", code, decision.verdict.label).inc()
        if decision.verdict is Verdict.NOT_SCANNED:
            for reason in decision.reasons:
                self._child("not_scanned", reason).inc()
        for signal_type in sorted({match.signal_type for match in decision.matches if not match.allow}):
            self._child("matches", signal_type).inc()
        if decision.shadow is not None:
            self._child("shadow", decision.shadow.label).inc()
        for stage, ms in decision.timings_ms.items():
            self._child("stage_seconds", stage).observe(ms / 1e3)
        self._set_from_status()

    @hookimpl
    def uploadguard_alarm(self, alarm: Alarm) -> None:
        """Count one alarm, and show what it changed: where nothing is recorded, no decision comes to do so."""
        self._child("alarms", alarm.kind.value).inc()
        self._set_from_status()

    def _child(self, name: str, *labels: str) -> Any:
        """The metric of these labels: finding one anew takes longer than counting."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._metrics[name].labels(*labels)
        return child

    def _media_type(self, decision: Decision) -> str:
        media_type = decision.media.media_type
        if media_type is None:
            return "unknown"
        if media_type not in self._media_types and len(self._media_types) >= _MAX_MEDIA_TYPES:
            return "other"
        self._media_types.add(media_type)
        return media_type

    def _set_from_status(self) -> None:
        guard = self._guard
        if guard is None:
            return
        status = guard.status()
        self._metrics["generation"].set(status.generation)
        self._metrics["entries"].set(status.entries)
        self._metrics["ready"].set(status.ready)
        if status.updated_at is not None:
            self._metrics["updated"].set(status.updated_at.timestamp())
        if status.oldest_at is not None:
            self._metrics["oldest"].set(status.oldest_at.timestamp())
        self._metrics["stale"].set(status.stale)
        self._metrics["lists_tripped"].set(len(status.tripped))
        if status.late is not None:
            self._metrics["late_questions"].set(sum(status.late.values()))
        self._count_up("plugin_errors", status.plugin_errors)
        if status.ledger is not None:
            self._metrics["spool_files"].set(status.ledger.spool.files)
        pool = status.sandbox.pool
        if pool is not None:
            self._metrics["workers"].set(pool.live)
            self._metrics["busy"].set(pool.busy)
            self._metrics["waiting"].set(pool.waiting)
            self._count_up("workers_ended", pool.ended)

    def _count_up(self, name: str, totals: Mapping[str, int]) -> None:
        """Add what came since last time to a counter, from totals that only grow."""
        with self._counting:
            for label, total in totals.items():
                new = total - self._counted.get((name, label), 0)
                if new > 0:
                    self._child(name, label).inc(new)
                    self._counted[name, label] = total


def _register(prometheus: Any, registry: CollectorRegistry) -> dict[str, Any]:
    def counter(name: str, text: str, *labels: str) -> Any:
        return prometheus.Counter(f"{_PREFIX}_{name}", text, labels, registry=registry)

    def gauge(name: str, text: str, mode: str) -> Any:
        return prometheus.Gauge(f"{_PREFIX}_{name}", text, registry=registry, multiprocess_mode=mode)

    return {
        "checks": counter("checks", "Decisions.", "verdict", "media_type"),
        "failures": counter("failures", "What could not be inspected, once a decision each.", "code", "verdict"),
        "not_scanned": counter("not_scanned", "Decisions not_scanned, by each of their reasons.", "reason"),
        "matches": counter("matches", "Decisions with a match, by signal type.", "signal_type"),
        "shadow": counter("shadow", "Decisions that shadow mode changed, by what they would have been.", "verdict"),
        "plugin_errors": counter("plugin_errors", "Hooks that raised or broke their contract.", "plugin"),
        "stage_seconds": prometheus.Histogram(
            f"{_PREFIX}_stage_seconds",
            "Wall-clock time by stage; total is the whole check.",
            ("stage",),
            registry=registry,
            buckets=_BUCKETS_S,
        ),
        "workers_ended": counter("workers_ended", "Worker processes that ended.", "reason"),
        "workers": gauge("workers", "Worker processes that are ready or at work.", "livesum"),
        "busy": gauge("workers_busy", "Worker processes at work.", "livesum"),
        "waiting": gauge("checks_waiting", "Checks that wait for a worker.", "livesum"),
        "stale": gauge("hash_set_stale", "Whether no list was updated for too long.", "livemax"),
        "generation": gauge(
            "hash_set_generation", "The generation that checks see; the oldest of all workers.", "livemin"
        ),
        "entries": gauge("hash_set_entries", "Entries that protect.", "livemin"),
        "oldest": gauge(
            "hash_set_oldest_list_timestamp_seconds", "When the list was updated that waits longest.", "livemin"
        ),
        "updated": gauge("hash_set_updated_timestamp_seconds", "When a list was last imported or updated.", "livemin"),
        "lists_tripped": gauge(
            "lists_tripped", "Lists and match services that match too much, so that they only queue.", "livemax"
        ),
        "late_questions": gauge("late_questions", "Questions that match services are still to answer.", "livemax"),
        "alarms": counter("alarms", "Alarms that this process raised.", "kind"),
        "spool_files": gauge("spool_files", "Files in the spool: decisions for a database that is down.", "livemax"),
        "ready": gauge("ready", "Whether checks can be answered.", "livemin"),
    }
