"""Where many bits hang on what approximate luma leaves out, the frame is decoded and hashed again in colour."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions, Pixels
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.signals.base import PixelHash
from uploadguard.signals.pdq import Pdq


class Unsure:
    """Sure of colour only; keeps the pixels it was given."""

    name = "unsure"
    length_bytes = 1
    max_distance_bits = 0
    min_quality = 0
    pixels: Literal["luma", "rgb"] = "luma"

    def __init__(self) -> None:
        self.seen: list[Pixels] = []

    def parse(self, text: str) -> bytes:
        return bytes.fromhex(text)

    def format(self, value: bytes) -> str:
        return value.hex()

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        self.seen.append(pixels)
        return PixelHash(bytes([pixels.array.ndim]), unsure=pixels.is_luma)


def encoded(format_name: str, mode: str = "RGB", **options: Any) -> bytes:
    with Image.open(photo("retina.jpg")) as image:
        out = io.BytesIO()
        image.resize((2100, 2100)).convert(mode).save(out, format_name, **options)
    return out.getvalue()


def inspect(data: bytes, signal: Any) -> Inspection:
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, [signal], DecodeOptions(), Limits())


@pytest.mark.parametrize("progressive", [False, True])
def test_a_colour_jpeg_is_hashed_again_in_colour_at_the_same_scale(progressive: bool) -> None:
    data, signal = encoded("JPEG", progressive=progressive), Unsure()
    result = inspect(data, signal)
    luma, colour = signal.seen
    assert (luma.is_luma, luma.approximate, luma.scale) == (True, True, 4)
    assert (colour.is_luma, colour.approximate, colour.scale) == (False, False, 4)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (525, 525))
        assert np.array_equal(colour.array, np.asarray(image))
    assert [h.value for h in result.hashes] == [b"\x03"]
    assert (result.media.frames_total, result.media.frames_hashed, result.failures) == (1, 1, ())


@pytest.mark.parametrize("data", [encoded("JPEG", "L"), encoded("PNG", "L"), encoded("JPEG")[:200_000]])
def test_luma_that_is_exact_or_incomplete_is_left_alone(data: bytes) -> None:
    signal = Unsure()
    result = inspect(data, signal)
    assert len(signal.seen) == len(result.hashes) == 1


def test_pdq_is_unsure_of_pictures_whose_coefficients_tie() -> None:
    half = np.zeros((512, 512), np.uint8)
    half[:256] = 255
    assert Pdq().hash_pixels(Pixels(half, 512, 512)).unsure
    noise = np.random.default_rng(1).integers(0, 256, (512, 512), dtype=np.uint8)
    assert not Pdq().hash_pixels(Pixels(np.repeat(np.repeat(noise[::16, ::16], 16, 0), 16, 1), 512, 512)).unsure
