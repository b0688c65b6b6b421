"""What is measured: a configuration that each process can load for itself, with a filled hash set if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uploadguard.bench.budgets import LOADED
from uploadguard.bench.statistics import STAGES, in_order
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.lists import ListEntry
from uploadguard.opening import create_hashset
from uploadguard.plugins import Plugins
from uploadguard.signals.base import PixelSignal, lookup_kinds

__all__ = ["Deployment"]

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the settings come from: a file (None: as :meth:`Settings.load` finds it) and overrides. Can be pickled.

    ``made_up_entries`` is how many random entries :meth:`fill` puts into the hash set; 0 where it is the host's own.
    """

    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    made_up_entries: int = 0

    def settings(self) -> Settings:
        """Load them. Raises :class:`~uploadguard.errors.ConfigError`."""
        return Settings.load(self.config, **self.overrides)

    def stages(self) -> list[str]:
        """What budgets can be for: the stages of a check with these settings, and the total under load."""
        signals = Plugins(self.settings()).enabled_signals()
        own = [signal.name for signal in signals if isinstance(signal, PixelSignal)]
        return [*in_order({*STAGES, *own}), LOADED]

    def fill(self, progress: Callable[[int], None] = lambda _: None) -> HashSet:
        """Create the hash set, of one list of random entries, the same every time, that no picture matches.

        Each entry has a hash of every enabled signal type. ``progress`` is told how many are written. Raises
        :class:`~uploadguard.errors.HashSetError`.
        """
        settings = self.settings()
        kinds = lookup_kinds(Plugins(settings).enabled_signals())
        hashset = create_hashset(settings)
        entries = _random_entries(self.made_up_entries, kinds)
        hashset.add_list("random", entries, kinds, source="bench", progress=progress)
        return hashset


def _random_entries(count: int, kinds: Mapping[str, tuple[int, int]]) -> Iterator[ListEntry]:
    rng = np.random.default_rng(1)
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        columns = [(name, length, rng.bytes(rows * length)) for name, (length, _) in kinds.items()]
        for row in range(rows):
            hashes = tuple((name, data[row * length : (row + 1) * length]) for name, length, data in columns)
            yield ListEntry(str(start + row), hashes)
