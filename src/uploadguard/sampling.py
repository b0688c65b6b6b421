"""Hashing pictures for a sample: whole directories, in the sandbox, several at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from uploadguard.errors import MediaReadError
from uploadguard.hashing import HashedMedia, MediaHasher
from uploadguard.lists.samples import SampleItem, SampleWriter

__all__ = ["Sampled", "files_in", "hashed_pictures", "make_sample"]

_AT_ONCE = 64
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was sampled: pictures kept, files that are none, that were there before, and that could not be read."""

    pictures: int
    others: int
    repeated: int
    unread: int


def files_in(places: Iterable[Path]) -> Iterator[Path]:
    """The regular files in directories, and files themselves. Links are not followed within a directory."""
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for directory, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def hashed_pictures(hasher: MediaHasher, paths: Iterable[Path]) -> Iterator[tuple[Path, HashedMedia | None]]:
    """Each file with its hashes, in order; None where it cannot be read. Some are hashed ahead."""

    def hashed(path: Path) -> tuple[Path, HashedMedia | None]:
        try:
            return path, hasher.hash(path)
        except MediaReadError:
            return path, None

    remaining = iter(paths)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "uploadguard-sample") as threads:
        while batch := list(islice(remaining, _AT_ONCE)):
            yield from threads.map(hashed, batch)


def make_sample(
    hasher: MediaHasher, places: Iterable[Path], output: Path, progress: Callable[[int], None] | None = None
) -> Sampled:
    """Write the hashes of all pictures in ``places`` to ``output``, a sample; neither their names nor their pixels.

    Files that are no pictures are left out, and of equal ones all but the first. ``progress`` is told how many files
    were hashed. ``output`` appears, with mode 0600, when all is done. Raises ``OSError`` where it cannot be written.
    """
    seen: set[object] = set()
    others = repeated = unread = done = 0
    with SampleWriter(output) as writer:
        for _, hashed in hashed_pictures(hasher, files_in(places)):
            done += 1
            if progress is not None:
                progress(done)
            if hashed is None:
                unread += 1
                continue
            item = SampleItem.of(hashed)
            if hashed.media.media_type is None or not item.hashes:
                others += 1
            elif item.hashes[0] in seen:  # its first digest
                repeated += 1
            else:
                seen.add(item.hashes[0])
                writer.add(item)
    return Sampled(writer.items, others, repeated, unread)
