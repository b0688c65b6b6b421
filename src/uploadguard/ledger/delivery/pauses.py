"""Pauses: while a destination is down its tasks are not tried one by one, but by one at a time now and then."""

from __future__ import annotations

import random
import threading
import time

from uploadguard.config_ledger import OutboxSettings
from uploadguard.ledger.delivery.waits import asked_s, longest_s

__all__ = ["Pauses"]

_EVERYTHING = 1 << 30


class _Pause:
    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0


class Pauses:
    """Of one worker's actions. Shared between its threads."""

    def __init__(self, settings: OutboxSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pauses: dict[str, _Pause] = {}

    def allowed(self, action: str, held: int) -> int:
        """How many more tasks of this action may be taken, where ``held`` are under way."""
        with self._lock:
            pause = self._pauses.get(action)
            if pause is None:
                return _EVERYTHING
            return 1 if held == 0 and time.monotonic() >= pause.until else 0

    def is_paused(self, action: str) -> bool:
        """Whether the action's destination was down when it was last tried."""
        return action in self._pauses

    def outage(self, action: str, after_s: float | None) -> bool:
        """The other side is down: wait, longer each time. Returns whether this is news."""
        with self._lock:
            pause = self._pauses.get(action)
            new = pause is None
            if pause is None:
                pause = self._pauses[action] = _Pause()
            elif time.monotonic() < pause.until:
                return False  # several were under way when it broke down
            pause.failures += 1
            wait_s = longest_s(self._settings, pause.failures) * random.uniform(0.5, 1.0)  # noqa: S311
            pause.until = time.monotonic() + max(wait_s, asked_s(after_s))
            return new

    def answered(self, action: str) -> bool:
        """The other side is there. Returns whether that is news."""
        with self._lock:
            return self._pauses.pop(action, None) is not None
