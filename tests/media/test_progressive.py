"""Scans of progressive JPEGs are left out only where luma at the scale wanted does not need them."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeError, DecodeOptions, Pixels
from uploadguard.media.inspect import Limits, inspect_media
from uploadguard.media.progressive import needed_scans
from uploadguard.media.source import BytesSource
from uploadguard.media.structure.jpeg import MAX_SCANS
from uploadguard.models import FailureCode
from uploadguard.signals.pdq import Pdq

SCAN = re.compile(rb"\xff\xda(..)(.)", re.DOTALL)


def progressive(**options: Any) -> bytes:
    with Image.open(photo("retina.jpg")) as image:
        out = io.BytesIO()
        image.convert("RGB").resize((2100, 2100)).save(out, "JPEG", **{"quality": 85, "progressive": True, **options})
    return out.getvalue()


def luma_of(data: bytes, scale: int) -> Pixels:
    options = DecodeOptions(jpeg_scale=scale)  # type: ignore[arg-type]
    return next(BUILTIN_DECODERS[0].open(BytesSource(data), "image/jpeg", options).frames([0]))


def pillow_luma(data: bytes, scale: int) -> Any:
    """The luma that Pillow makes of the whole file."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (image.width // scale, image.height // scale))
        return np.asarray(image)


def scan_segments(data: bytes) -> list[tuple[int, int]]:
    """Where each scan begins and ends."""
    starts = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    ends = []
    for start in starts:
        found = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(data, start + 2)
        assert found is not None
        ends.append(found.start())
    return list(zip(starts, ends, strict=True))


def reduced(data: bytes, *, luma: bool = True, scale: int = 4) -> bytes | None:
    return needed_scans(memoryview(data), luma=luma, scale=scale)


@pytest.mark.parametrize("scale", [1, 2])
def test_at_full_and_half_size_only_chroma_goes_and_luma_is_the_same(scale: int) -> None:
    data = progressive()
    smaller = reduced(data, scale=scale)
    assert smaller is not None
    assert len(scan_segments(smaller)) == 6  # of ten, four hold chroma alone
    assert np.array_equal(luma_of(data, scale).array, pillow_luma(data, scale))


@pytest.mark.parametrize("quality", [95, 85, 50])
def test_at_a_quarter_the_hash_stays(quality: int) -> None:
    data = progressive(quality=quality)
    smaller = reduced(data)
    assert smaller is not None
    assert len(scan_segments(smaller)) == 3
    whole = pillow_luma(data, 4)
    ours = luma_of(data, 4)
    assert np.abs(ours.array.astype(int) - whole).mean() < 2
    hashes = [Pdq().hash_pixels(Pixels(np.ascontiguousarray(a), 2100, 2100, 4)).value for a in (ours.array, whole)]
    assert (int.from_bytes(hashes[0]) ^ int.from_bytes(hashes[1])).bit_count() <= 4


def test_last_bits_that_are_worth_much_stay() -> None:
    """With coarse steps a browser would show what the last bits add; so they are hashed too."""
    coarse = [[16] + [40] * 63, [16] * 64]
    smaller = reduced(progressive(qtables=coarse, quality=50))
    assert smaller is not None
    assert len(scan_segments(smaller)) == 5


@pytest.mark.parametrize("table", [[[255] * 64, [255] * 64], [[1] * 64, [1] * 64]])
def test_block_averages_always_stay(table: list[list[int]]) -> None:
    smaller = reduced(progressive(qtables=table, quality=50))
    assert smaller is not None
    firsts = [smaller[start + 5 + 2 * smaller[start + 4]] for start, _ in scan_segments(smaller)]
    assert firsts.count(0) == 2


def test_what_is_unusual_is_taken_as_it_is() -> None:
    data = progressive()
    begin, _ = scan_segments(data)[0]
    adobe_rgb = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0"
    quantisation = data[data.index(b"\xff\xdb") : data.index(b"\xff\xdb") + 69]
    second, _ = scan_segments(data)[1]
    frame = data.index(b"\xff\xc2")
    for unusual in (
        data[:2] + adobe_rgb + data[2:],
        data[:-2],
        data[: len(data) // 2],
        data[:second] + quantisation + data[second:],
        data[:second] + b"\xff\xff" + data[second:],
        data[:begin] + b"\xff\x01" + data[begin:],
        data[: frame + 10] + b"R" + data[frame + 11 :],
        progressive(subsampling=0, keep_rgb=True),
    ):
        assert reduced(unusual) is None
    assert reduced(data, luma=False) is None


def test_a_file_of_very_many_scans_is_refused() -> None:
    data = progressive()
    start, end = scan_segments(data)[1]
    bomb = data[:end] + data[start:end] * MAX_SCANS + data[end:]
    for options in (DecodeOptions(), DecodeOptions(pixels="rgb")):
        result = inspect_media(BytesSource(bomb), BUILTIN_DECODERS, [Pdq()], options, Limits())
        assert [failure.code for failure in result.failures] == [FailureCode.TOO_COMPLEX]


def test_a_file_that_ends_early_is_still_truncated() -> None:
    data = progressive()
    for cut in (len(data) // 2, len(data) - 2):
        result = inspect_media(BytesSource(data[:cut]), BUILTIN_DECODERS, [Pdq()], DecodeOptions(), Limits())
        assert FailureCode.TRUNCATED in [failure.code for failure in result.failures]


def test_mutants_are_reduced_to_a_part_of_themselves_or_not_at_all() -> None:
    rng = np.random.default_rng(11)
    data = progressive(quality=60)
    header = scan_segments(data)[0][1]
    outcomes = set()
    for _ in range(400):
        mutant = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            span = header if rng.random() < 0.7 else len(mutant)
            mutant[int(rng.integers(2, span))] = int(rng.integers(256))
        try:
            smaller = reduced(bytes(mutant))
        except DecodeError:
            outcomes.add("refused")
            continue
        outcomes.add("as it is" if smaller is None else "reduced")
        if smaller is not None:
            assert len(smaller) < len(mutant)
            assert smaller[:2] == b"\xff\xd8"
            assert smaller[-2:] == b"\xff\xd9"
    assert {"as it is", "reduced"} <= outcomes
