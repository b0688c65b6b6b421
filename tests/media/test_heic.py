"""HEIC through pi-heif, on a small file drawn for this test and encoded once (pi-heif itself only decodes)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions
from uploadguard.media.heif import HeifDecoder
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.signals.pdq import Pdq

DATA = (Path(__file__).parent / "data" / "drawn.heic").read_bytes()


def drawing() -> Image.Image:
    """What the file shows."""
    y, x = np.mgrid[:120, :160]
    stripes = ((x // 16 + y // 16) % 2) * 160
    image = Image.fromarray(np.stack([x * 255 // 159, y * 255 // 119, stripes], axis=2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 20, 90, 80), fill=(250, 240, 30))
    draw.rectangle((100, 60, 150, 110), fill=(10, 30, 90))
    return image


def inspect(data: bytes) -> Inspection:
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, [Pdq()], DecodeOptions(), Limits())


def test_the_pixels_are_those_of_the_drawing() -> None:
    picture = HeifDecoder().open(BytesSource(DATA), "image/heic", DecodeOptions(pixels="rgb"))
    assert (picture.width, picture.height, picture.frames_total, picture.orientation) == (160, 120, 1, 1)
    (pixels,) = picture.frames([0])
    difference = np.abs(pixels.array.astype(int) - np.asarray(drawing()).astype(int))
    assert difference.mean() < 8


def test_a_heic_is_hashed_like_any_picture() -> None:
    result = inspect(DATA)
    assert (result.media.media_type, result.media.decoder, result.failures) == ("image/heic", "pi-heif", ())
    drawn = Pdq().hash_pixels(next(HeifDecoder().open(BytesSource(DATA), "image/heic", DecodeOptions()).frames([0])))
    assert result.hashes[0].value == drawn.value
    assert len(result.hashes) == 8


@pytest.mark.parametrize("length", [60, 400, 1200, len(DATA) - 1])
def test_a_cut_file_is_never_clean(length: int) -> None:
    (failure, *_) = inspect(DATA[:length]).failures
    assert failure.code in {"truncated", "decode_failed", "unsupported_format"}
