"""What the service counts, and how Prometheus gets it (extra: metrics)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from uploadguard.telemetry.registry import registered

__all__ = ["CONTENT_TYPE", "ServiceMetrics", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_LIVE = re.compile(r"gauge_live[a-z]+_(\d+)\.db")


class ServiceMetrics:
    """Counts requests in prometheus-client's own registry. Raises ``ConfigError`` where that is not installed."""

    def __init__(self) -> None:
        self._metrics = registered(None, _register)[1]

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request was answered. ``route`` is a path of ours, never the client's."""
        self._metrics["requests"].labels(route, str(status)).inc()
        self._metrics["seconds"].labels(route).observe(seconds)

    def gone(self, route: str) -> None:
        """A client left before its answer."""
        self._metrics["gone"].labels(route).inc()

    def under_way(self, uploads: int) -> None:
        """So many uploads are being taken in."""
        self._metrics["uploads"].set(uploads)


def _register(prometheus: Any, registry: Any) -> dict[str, Any]:
    prefix = "uploadguard_service"
    return {
        "requests": prometheus.Counter(
            f"{prefix}_requests", "Requests answered.", ("route", "status"), registry=registry
        ),
        "gone": prometheus.Counter(
            f"{prefix}_clients_gone", "Clients that left before their answer.", ("route",), registry=registry
        ),
        "seconds": prometheus.Histogram(
            f"{prefix}_seconds", "From a request's head to its answer.", ("route",), registry=registry,
            buckets=_BUCKETS_S,
        ),
        "uploads": prometheus.Gauge(
            f"{prefix}_uploads", "Uploads that are being taken in or checked.", registry=registry,
            multiprocess_mode="livesum",
        ),
    }  # fmt: skip


def render() -> bytes:
    """All metrics as text; of all worker processes where there are several. Blocks."""
    import prometheus_client

    directory = os.environ.get(_MULTIPROCESS)
    if directory is None:
        return prometheus_client.generate_latest()
    from prometheus_client import multiprocess

    registry = prometheus_client.CollectorRegistry()
    _forget_the_dead(Path(directory))
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


def _forget_the_dead(directory: Path) -> None:
    """Take away the gauges of workers that ended without a word."""
    from prometheus_client import multiprocess

    for path in directory.glob("gauge_live*.db"):
        found = _LIVE.fullmatch(path.name)
        if found is not None and not _is_alive(int(found[1])):
            multiprocess.mark_process_dead(int(found[1]))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
