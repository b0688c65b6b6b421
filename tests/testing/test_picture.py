"""The harmless test picture: the shipped file, the code that drew it, its variants and its list stay one."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pdqhash
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import PHOTOS, rgb
from uploadguard.lists import BUILTIN_READERS, ListEntry, ReadOptions
from uploadguard.media.base import Pixels
from uploadguard.signals.base import SignalType
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import picture, testlist


def distance_bits(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def forms(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    """The PDQ hashes of a picture's eight dihedral forms."""
    height, width = pixels.shape[:2]
    result = Pdq(mode="exact").hash_pixels(Pixels(pixels, width, height))
    assert result.quality == 100
    return {"original": result.value, **result.variants}


def nearest(pixels: NDArray[np.uint8]) -> tuple[int, str]:
    """How near the picture's best form is to the test list, in bits, and which form that is."""
    return min((distance_bits(value, testlist.TEST_HASHES["pdq"]), name) for name, value in forms(pixels).items())


def test_the_file_is_a_small_labelled_jpeg() -> None:
    data = picture.picture_bytes()
    assert len(data) < 80_000
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (1200, 900), "RGB")
        assert image.info["comment"] == b"uploadguard test picture, harmless"


def test_the_code_draws_the_shipped_picture() -> None:
    drawn = np.asarray(picture.draw_picture())
    shipped = pixels_of(picture.picture_bytes())
    difference = np.abs(drawn.astype(int) - shipped)
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99.9) < 32
    assert nearest(drawn) <= (6, "original")


def test_the_list_holds_the_hashes_of_the_shipped_file() -> None:
    data = picture.picture_bytes()
    for name in ("md5", "sha1", "sha256"):
        assert testlist.TEST_HASHES[name] == hashlib.new(name, data).digest()
    bits, quality = pdqhash.compute(pixels_of(data))
    assert np.packbits(bits).tobytes() == testlist.TEST_HASHES["pdq"]
    assert quality == 100


def test_the_list_has_one_entry_of_category_test() -> None:
    (entry,) = testlist.entries()
    assert entry.category == "test"
    assert dict(entry.hashes) == dict(testlist.TEST_HASHES)
    assert testlist.TEST_LIST_NAME == "uploadguard-test"


def test_the_csv_file_says_the_same_as_the_code() -> None:
    header, row, end = testlist.list_bytes().decode("ascii").split("\n")
    values = [value.hex() for value in testlist.TEST_HASHES.values()]
    assert header.split(",") == ["id", *testlist.TEST_HASHES, "category"]
    assert row.split(",") == [testlist.TEST_ENTRY_ID, *values, "test"]
    assert end == ""


def test_the_csv_file_reads_as_the_same_entry() -> None:
    data = testlist.list_bytes()
    reader = max(BUILTIN_READERS, key=lambda reader: reader.probe(data, "uploadguard-test.csv"))
    signals: list[SignalType] = [*DIGESTS, Pdq()]
    options = ReadOptions({signal.name: signal for signal in signals})
    assert reader.name == "csv"
    (read,) = list(reader.read(io.BytesIO(data), options))
    (built_in,) = testlist.entries()
    assert isinstance(read, ListEntry)
    assert (read.category, dict(read.hashes)) == (built_in.category, dict(built_in.hashes))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("recompressed", "original"),
        ("resized", "original"),
        ("mirrored", "flip_y"),
        ("rotated", "rot270"),
        ("png", "original"),
    ],
)
def test_pdq_finds_each_variant_and_no_digest_does(name: str, form: str) -> None:
    data = picture.variant_bytes(name)
    distance, best = nearest(pixels_of(data))
    assert distance <= 31
    assert best == form
    assert hashlib.md5(data).digest() != testlist.TEST_HASHES["md5"]


def test_every_variant_is_described_and_others_are_refused() -> None:
    assert list(picture.VARIANTS) == ["recompressed", "resized", "mirrored", "rotated", "png"]
    with Image.open(io.BytesIO(picture.variant_bytes("resized"))) as image:
        assert image.size == (600, 450)
    with Image.open(io.BytesIO(picture.variant_bytes("rotated"))) as image:
        assert image.size == (900, 1200)
    with pytest.raises(ValueError, match="no such variant: 'sepia'; choose recompressed"):
        picture.variant_bytes("sepia")


def test_the_unrelated_picture_is_far_in_every_form() -> None:
    distance, _ = nearest(pixels_of(picture.unrelated_picture()))
    assert distance > 80


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_no_ordinary_photo_comes_near(path: object) -> None:
    pixels = rgb(path)  # type: ignore[arg-type]
    height, width = pixels.shape[:2]
    result = Pdq().hash_pixels(Pixels(pixels, width, height))
    for value in (result.value, *result.variants.values()):
        assert distance_bits(value, testlist.TEST_HASHES["pdq"]) > 60
