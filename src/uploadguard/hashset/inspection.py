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


@dataclass(frozen=True, slots=True)
class SegmentProblem:
    """A file that is missing or damaged. ``in_force`` is False where it is of previous generations only, or staged."""

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
    """How evenly perceptual hashes are spread over the lines of the tables that look-ups go through.

    ``rows`` counts each hash once for each table. A line holds 14 of them; those of a line with more,
    ``overflowing_rows`` of ``overflowing_lines``, lie elsewhere and take a look-up longer. ``fullest_line`` is the most
    that one has. All are 0 where there are no tables, since few hashes are scanned.
    """

    lines: int = 0
    rows: int = 0
    fullest_line: int = 0
    overflowing_lines: int = 0
    overflowing_rows: int = 0

    @property
    def overflowing_lines_share(self) -> float:
        """The share of lines that overflow, 0 to 1."""
        return self.overflowing_lines / self.lines if self.lines else 0.0

    @property
    def overflowing_rows_share(self) -> float:
        """The share of rows that lie in lines that overflow, 0 to 1."""
        return self.overflowing_rows / self.rows if self.rows else 0.0


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

    ``previous`` are the generations that can be gone back to; ``previous_bytes`` the files that only these have, and
    ``staged_bytes`` those of changes that wait for their activation.
    """

    generation: int
    created_at: datetime
    age_s: float
    size_bytes: int
    previous: tuple[int, ...]
    previous_bytes: int
    staged_bytes: int
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
    staged = {change.segment.file for change in manifest.staged}
    kept = manifest.files().values()
    return HashSetStats(
        generation=generation.number,
        created_at=manifest.created_at,
        age_s=max(0.0, (datetime.now(UTC) - manifest.created_at).total_seconds()),
        size_bytes=sum(record.size_bytes for record in kept if record.file in in_force),
        previous=tuple(previous.generation for previous in manifest.previous),
        previous_bytes=sum(record.size_bytes for record in kept if record.file not in in_force | staged),
        staged_bytes=sum(change.segment.size_bytes for change in manifest.staged),
        lists=lists,
    )


def _skew(segments: Sequence[Segment]) -> Mapping[str, BucketSkew]:
    found: dict[str, BucketSkew] = {}
    for segment in segments:
        for name in segment.metadata.signals:
            index = segment.index(name)
            if isinstance(index, HammingIndex):
                try:
                    found[name] = _skew_with(found.get(name, BucketSkew()), index)
                except ValueError as error:
                    raise SegmentError(f"{error}; import the list again", path=segment.path) from None
    return MappingProxyType(found)


def _skew_with(skew: BucketSkew, index: HammingIndex) -> BucketSkew:
    """``skew`` with the lines of one more index, counted some at a time: they are mapped, not copied."""
    for rows, overflowing in index.lines():
        skew = BucketSkew(
            lines=skew.lines + len(rows),
            rows=skew.rows + int(rows.sum()),
            fullest_line=max(skew.fullest_line, int(rows.max())),
            overflowing_lines=skew.overflowing_lines + int(np.count_nonzero(overflowing)),
            overflowing_rows=skew.overflowing_rows + int(rows[overflowing].sum()),
        )
    return skew
