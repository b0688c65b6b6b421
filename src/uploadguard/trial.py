"""Trying a list: which ordinary pictures it would match, with the limits and qualities that checks go by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from uploadguard.config import Settings
from uploadguard.errors import ListFormatError
from uploadguard.hashset import Generation
from uploadguard.lists.samples import SampleItem
from uploadguard.models import Hash, Match
from uploadguard.plugins import Plugins
from uploadguard.policy import SignalDefaults, decide, limits
from uploadguard.signals.base import DigestSignal, PixelSignal

__all__ = ["Corpus", "CorpusTrial", "ListTrial", "TrialHit"]

_BATCH_ITEMS = 256
_MOST_HITS = 200
"""How many hits of one corpus are kept to be shown; all are counted."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Pictures to try a list on. ``items`` reads them anew each time."""

    name: str
    items: Callable[[], Iterable[SampleItem]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrialHit:
    """One entry of a list that matches one picture: the match, and the picture's line and label in its corpus."""

    match: Match
    line: int
    label: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        match = self.match
        return {
            "line": self.line,
            "picture": self.label,
            "entry": match.entry_id,
            "category": match.category,
            "signal_type": match.signal_type,
            "distance_bits": match.distance_bits,
        }


@dataclass(frozen=True, slots=True)
class CorpusTrial:
    """What came of one corpus: how many pictures it has, and the lines of those that match.

    ``hits`` are the first 200 of ``hits_total``.
    """

    corpus: str
    items: int
    matched: frozenset[int] = field(repr=False)
    hits: tuple[TrialHit, ...] = field(repr=False)
    hits_total: int

    @property
    def percent(self) -> float:
        """The share of the pictures that match."""
        return 100 * len(self.matched) / self.items if self.items else 0.0


class ListTrial:
    """Tries lists as checks with these settings match them. Holds no state between trials.

    Raises :class:`~uploadguard.errors.ConfigError` for settings that no Guard would take.
    """

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        signals = plugins.enabled_signals()
        self._lengths = {signal.name: signal.length_bytes for signal in signals}
        self._min_quality = {signal.name: signal.min_quality for signal in signals if isinstance(signal, PixelSignal)}
        self._policy = settings.decision_policy(
            {
                signal.name: SignalDefaults(
                    signal.max_distance_bits, signal.length_bytes * 8, digest=isinstance(signal, DigestSignal)
                )
                for signal in signals
            }
        )
        self._tenants = (None, *self._policy.tenants)
        widest = [limits(self._policy, list(self._lengths), tenant) for tenant in self._tenants]
        self._limits = {name: max(one[name] for one in widest) for name in self._lengths}

    def run(self, generation: Generation, corpus: Corpus) -> CorpusTrial:
        """Look up every picture of the corpus. Takes memory for the pictures that match only.

        Raises :class:`~uploadguard.errors.ListFormatError` for a corpus that cannot be read, and
        :class:`~uploadguard.errors.HashSetError` as a check would.
        """
        count, hits_total = 0, 0
        matched: set[int] = set()
        hits: list[TrialHit] = []
        items = iter(corpus.items())
        held = frozenset(name for segment in generation.segments for name in segment.metadata.signals)
        while batch := list(islice(items, _BATCH_ITEMS)):
            count += len(batch)
            for match in self._matches(generation, held, batch):
                item = batch[match.frame]
                matched.add(item.line)
                hits_total += 1
                if len(hits) < _MOST_HITS:
                    hits.append(TrialHit(match, item.line, item.label))
        return CorpusTrial(corpus.name, count, frozenset(matched), tuple(hits), hits_total)

    def _matches(self, generation: Generation, held: frozenset[str], batch: Sequence[SampleItem]) -> Iterator[Match]:
        """The matches that count for anybody, with the place of the picture in the batch as their frame."""
        hashes = [
            Hash(one.signal_type, one.value, one.quality, frame=place)
            for place, item in enumerate(batch)
            for one in item.hashes
            if one.signal_type in held and self._is_looked_up(one)
        ]
        for match in generation.match(hashes, self._limits):
            if any(decide((match,), (), self._policy, tenant=tenant).matches for tenant in self._tenants):
                yield match

    def _is_looked_up(self, one: Hash) -> bool:
        length_bytes = self._lengths.get(one.signal_type)
        if length_bytes is not None and len(one.value) != length_bytes:
            raise ListFormatError(f"a sample has a {one.signal_type} hash of {len(one.value)} bytes; make it anew")
        least = self._min_quality.get(one.signal_type, 0)
        return length_bytes is not None and (not least or (one.quality or 0) >= least)
