"""Prometheus metrics of the checks of objects. No label holds a bucket, a key or anything of the uploader's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploadguard.telemetry.registry import registered
from uploadguard_s3.model import Checked

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["ObjectMetrics"]

_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class ObjectMetrics:
    """Counts and times what an :class:`~uploadguard_s3.checker.ObjectChecker` does. ``registry`` is the package's own
    by default.

    Raises :class:`~uploadguard.errors.ConfigError` if prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry, self._metrics = registered(registry, _register)

    def checked(self, checked: Checked, seconds: float) -> None:
        """Book one object that was dealt with."""
        self._metrics["objects"].labels(checked.outcome.value).inc()
        for effect in checked.effects:
            self._metrics["effects"].labels(effect).inc()
        if checked.decision is not None:
            self._metrics["bytes"].inc(checked.decision.media.size_bytes)
        self._metrics["seconds"].observe(seconds)

    def failed(self, kind: str) -> None:
        """Count one that was not: ``retry`` or ``poison``."""
        self._metrics["failures"].labels(kind).inc()

    def overwritten(self) -> None:
        """Count one that was overwritten while it was checked, and is checked again."""
        self._metrics["overwritten"].inc()

    def under_way(self, objects: int, size_bytes: int) -> None:
        """Show what is being done now."""
        self._metrics["under_way"].set(objects)
        self._metrics["memory"].set(size_bytes)


def _register(prometheus: Any, registry: CollectorRegistry) -> dict[str, Any]:
    def counter(name: str, text: str, *labels: str) -> Any:
        return prometheus.Counter(f"uploadguard_s3_{name}", text, labels, registry=registry)

    def gauge(name: str, text: str) -> Any:
        return prometheus.Gauge(f"uploadguard_s3_{name}", text, registry=registry, multiprocess_mode="livesum")

    return {
        "objects": counter("objects", "Objects that were dealt with.", "outcome"),
        "effects": counter("effects", "What was done to objects.", "effect"),
        "failures": counter("failures", "Objects that could not be dealt with.", "kind"),
        "overwritten": counter("overwritten", "Objects that were overwritten while they were checked."),
        "bytes": counter("checked_bytes", "Sizes of the objects that were checked."),
        "seconds": prometheus.Histogram(
            "uploadguard_s3_object_seconds",
            "Wall-clock time for one object, from its event's arrival to the last effect.",
            registry=registry,
            buckets=_BUCKETS_S,
        ),
        "under_way": gauge("objects_under_way", "Objects that are being dealt with."),
        "memory": gauge("memory_bytes", "Bytes of objects in memory."),
    }
