"""Whether the hash set is still being updated: protection that nobody feeds wears off without a sound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from uploadguard.logs import log
from uploadguard.models import Failure, FailureCode

__all__ = ["Freshness"]

_WARN_EVERY_S = 3600.0


class Freshness:
    """Judges the age of the last import or update. 0 hours switch a bound off. ``clock`` gives seconds since 1970."""

    def __init__(self, *, warn_after_h: float, stale_after_h: float, clock: Callable[[], float] = time.time) -> None:
        self._warn_after_s = warn_after_h * 3600
        self._stale_after_s = stale_after_h * 3600
        self._clock = clock
        self._warning = threading.Lock()
        self._warned = float("-inf")

    def is_stale(self, updated_at: datetime | None) -> bool:
        """Whether the age is above ``stale_after_h``. Without any list (None) there is nothing to grow old."""
        return updated_at is not None and 0 < self._stale_after_s < self._age_s(updated_at)

    def judge(self, updated_at: datetime | None) -> tuple[Failure, ...]:
        """The failure that a check has where the hash set is stale. Warns in the log, each hour once."""
        if updated_at is None:
            return ()
        age_s = self._age_s(updated_at)
        if 0 < self._warn_after_s < age_s:
            self._warn(age_s)
        if not 0 < self._stale_after_s < age_s:
            return ()
        return (Failure(FailureCode.HASH_SET_STALE, f"no list was imported or updated for {age_s / 3600:.0f} hours"),)

    def _age_s(self, updated_at: datetime) -> float:
        return self._clock() - updated_at.timestamp()

    def _warn(self, age_s: float) -> None:
        now = time.monotonic()
        with self._warning:
            if now - self._warned < _WARN_EVERY_S:
                return
            self._warned = now
        log.warning("no hash list was imported or updated for %.0f hours: new material goes unnoticed", age_s / 3600)
