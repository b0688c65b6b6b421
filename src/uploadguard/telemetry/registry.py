"""Where Prometheus metrics are registered: once in each registry, whoever sets them, and however many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uploadguard.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Register", "registered"]

Register = Callable[[Any, "CollectorRegistry"], dict[str, Any]]
"""Makes metrics, by name, of the package in a registry."""

_REGISTERED: dict[tuple[int, Register], dict[str, Any]] = {}
_REGISTERING = threading.Lock()


def registered(registry: CollectorRegistry | None, register: Register) -> tuple[CollectorRegistry, dict[str, Any]]:
    """The registry, the package's own by default, and what ``register`` makes in it, made when first asked for.

    Keep the registry as long as the metrics: they are found by its id. Raises
    :class:`~uploadguard.errors.ConfigError` if prometheus-client is not installed.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError(
            "telemetry.metrics needs the prometheus-client package: pip install 'uploadguard[metrics]'"
        ) from error
    if registry is None:
        registry = prometheus_client.REGISTRY
    key = (id(registry), register)
    with _REGISTERING:
        if key not in _REGISTERED:
            _REGISTERED[key] = register(prometheus_client, registry)
    return registry, _REGISTERED[key]
