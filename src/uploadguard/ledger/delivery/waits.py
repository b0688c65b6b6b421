"""How long to wait after a failure."""

from __future__ import annotations

from uploadguard.config_ledger import OutboxSettings

__all__ = ["asked_s", "longest_s"]

_DAY_S = 86_400.0
_DOUBLINGS = 64


def longest_s(settings: OutboxSettings, failures: int) -> float:
    """The longest wait after so many failures: it doubles each time, up to ``outbox.max_wait_s``."""
    return min(settings.max_wait_s, settings.first_wait_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS))


def asked_s(after_s: float | None) -> float:
    """The wait that the other side asks for, between nothing and a day."""
    if after_s is None or after_s != after_s:
        return 0.0
    return min(max(float(after_s), 0.0), _DAY_S)
