"""Synthetic media: deterministic, photo-like to a hash, and each odd file odd in the way that its name says."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import uploadguard.testing
from uploadguard.media.base import Pixels
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import media
from uploadguard.testing._drawing import Random, noise


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_random_numbers_are_splitmix64() -> None:
    """The first outputs of the published generator for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert Random(1234567).array(3).tolist() == [(value >> 11) * 2.0**-53 for value in published]
    parts = Random(5)
    assert [*parts.array(2).tolist(), *parts.array(3).tolist()] == Random(5).array(5).tolist()


def test_noise_keeps_within_its_range_and_is_not_flat() -> None:
    plane = noise(300, 200, 1)
    assert plane.shape == (200, 300)
    assert 0 <= plane.min() < plane.max() <= 1
    assert plane.std() > 0.05
    assert noise(1, 1, 1).shape == (1, 1)


def test_a_photo_is_the_same_for_the_same_seed_only() -> None:
    first = np.asarray(media.make_photo(160, 120, 3))
    assert first.shape == (120, 160, 3)
    media._photo.cache_clear()
    assert np.array_equal(first, np.asarray(media.make_photo(160, 120, 3)))
    assert not np.array_equal(first, np.asarray(media.make_photo(160, 120, 4)))


def test_a_photo_is_fixed_for_good() -> None:
    """Plugin authors pin hashes of these pictures: changing the drawing breaks their tests."""
    pixels = np.asarray(media.make_photo(64, 48, 1)).astype(int)
    assert [tuple(pixels[y, x]) for y, x in ((0, 0), (24, 32), (47, 63))] == [(51, 80, 80), (44, 70, 70), (44, 54, 55)]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 5), (2000, 20)])
def test_a_photo_of_any_size(size: tuple[int, int]) -> None:
    assert media.make_photo(*size).size == size


def test_photos_are_good_to_hash_and_unrelated() -> None:
    hashes = []
    for seed in range(12):
        result = Pdq().hash_pixels(Pixels(np.asarray(media.make_photo(320, 240, seed)), 320, 240))
        assert result.quality == 100
        hashes.append(int.from_bytes(result.value))
    assert min((a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)) > 80


@pytest.mark.parametrize("name", sorted(media.ODD_MEDIA))
def test_odd_media_are_the_same_each_time(name: str) -> None:
    assert media.ODD_MEDIA[name]() == media.ODD_MEDIA[name]()


@pytest.mark.parametrize(
    ("name", "kind", "mode"),
    [
        ("grey_jpeg", "JPEG", "L"),
        ("cmyk_jpeg", "JPEG", "CMYK"),
        ("palette_png", "PNG", "P"),
        ("grey16_png", "PNG", "I;16"),
        ("grey_alpha_png", "PNG", "LA"),
        ("transparent_png", "PNG", "RGBA"),
        ("rotated_jpeg", "JPEG", "RGB"),
        ("flat_png", "PNG", "RGB"),
        ("corrupt_jpeg", "JPEG", "RGB"),
    ],
)
def test_odd_media_are_of_their_kind(name: str, kind: str, mode: str) -> None:
    image = opened(media.ODD_MEDIA[name]())
    assert (image.format, image.mode, image.size) == (kind, mode, (400, 300))


def test_palette_indices_are_not_brightness() -> None:
    image = opened(media.palette_png())
    indices, grey = np.asarray(image).ravel(), np.asarray(image.convert("L")).ravel()
    assert abs(np.corrcoef(indices, grey)[0, 1]) < 0.98


def test_sixteen_bits_use_the_full_range() -> None:
    samples = np.asarray(opened(media.grey16_png()))
    assert samples.dtype == np.uint16
    assert samples.max() > 40_000


def test_cmyk_is_inverted_as_adobe_does() -> None:
    grey = np.asarray(opened(media.cmyk_jpeg()).convert("L"), float).ravel()
    original = np.asarray(media.make_photo(400, 300).convert("L"), float).ravel()
    assert b"Adobe" in media.cmyk_jpeg()
    assert np.corrcoef(grey, original)[0, 1] > 0.95


def test_transparent_corners_are_black_beneath() -> None:
    for data in (media.transparent_png(), media.grey_alpha_png()):
        alpha = opened(data).getchannel("A")
        assert alpha.getextrema() == (0, 255)
    assert opened(media.transparent_png()).getpixel((0, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_only_a_tag(orientation: int) -> None:
    image = opened(media.rotated_jpeg(orientation=orientation))
    assert image.getexif()[0x0112] == orientation
    assert image.size == (400, 300)


@pytest.mark.parametrize(("function", "kind"), [(media.animated_gif, "GIF"), (media.animated_webp, "WEBP")])
def test_animations_have_unrelated_frames(function: object, kind: str) -> None:
    image = Image.open(io.BytesIO(function(frames=3)))  # type: ignore[operator]
    assert (image.format, image.n_frames) == (kind, 3)  # type: ignore[attr-defined]
    frames = []
    for index in range(3):
        image.seek(index)
        frames.append(np.asarray(image.convert("L"), float))
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations(frames, 2)) > 10


def test_what_ends_early_does_not_decode() -> None:
    for data in (media.truncated_jpeg(), media.header_only_jpeg()):
        assert Image.open(io.BytesIO(data)).size == (400, 300)
        with pytest.raises(OSError, match=r"truncated|cannot load"):
            opened(data)
    assert len(media.truncated_jpeg(keep=0.3)) < len(media.truncated_jpeg())


def test_corruption_changes_the_picture() -> None:
    intact = np.asarray(opened(media.encode(media.make_photo(400, 300), quality=90)), int)
    assert np.abs(np.asarray(opened(media.corrupt_jpeg()), int) - intact).max() > 100


def test_the_bomb_is_small_and_decodes_to_what_it_says() -> None:
    data = media.pixel_bomb_png()
    assert len(data) < 200_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    small = opened(media.pixel_bomb_png(70, 30))
    assert (small.size, small.mode, small.getextrema()) == ((70, 30), "1", (0, 0))


def test_what_is_no_picture() -> None:
    assert media.empty_file() == b""
    for data in (media.text_named_jpg(), media.empty_file()):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data))


def test_importing_costs_nothing() -> None:
    """Neither numpy, Pillow nor pytest come in before they are needed; the package's own imports are left out."""
    program = f"""
import sys, types
package = types.ModuleType("uploadguard")
package.__path__ = [{str(Path(uploadguard.testing.__file__).parents[1])!r}]
sys.modules["uploadguard"] = package
import uploadguard.testing.media, uploadguard.testing.picture
print(*sorted({{"numpy", "PIL", "pytest", "hypothesis"}} & sys.modules.keys()))
uploadguard.testing.media.flat_png(1, 1)
print(*sorted({{"PIL"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\nPIL\n"
