"""A generation: all segments of the hash set at one moment, ready to match against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np

from uploadguard.errors import HashSetError, NotReadyError
from uploadguard.hashset.ids import Rows
from uploadguard.hashset.metadata import ListInfo, summarise
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.tombstones import dead_rows, is_dead
from uploadguard.models import Hash, Match

__all__ = ["Generation"]


class Generation:
    """An immutable, numbered set of open segments, shared by any number of threads.

    A check takes one reference and sees this generation from start to end, whatever is imported meanwhile.
    """

    __slots__ = ("_dead", "_segments", "_updated_at", "lists", "number")

    def __init__(self, segments: Iterable[Segment], number: int, lists: tuple[ListInfo, ...] | None = None) -> None:
        """Use :meth:`of`, or :meth:`~uploadguard.hashset.store.HashSet.load`."""
        opened = tuple(segments)
        self._segments: tuple[Segment, ...] | None = opened
        self._dead = dead_rows(opened)
        self.number = number
        self.lists = lists if lists is not None else summarise(segment.metadata for segment in opened)
        self._updated_at = {info.name: info.updated_at for info in self.lists}

    @classmethod
    def of(
        cls, segments: Iterable[Segment], *, number: int = 0, lists: tuple[ListInfo, ...] | None = None
    ) -> Generation:
        """A generation of these segments, those in memory too. ``lists`` are by default as the segments tell."""
        return cls(segments, number, lists)

    def __repr__(self) -> str:
        return f"Generation(number={self.number}, lists={len(self.lists)}, entries_total={self.entries_total})"

    @property
    def entries_total(self) -> int:
        """How many entries the deny lists hold."""
        return sum(info.entries for info in self.lists if info.role == "deny")

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The open segments. Raises :class:`NotReadyError` once closed."""
        segments = self._segments
        if segments is None:
            raise NotReadyError("this generation of the hash set is closed")
        return segments

    def close(self) -> None:
        """Let go of the segments. Matches under way end undisturbed: each map goes with its last user."""
        self._segments = None

    def match(self, hashes: Sequence[Hash], limits: Mapping[str, int]) -> list[Match]:
        """Every entry of every list that one of ``hashes`` matches.

        ``limits`` gives max_distance_bits, inclusive, by signal type; signal types held for exact look-up need none.
        Of the ways in which one entry matches one frame by one signal type only the closest comes back, the original
        picture's before a variant's. Ordered exact first, then by distance, then as the lists and entries stand.

        Raises ``ValueError`` for a signal type without a limit or a hash of the wrong length,
        :class:`~uploadguard.errors.HashSetError` for a limit above 0 where only exact look-up is possible,
        :class:`~uploadguard.errors.SegmentError` where a hit shows damage, and
        :class:`~uploadguard.errors.NotReadyError` once closed.
        """
        segments = self.segments
        by_type: dict[str, list[Hash]] = {}
        for item in hashes:
            by_type.setdefault(item.signal_type, []).append(item)
        matches = [
            match
            for segment, dead in zip(segments, self._dead, strict=True)
            for signal_type, group in by_type.items()
            for match in _match_segment(segment, dead, signal_type, group, limits, self._updated_at)
        ]
        matches.sort(key=lambda match: (not match.exact, match.distance_bits))
        return matches


def _match_segment(
    segment: Segment,
    dead: Sequence[Rows],
    signal_type: str,
    group: Sequence[Hash],
    limits: Mapping[str, int],
    updated_at: Mapping[str, datetime],
) -> Iterator[Match]:
    if signal_type not in segment.metadata.signals:
        return
    exact = segment.is_exact(signal_type)
    limit_bits = limits.get(signal_type, 0 if exact else None)
    if limit_bits is None:
        raise ValueError(f"no limit for signal type {signal_type!r}")
    if exact and limit_bits > 0:
        raise HashSetError(
            f"{signal_type} hashes were imported for exact look-up and cannot be matched within {limit_bits} bits; "
            "import the list again"
        )
    closest: dict[tuple[int, int], tuple[int, bool, int]] = {}
    hits = segment.query(signal_type, [item.value for item in group], limit_bits)
    if hits and dead:
        hit_is_dead = is_dead(dead, np.array([entry for _, entry, _ in hits], np.uint32)).tolist()
        hits = [hit for hit, gone in zip(hits, hit_is_dead, strict=True) if not gone]
    for query, entry, distance_bits in hits:
        found = (distance_bits, group[query].variant != "original", query)
        key = (entry, group[query].frame)
        if key not in closest or found < closest[key]:
            closest[key] = found
    metadata = segment.metadata
    for (number, frame), (distance_bits, _, query) in sorted(closest.items()):
        entry_data = segment.entry(number)
        yield Match(
            list_name=metadata.list_name,
            entry_id=entry_data.entry_id,
            category=entry_data.category,
            signal_type=signal_type,
            distance_bits=distance_bits,
            variant=group[query].variant,
            frame=frame,
            exact=exact,
            allow=metadata.role == "allow",
            fields=entry_data.fields,
            source=metadata.source,
            listed_at=metadata.added_at,
            updated_at=updated_at.get(metadata.list_name, metadata.updated_at),
        )
