"""The whole check and each of its stages on pictures of four sizes, beside what others do for the same.

Run: ``pytest benchmarks --benchmark-group-by=group``; photos of your own: ``UPLOADGUARD_PHOTOS=DIR``.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pdqhash
import pytest
from PIL import Image
from threatexchange.signal_type.pdq.pdq_hasher import pdq_from_bytes

from benchmarks.pictures import SIZES, jpeg
from uploadguard import Guard
from uploadguard.media.base import Pixels
from uploadguard.signals.digests import DIGESTS, MultiDigest
from uploadguard.signals.pdq import Pdq

pytestmark = pytest.mark.parametrize("size", SIZES)
ROUNDS: dict[str, Any] = {"rounds": 7, "iterations": 1, "warmup_rounds": 1}
SLOW_ROUNDS: dict[str, Any] = {"rounds": 3, "iterations": 1}


def _luma(size: str, scale: int) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg(size)))
    image.draft("L", (image.width // scale, image.height // scale))
    image.load()
    return image


def test_peer_threatexchange(benchmark: Any, size: str) -> None:
    benchmark.group = f"check {size}"
    benchmark.pedantic(pdq_from_bytes, (jpeg(size),), **SLOW_ROUNDS)


def test_check(benchmark: Any, guard: Guard, size: str) -> None:
    benchmark.group = f"check {size}"
    benchmark.extra_info["peer"] = "test_peer_threatexchange"
    decision = benchmark.pedantic(guard.check, (jpeg(size),), **ROUNDS)
    assert decision.allowed


def test_decode_eighth_floor(benchmark: Any, size: str) -> None:
    """Entropy decoding cannot be skipped: decoding luma at 1/8 is the floor for anything that looks at the pixels."""
    benchmark.group = f"check {size}"
    benchmark.extra_info["peer"] = "test_check"
    benchmark.pedantic(_luma, (size, 8), **ROUNDS)


def test_peer_hashlib_one_by_one(benchmark: Any, size: str) -> None:
    benchmark.group = f"digests {size}"
    data = jpeg(size)
    benchmark.pedantic(lambda: [hashlib.new(n, data).digest() for n in ("md5", "sha1", "sha256")], **ROUNDS)


def test_digests(benchmark: Any, size: str) -> None:
    benchmark.group = f"digests {size}"
    benchmark.extra_info["peer"] = "test_peer_hashlib_one_by_one"

    def run() -> list[tuple[str, bytes]]:
        digest = MultiDigest(DIGESTS)
        digest.update(jpeg(size))
        return digest.digests()

    benchmark.pedantic(run, **ROUNDS)


def test_peer_pillow_rgb(benchmark: Any, size: str) -> None:
    benchmark.group = f"decode {size}"
    benchmark.pedantic(lambda: np.asarray(Image.open(io.BytesIO(jpeg(size))).convert("RGB")), **ROUNDS)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_decode_luma(benchmark: Any, size: str, scale: int) -> None:
    benchmark.group = f"decode {size}"
    benchmark.extra_info["peer"] = "test_peer_pillow_rgb"
    benchmark.pedantic(_luma, (size, scale), **ROUNDS)


def test_peer_pdqhash(benchmark: Any, size: str) -> None:
    benchmark.group = f"pdq {size}"
    pixels = np.asarray(Image.open(io.BytesIO(jpeg(size))).convert("RGB"))
    benchmark.pedantic(pdqhash.compute, (pixels,), **SLOW_ROUNDS)


@pytest.mark.parametrize("form", ["rgb", "luma", "quarter"])
def test_pdq(benchmark: Any, size: str, form: str) -> None:
    """All eight forms, where the peer computes one."""
    benchmark.group = f"pdq {size}"
    benchmark.extra_info["peer"] = "test_peer_pdqhash"
    with Image.open(io.BytesIO(jpeg(size))) as image:
        width, height = image.size
        picture = image.convert("RGB") if form == "rgb" else image.convert("L")
    scale = 4 if form == "quarter" else 1
    if scale > 1:
        picture = _luma(size, scale)
    pixels = Pixels(np.ascontiguousarray(np.asarray(picture)), width, height, scale)
    benchmark.pedantic(Pdq().hash_pixels, (pixels,), **ROUNDS)
