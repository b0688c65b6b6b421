"""What a hash set holds and whether it is whole, for operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np

from uploadguard.errors import SegmentError
from uploadguard.hashset.directory import Directory
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.hamming import HammingIndex
from uploadguard.hashset.metadata import ListInfo
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.tombstones import dead_rows

__all__ = ["BucketSkew", "HashSetStats", "ListStats", "SegmentProblem", "Verification", "stats_of", "verify_files"]

_BLOCK_VALUES = 1 << 16
_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class SegmentProblem:
    """A file that is missing or damaged. ``in_force`` is False where only previous generations have it."""

    path: Path
    reason: str
    in_force: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading every byte showed.

    ``leftovers`` are files that no generation names: of a writer at work, or else gone with the next change.
    """

    generation: int
    segments: int
    size_bytes: int
    problems: tuple[SegmentProblem, ...]
    leftovers: tuple[Path, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the generation in force and the previous ones."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class BucketSkew:
    """How perceptual hashes are spread over the values of their 16-bit parts, which look-ups narrow them down by.

    ``largest`` is the most hashes that share the value of one part, ``mean`` how many share one on average.
    """

    largest: int
    mean: float


@dataclass(frozen=True, slots=True)
class ListStats:
    """One list: what :class:`~uploadguard.hashset.ListInfo` says, its size, and the skew of its perceptual hashes.

    Sizes and skew include dead entries.
    """

    info: ListInfo
    size_bytes: int
    skew: Mapping[str, BucketSkew]


@dataclass(frozen=True, slots=True)
class HashSetStats:
    """The hash set: its generation, since when that is in force, and the lists.

    ``previous`` are the generations that can be gone back to; ``previous_bytes`` the files that only these have.
    """

    generation: int
    created_at: datetime
    age_s: float
    size_bytes: int
    previous: tuple[int, ...]
    previous_bytes: int
    lists: tuple[ListStats, ...] = field(repr=False)


def verify_files(files: Directory) -> Verification:
    """Read every file; see :class:`Verification`. Raises :class:`~uploadguard.errors.ManifestError` only."""
    while True:
        manifest = files.read()
        in_force = {record.file for record in manifest.segments}
        problems: list[SegmentProblem] = []
        for record in manifest.files().values():
            path = files.path / record.file
            try:
                files.open_segments([record])[0].verify()
            except FileNotFoundError:
                problems.append(SegmentProblem(path, "is missing", record.file in in_force))
            except SegmentError as error:
                problems.append(SegmentProblem(path, error.reason, record.file in in_force))
        if not problems:
            problems.extend(_misplaced_tombstones(files.open_segments(manifest.segments)))
        if not problems or files.read().generation == manifest.generation:
            break
    return Verification(
        generation=manifest.generation,
        segments=len(manifest.files()),
        size_bytes=sum(record.size_bytes for record in manifest.files().values()),
        problems=tuple(problems),
        leftovers=tuple(files.leftovers()),
    )


def _misplaced_tombstones(segments: Sequence[Segment]) -> list[SegmentProblem]:
    """Segments with tombstones that no writer makes: on no entry, or on one that has one already."""
    problems = []
    for segment, dead in zip(segments, dead_rows(segments), strict=True):
        rows = np.concatenate([np.empty(0, np.uint32), *dead])
        if len(rows) and (int(rows.max()) >= segment.metadata.entries or len(np.unique(rows)) != len(rows)):
            assert segment.path is not None
            problems.append(SegmentProblem(segment.path, "has tombstones that do not fit its entries", True))
    return problems


def stats_of(files: Directory, generation: Generation) -> HashSetStats:
    """The statistics of an open generation of ``files``; closes it."""
    manifest = files.read()
    parts: dict[str, list[Segment]] = {}
    for segment in generation.segments:
        parts.setdefault(segment.metadata.list_name, []).append(segment)
    lists = tuple(
        ListStats(info, sum(segment.size_bytes for segment in parts[info.name]), _skew(parts[info.name]))
        for info in generation.lists
    )
    generation.close()
    in_force = {record.file for record in manifest.segments}
    kept = manifest.files().values()
    return HashSetStats(
        generation=generation.number,
        created_at=manifest.created_at,
        age_s=max(0.0, (datetime.now(UTC) - manifest.created_at).total_seconds()),
        size_bytes=sum(record.size_bytes for record in kept if record.file in in_force),
        previous=tuple(previous.generation for previous in manifest.previous),
        previous_bytes=sum(record.size_bytes for record in kept if record.file not in in_force),
        lists=lists,
    )


def _skew(segments: Sequence[Segment]) -> Mapping[str, BucketSkew]:
    found: dict[str, BucketSkew] = {}
    for name in dict.fromkeys(name for segment in segments for name in segment.metadata.signals):
        indexes = [segment.index(name) for segment in segments if name in segment.metadata.signals]
        hamming = [index for index in indexes if isinstance(index, HammingIndex)]
        if hamming:
            found[name] = _skew_of(hamming)
    return MappingProxyType(found)


def _skew_of(indexes: Sequence[HammingIndex]) -> BucketSkew:
    """Counts a million hashes at a time: the codes are mapped, not copied."""
    parts = indexes[0].length_bytes // 2
    counts = np.zeros((parts, _BLOCK_VALUES), np.int64)
    for index in indexes:
        blocks = index.sections()["codes"].view("<u2")
        for start in range(0, len(blocks), _CHUNK_ROWS):
            for part in range(parts):
                column = blocks[start : start + _CHUNK_ROWS, part]
                counts[part] += np.bincount(column, minlength=_BLOCK_VALUES)
    filled = counts[counts > 0]
    return BucketSkew(int(counts.max()), float(filled.mean()) if len(filled) else 0.0)
