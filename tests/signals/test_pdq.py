"""PDQ against the reference implementation (the pdqhash package): bit for bit, in all eight forms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pdqhash
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import PHOTOS, rgb
from uploadguard._native import _kernel
from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelSignal
from uploadguard.signals.pdq import VARIANTS, Pdq


def reference(pixels: NDArray[np.uint8]) -> tuple[list[bytes], int]:
    """The eight hashes and the quality by the pdqhash package; the original by its plain call."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    pixels = np.ascontiguousarray(pixels)
    original, quality = pdqhash.compute(pixels)
    vectors, _ = pdqhash.compute_dihedral(pixels)
    return [np.packbits(vector).tobytes() for vector in (original, *vectors[1:])], quality


def ours(pixels: NDArray[np.uint8]) -> tuple[list[bytes], int]:
    height, width = pixels.shape[:2]
    result = Pdq().hash_pixels(Pixels(pixels, width, height))
    return [result.value, *(result.variants[name] for name in VARIANTS[1:])], result.quality or 0


def distance_bits(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_photos_are_bit_identical_in_all_forms(path: Path) -> None:
    assert ours(rgb(path)) == reference(rgb(path))


def test_the_sum_order_of_the_reference_decides_where_rounding_does() -> None:
    """A chessboard's coefficients tie; only the reference's own rounding tells its bits."""
    board = rgb(next(path for path in PHOTOS if path.name == "chessboard_RGB.png"))
    height, width = board.shape[:2]
    fast, _, decided_by_margin, _ = _kernel.pdq_hash(board, width, height, 3)
    exact, _, decided_by_reference, _ = _kernel.pdq_hash(board, width, height, 3, bit_exact=True)
    assert (decided_by_margin, decided_by_reference) == (False, True)
    assert fast != exact


@st.composite
def pictures(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Noise, stripes, blocks, gradients and flat areas: ties and near ties included."""
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    grey = draw(st.booleans())
    shape = (height, width) if grey else (height, width, 3)
    kind = draw(st.sampled_from(["noise", "few", "stripes", "gradient", "flat", "quadrants"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if kind == "noise":
        picture = rng.integers(0, 256, shape)
    elif kind == "few":
        picture = rng.choice([0, 255], shape)
    elif kind == "stripes":
        picture = np.zeros(shape)
        picture[:: draw(st.integers(2, 40))] = draw(st.integers(1, 255))
    elif kind == "gradient":
        picture = np.add.outer(np.linspace(0, 127, height), np.linspace(0, 127, width))
        picture = picture if grey else np.repeat(picture[:, :, None], 3, axis=2)
    elif kind == "flat":
        picture = np.full(shape, draw(st.integers(0, 255)))
    else:
        picture = np.zeros(shape)
        picture[: height // 2, : width // 2] = 255
        picture[height // 2 :, width // 2 :] = 128
    return np.ascontiguousarray(picture.astype(np.uint8))


@given(pictures())
def test_any_picture_is_bit_identical(picture: NDArray[np.uint8]) -> None:
    if min(picture.shape[:2]) < 5:
        assert ours(picture) == ([bytes(32)] * 8, 0)
        return
    hashes, quality = reference(picture)
    assert ours(picture) == (hashes, quality)


@pytest.mark.parametrize("size", [(64, 64), (5, 5), (5, 9000), (9000, 5), (127, 128), (129, 256), (257, 640)])
def test_odd_sizes_are_bit_identical(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    picture = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert ours(picture) == reference(picture)


def test_the_reference_order_gives_the_references_own_coefficients() -> None:
    """Not only the bits: the floats before them, so that nothing is left to the margin."""
    pixels = rgb(next(path for path in PHOTOS if path.name == "rocket.jpg"))
    height, width = pixels.shape[:2]
    expected, _ = pdqhash.compute_float(pixels)
    _, coefficients = _kernel.pdq_coefficients(pixels, width, height, 3, reference_order=True)
    assert np.array_equal(np.frombuffer(coefficients)[::-1], expected.astype(np.float64))


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_the_margin_covers_how_far_the_reference_rounds(path: Path) -> None:
    """The fast way is trusted only outside a margin; it must be at least twice the error seen anywhere."""
    pixels = rgb(path)
    height, width = pixels.shape[:2]
    fast = _kernel.pdq_coefficients(pixels, width, height, 3)
    slow = _kernel.pdq_coefficients(pixels, width, height, 3, reference_order=True)
    sample_error, coefficient_error = (
        np.abs(np.frombuffer(a) - np.frombuffer(b)).max() for a, b in zip(fast, slow, strict=True)
    )
    tolerance = 3e-3 * (1 + max(width, height) ** 0.5 / 64)
    assert sample_error < tolerance / 2
    assert coefficient_error < 3 * tolerance / 2


@pytest.mark.parametrize(("scale", "limit_bits"), [(2, 6), (4, 6)])
def test_block_means_keep_the_hash(scale: int, limit_bits: int) -> None:
    """Means over 2x2 and 4x4 blocks, hashed with the full picture's geometry, stay close to the full picture's hash."""
    path = next(path for path in PHOTOS if path.name == "retina.jpg")
    with Image.open(path) as image:
        luma = np.asarray(image.convert("L"))
    height, width = (side - side % scale for side in luma.shape)
    luma = np.ascontiguousarray(luma[:height, :width])
    means = luma.reshape(height // scale, scale, width // scale, scale).mean(axis=(1, 3)).round().astype(np.uint8)
    full = Pdq().hash_pixels(Pixels(luma, width, height))
    scaled = Pdq().hash_pixels(Pixels(means, width, height, scale=scale))
    assert distance_bits(full.value, scaled.value) <= limit_bits
    thumbnail = Pdq().hash_pixels(Pixels(means, width // scale, height // scale))
    assert distance_bits(full.value, scaled.value) <= distance_bits(full.value, thumbnail.value)


def test_quality_and_variants_can_be_left_out() -> None:
    flat = Pdq().hash_pixels(Pixels(np.full((100, 100), 9, np.uint8), 100, 100))
    assert flat.quality == 0
    assert Pdq(variants=False).hash_pixels(Pixels(np.zeros((9, 9), np.uint8), 9, 9)).variants == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("00" * 31, "64 hex digits"), ("0" * 64 + "\n", "64 hex digits"), ("0g" * 32, "hexadecimal"), (" 0" * 32, "hexa")],
)
def test_bad_hex_is_refused_without_repeating_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        Pdq().parse(text)
    assert text not in str(error.value)


def test_hex_in_either_case_is_the_same_hash() -> None:
    text = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
    assert Pdq().parse(text.upper()) == Pdq().parse(text) == bytes.fromhex(text)
    assert Pdq().format(bytes.fromhex(text)) == text
    assert isinstance(Pdq(), PixelSignal)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"width": 10, "height": 10, "channels": 2}, "channels"),
        ({"width": 0, "height": 10, "channels": 1}, "width and height must be 1"),
        ({"width": -1, "height": -100, "channels": 1}, "width and height must be 1"),
        ({"width": 10, "height": 11, "channels": 1}, "bytes"),
        ({"width": 10, "height": 10, "channels": 1, "scale": 2}, "divided by scale"),
        ({"width": 10, "height": 10, "channels": 1, "scale": 0}, "scale"),
        ({"width": 10, "height": 10, "channels": 1, "full_width": 22, "full_height": 20, "scale": 2}, "divided"),
        ({"width": 10, "height": 10, "channels": 1, "full_width": 20, "full_height": 20, "scale": 2, "bit_exact": True},
         "bit_exact"),
    ],
)  # fmt: skip
def test_the_kernel_refuses_what_does_not_fit(arguments: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _kernel.pdq_hash(bytes(100), **arguments)


def test_approximate_luma_is_not_worth_the_references_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def spy(*arguments: Any, bit_exact: bool, **options: Any) -> Any:
        asked.append(bit_exact)
        return _kernel.pdq_hash(*arguments, bit_exact=bit_exact, **options)

    monkeypatch.setattr("uploadguard.signals.pdq._kernel", SimpleNamespace(pdq_hash=spy))
    luma = np.zeros((64, 64), np.uint8)
    for pixels in (Pixels(luma, 64, 64), Pixels(luma, 64, 64, approximate=True), Pixels(luma, 128, 128, scale=2)):
        Pdq().hash_pixels(pixels)
    assert asked == [True, False, False]
