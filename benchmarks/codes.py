"""Hashes as hash lists and uploads have them: PDQ hashes of pictures and their variants and clusters of near-duplicates
among random ones. Real bits are skewed, which is what tables in an index suffer from.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pictures import photo_files
from uploadguard.media.base import Pixels
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import media

Codes = NDArray[np.uint8]

DRAWN = 60
_NEAR_SHARE = 0.1
_NEAR_BITS = 24
_COPIES_OF_REAL = 16


class Workload(NamedTuple):
    """``codes`` (n, bytes) to search, and ``queries``: half of them near a code, half as of pictures not listed."""

    codes: Codes
    queries: Codes


@lru_cache
def picture_hashes(folder: Path | None) -> Codes:
    """PDQ of each photo in the folder, or of drawn pictures, and of a small copy, in all eight forms: (n, 16, 32)."""
    files = photo_files(folder)
    hashes = []
    for number in range(len(files) or DRAWN):
        if files:
            with Image.open(files[number]) as image:
                image.draft("L", (1024, 1024))
                picture = image.convert("L")
        else:
            picture = media.make_photo(192, 144, seed=number).convert("L")
        forms: list[bytes] = []
        for copy in (picture, picture.resize((max(64, picture.width * 2 // 3), max(64, picture.height * 2 // 3)))):
            found = Pdq().hash_pixels(Pixels(np.ascontiguousarray(np.asarray(copy)), *copy.size))
            forms += [found.value, *found.variants.values()]
        hashes.append(np.frombuffer(b"".join(forms), np.uint8).reshape(16, 32))
    return np.stack(hashes)


def flip(codes: Codes, bits: NDArray[np.int64], rng: np.random.Generator) -> Codes:
    """Each code with so many of its bits flipped."""
    order = np.argsort(rng.random((len(codes), codes.shape[1] * 8), np.float32), axis=1)
    return codes ^ np.packbits(order < bits[:, None], axis=1)


def workload(rows: int, length_bytes: int, queries: int, folder: Path | None, seed: int = 1) -> Workload:
    """So many rows and queries, the same for the same seed. Codes of 8 bytes are cut from those of 32."""
    rng = np.random.default_rng(seed)
    pictures = picture_hashes(folder)
    listed, unlisted = pictures[::2].reshape(-1, 32), pictures[1::2].reshape(-1, 32)
    listed, unlisted = (np.ascontiguousarray(part[:, 32 - length_bytes :]) for part in (listed, unlisted))
    codes = rng.integers(0, 256, (rows, length_bytes), dtype=np.uint8)
    near = min(int(rows * _NEAR_SHARE), 200_000)
    real = min(near // 2, len(listed) * _COPIES_OF_REAL)
    most = _NEAR_BITS * length_bytes // 32
    bases = np.concatenate(
        [listed[rng.integers(0, len(listed), real)], codes[rng.integers(0, max(1, near // 8), near - real)]]
    )
    codes[rng.choice(rows, near, replace=False)] = _flip_all(bases, most, rng)
    hits = queries // 2
    from_real = hits // 2
    near_codes = np.concatenate(
        [listed[rng.integers(0, len(listed), from_real)], codes[rng.integers(0, rows, hits - from_real)]]
    )
    misses = queries - hits
    far = np.concatenate([
        unlisted[rng.integers(0, len(unlisted), misses // 2)],
        rng.integers(0, 256, (misses - misses // 2, length_bytes), dtype=np.uint8),
    ])  # fmt: skip
    wanted = np.concatenate([_flip_all(near_codes, most, rng), far])
    return Workload(codes, np.ascontiguousarray(wanted[rng.permutation(queries)]))


def _flip_all(codes: Codes, most: int, rng: np.random.Generator, step: int = 8192) -> Codes:
    """Each code with 0 to ``most`` bits flipped."""
    parts = [codes[at : at + step] for at in range(0, len(codes), step)]
    return np.concatenate([flip(part, rng.integers(0, most + 1, len(part)), rng) for part in parts])
