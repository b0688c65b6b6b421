"""Made-up lists, and what a brute force says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uploadguard.hashset import Generation, HashSet
from uploadguard.hashset.manifest import read_manifest
from uploadguard.lists.base import ListEntry
from uploadguard.models import Hash
from uploadguard.storage.keys import Keys, read_key_file

TYPES: Mapping[str, tuple[int, int]] = {"md5": (16, 0), "sha256": (32, 0), "pdq": (32, 31), "phash": (8, 8)}


def value(signal_type: str, seed: object) -> bytes:
    """A hash that nobody's picture has."""
    return hashlib.shake_128(f"{signal_type}/{seed}".encode()).digest(TYPES[signal_type][0])


def entry(seed: object, *signal_types: str) -> ListEntry:
    """An entry of one hash a signal type (by default of every one), all made from ``seed``."""
    hashes = tuple((name, value(name, seed)) for name in signal_types or TYPES)
    return ListEntry(f"id-{seed}", hashes, category=f"category-{seed}", fields={"seed": str(seed)})


def entries(count: int, prefix: object = "") -> Iterator[ListEntry]:
    """``count`` entries that differ."""
    return (entry(f"{prefix}{number}") for number in range(count))


def flip_bits(code: bytes, *bits: int) -> bytes:
    """``code`` with these bits inverted."""
    changed = bytearray(code)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def holds(generation: Generation, seed: object) -> bool:
    """Whether every hash of ``entry(seed)`` is found, and nothing else; fails if only some are."""
    matches = generation.match([Hash(name, value(name, seed)) for name in TYPES], {"pdq": 31, "phash": 8})
    assert {match.entry_id for match in matches} <= {f"id-{seed}"}
    assert len(matches) in (0, len(TYPES))
    return bool(matches)


def distances_bits(codes: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The Hamming distance of each row of ``codes`` to ``query``, by numpy."""
    return np.unpackbits(codes ^ query, axis=1).sum(axis=1, dtype=np.int64)


def keys_for(directory: Path) -> Keys | None:
    """The keys of a hash set there: those in the key file beside it, if there is one."""
    path = directory.with_suffix(".key")
    return Keys(read_key_file(path)) if path.exists() else None


def open_set(directory: Path, **options: Any) -> HashSet:
    """The hash set there, with its keys."""
    return HashSet.open(directory, keys=keys_for(directory), **options)


def create_set(directory: Path, **options: Any) -> HashSet:
    """A hash set there, encrypted if there is a key file beside it."""
    return HashSet.create(directory, keys=keys_for(directory), **options)


def files_of(hash_set: HashSet) -> set[str]:
    """What is in the directory; the lock of compactions is there or not."""
    return {path.name for path in hash_set.directory.iterdir()} - {"compaction.lock"}


def expected_files(hash_set: HashSet) -> set[str]:
    """What has to be in the directory, and nothing else."""
    manifest = read_manifest(hash_set.directory, keys_for(hash_set.directory)).manifest
    return {"manifest.json", "write.lock", *manifest.files()}
