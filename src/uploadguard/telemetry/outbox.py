"""Prometheus metrics of the outbox, set by whichever process carries it out. See :mod:`uploadguard.telemetry.metrics`.

All workers of one outbox show the same values, those of its database: over several processes the latest counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploadguard.telemetry.registry import registered

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from uploadguard.ledger.outbox import OutboxStatus

__all__ = ["OutboxMetrics"]


class OutboxMetrics:
    """Gauges of the tasks that are neither done nor taken back. ``registry`` is the package's own by default.

    :meth:`show` is a watcher for :class:`~uploadguard.ledger.outbox_worker.OutboxWorker`. Raises
    :class:`~uploadguard.errors.ConfigError` if prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry, self._metrics = registered(registry, _register)
        self._shown: set[tuple[str, str]] = set()

    def show(self, status: OutboxStatus) -> None:
        """Set the gauges. ``oldest_timestamp`` is 0 where nothing waits."""
        counts = {(action, state.value): count for (action, state), count in status.counts.items()}
        for labels in self._shown | set(counts):
            self._metrics["tasks"].labels(*labels).set(counts.get(labels, 0))
        self._shown |= set(counts)
        self._metrics["late"].set(status.late)
        self._metrics["oldest"].set(status.oldest_at.timestamp() if status.oldest_at is not None else 0)


def _register(prometheus: Any, registry: CollectorRegistry) -> dict[str, Any]:
    def gauge(name: str, text: str, *labels: str) -> Any:
        return prometheus.Gauge(
            f"uploadguard_outbox_{name}", text, labels, registry=registry, multiprocess_mode="livemostrecent"
        )

    return {
        "tasks": gauge("tasks", "Tasks that are neither done nor taken back.", "action", "state"),
        "late": gauge("late", "Reports not filed whose deadline is near or over."),
        "oldest": gauge("oldest_timestamp_seconds", "Since when the oldest of these tasks waits; 0 for none."),
    }
