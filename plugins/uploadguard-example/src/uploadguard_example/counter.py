"""Counts verdicts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from uploadguard import Verdict

__all__ = ["VerdictCounter"]


class VerdictCounter:
    """How many decisions there were of each verdict. Checks run in several threads at once, so it locks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Verdict] = Counter()

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        with self._lock:
            self._counts[verdict] += 1

    def counts(self) -> Mapping[str, int]:
        """Counts by the verdict's label, of all four verdicts."""
        with self._lock:
            return {verdict.label: self._counts[verdict] for verdict in Verdict}
