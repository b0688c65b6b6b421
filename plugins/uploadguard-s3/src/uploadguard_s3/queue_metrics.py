"""Prometheus metrics of the queue of events, beside those of the checks. No label holds a bucket, a key or a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploadguard.telemetry.registry import registered
from uploadguard_s3.events import EventKind
from uploadguard_s3.handling import Ending
from uploadguard_s3.model import Outcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["QueueMetrics"]

_BUCKETS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)


class QueueMetrics:
    """A :class:`~uploadguard_s3.handling.Watcher`. ``registry`` is the package's own by default.

    Raises :class:`~uploadguard.errors.ConfigError` if prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry, self._metrics = registered(registry, _register)

    def saw_event(self, kind: EventKind) -> None:
        """Count an event."""
        self._metrics["events"].labels(kind.value).inc()

    def saw_object(self, outcome: Outcome, check_s: float, lag_s: float | None) -> None:  # noqa: ARG002 - Watcher's
        """Book how long an object waited; the rest is booked where it is checked."""
        if lag_s is not None:
            self._metrics["lag"].observe(lag_s)

    def saw_message(self, ending: Ending) -> None:
        """Count a message."""
        self._metrics["messages"].labels(ending.value).inc()

    def show(self, *, held: int, waiting: int) -> None:
        """Show how many messages this worker holds, and about how many wait in the queue."""
        self._metrics["held"].set(held)
        self._metrics["waiting"].set(waiting)


def _register(prometheus: Any, registry: CollectorRegistry) -> dict[str, Any]:
    def counter(name: str, text: str, label: str) -> Any:
        return prometheus.Counter(f"uploadguard_s3_{name}", text, (label,), registry=registry)

    def gauge(name: str, text: str, mode: str) -> Any:
        return prometheus.Gauge(f"uploadguard_s3_{name}", text, registry=registry, multiprocess_mode=mode)

    return {
        "events": counter("events", "Events that were read.", "kind"),
        "messages": counter("messages", "Messages by what became of them.", "ending"),
        "lag": prometheus.Histogram(
            "uploadguard_s3_lag_seconds",
            "From an upload's event, as S3 times it, to the end of its check.",
            registry=registry,
            buckets=_BUCKETS_S,
        ),
        "held": gauge("messages_held", "Messages that workers hold.", "livesum"),
        "waiting": gauge("messages_waiting", "Messages in the queue, about, as last asked.", "livemostrecent"),
    }
