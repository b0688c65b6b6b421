"""The imagehash adapters give what the package itself gives on the same pixels."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from uploadguard.errors import ConfigError
from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelSignal
from uploadguard.signals.imagehashes import IMAGE_HASHES, ImageHashSignal


@pytest.mark.parametrize("name", IMAGE_HASHES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_equals_the_package(name: str, mode: str) -> None:
    with Image.open(photo("coffee.png")) as image:
        converted = image.convert(mode)
    expected = str(getattr(imagehash, name)(converted))
    pixels = np.ascontiguousarray(np.asarray(converted))
    signal = ImageHashSignal(name)
    result = signal.hash_pixels(Pixels(pixels, converted.width, converted.height))
    assert signal.format(result.value) == expected
    assert signal.parse(expected.upper()) == result.value
    assert isinstance(signal, PixelSignal)


def test_a_flat_picture_has_no_usable_hash() -> None:
    signal = ImageHashSignal("phash")
    flat = np.full((100, 100), 200, np.uint8)
    assert signal.hash_pixels(Pixels(flat, 100, 100)).quality == 0 < signal.min_quality
    flat[50:] = 100
    assert signal.hash_pixels(Pixels(flat, 100, 100)).quality == 100


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"uploadguard\[imagehash\]"):
        ImageHashSignal("phash").require_package()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="nohash"):
        ImageHashSignal("nohash")
