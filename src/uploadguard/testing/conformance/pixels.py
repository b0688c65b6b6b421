"""What a signal type computed from canonical pixels must do."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelHash, PixelSignal
from uploadguard.testing.conformance._checks import distance_bits, in_threads, require
from uploadguard.testing.conformance.signals import SignalTypeConformance
from uploadguard.testing.media import encode, make_photo

__all__ = ["PixelSignalConformance"]

Array = NDArray[np.uint8]
Channels = Literal["luma", "rgb"]

_WIDTH, _HEIGHT = 512, 384
_SEEDS = range(5)
_ODD_SIZES = ((1, 1), (1, 2), (2, 1), (3, 3), (4, 4), (5, 5), (8, 9), (1, 5000), (5000, 1), (3, 20_000), (20_000, 3))
_TURNS: Mapping[str, Callable[[Array], Array]] = {
    "rot90": lambda array: np.rot90(array, 1),
    "rot180": lambda array: np.rot90(array, 2),
    "rot270": lambda array: np.rot90(array, 3),
    "flip_x": lambda array: array[::-1],
    "flip_y": lambda array: array[:, ::-1],
    "flip_plus1": lambda array: array.swapaxes(0, 1),
    "flip_minus1": lambda array: np.rot90(array, 2).swapaxes(0, 1),
}
"""The variants with a fixed meaning: quarter turns counter-clockwise; flips top to bottom, left to right, diagonal."""


@functools.cache
def _photo(seed: int, channels: Channels) -> Pixels:
    return _pixels(np.asarray(make_photo(_WIDTH, _HEIGHT, seed).convert("RGB" if channels == "rgb" else "L")))


def _pixels(array: Array) -> Pixels:
    """Pixels that nobody can write to."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return Pixels(array, array.shape[1], array.shape[0])


def _block_means(pixels: Pixels, scale: int) -> Pixels:
    """The picture decoded at a fraction: means over blocks, cut short at the right and lower edges."""
    height, width = pixels.array.shape
    rows, columns = np.arange(0, height, scale), np.arange(0, width, scale)
    sums = np.add.reduceat(np.add.reduceat(pixels.array.astype(np.int64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.minimum(scale, height - rows), np.minimum(scale, width - columns))
    small = np.ascontiguousarray((sums / sizes).round().astype(np.uint8))
    small.flags.writeable = False
    return Pixels(small, width, height, scale=scale)


@functools.cache
def _recompressed(seed: int, channels: Channels) -> Pixels:
    with Image.open(io.BytesIO(encode(make_photo(_WIDTH, _HEIGHT, seed), quality=80))) as image:
        return _pixels(np.asarray(image.convert("RGB" if channels == "rgb" else "L")))


@functools.cache
def _halved(seed: int, channels: Channels) -> Pixels:
    image = Image.fromarray(_photo(seed, channels).array)
    return _pixels(np.asarray(image.resize((_WIDTH // 2, _HEIGHT // 2), Image.Resampling.LANCZOS)))


class PixelSignalConformance(SignalTypeConformance):
    """For a :class:`~uploadguard.signals.base.PixelSignal`."""

    def make(self) -> PixelSignal:
        """A fresh signal type, as the plugin registers it."""
        raise NotImplementedError

    def test_it_is_a_pixel_signal(self) -> None:
        signal = self.make()
        require(isinstance(signal, PixelSignal), f"{type(signal).__name__} lacks a member of PixelSignal")
        require(signal.pixels in ("luma", "rgb"), f"pixels is {signal.pixels!r}, not 'luma' or 'rgb'")
        quality = signal.min_quality
        require(type(quality) is int and 0 <= quality <= 100, f"min_quality is {quality!r}, not an int of 0 to 100")

    def test_photos_hash_to_its_length(self) -> None:
        signal = self.make()
        for pixels in self._photos():
            result = signal.hash_pixels(pixels)
            self._check(result)
            text = signal.format(result.value)
            require(signal.parse(text) == result.value, "a hash does not survive format and parse")

    def test_photos_are_good_enough_to_match(self) -> None:
        signal = self.make()
        for pixels in self._photos():
            quality = signal.hash_pixels(pixels).quality
            if signal.min_quality > 0:
                require(quality is not None, "min_quality is set, but hashes have no quality")
            require(quality is None or quality >= signal.min_quality, f"a photo has a quality of only {quality}")

    def test_a_flat_picture_is_not_good_enough(self) -> None:
        """All flat pictures have one hash, so that one of them in a list would match every blank upload."""
        signal = self.make()
        if signal.min_quality == 0:
            return
        for level, channels in itertools.product((0, 128, 255), self._channels()):
            shape = (300, 400, 3) if channels == "rgb" else (300, 400)
            quality = signal.hash_pixels(_pixels(np.full(shape, level, np.uint8))).quality
            require(quality is not None and quality < signal.min_quality, f"a flat picture has a quality of {quality}")

    def test_the_same_pixels_have_the_same_hash(self) -> None:
        signal = self.make()
        for pixels in self._photos():
            first = signal.hash_pixels(pixels)
            signal.hash_pixels(_photo(0, self._channels()[0]))
            require(signal.hash_pixels(pixels) == first, "the same pixels hash differently the second time")
            require(self.make().hash_pixels(pixels) == first, "another instance hashes the same pixels differently")

    def test_threads_can_share_it_to_hash(self) -> None:
        signal, photos = self.make(), list(self._photos())
        expected = [self.make().hash_pixels(pixels) for pixels in photos]
        require(in_threads(signal.hash_pixels, photos, repeats=3) == expected * 3, "hash_pixels is not thread-safe")

    def test_pixels_are_not_changed(self) -> None:
        for channels in self._channels():
            array = np.array(_photo(1, channels).array)
            before = array.copy()
            self.make().hash_pixels(Pixels(array, _WIDTH, _HEIGHT))
            require(np.array_equal(array, before), "hash_pixels writes to the pixels, which other signal types share")

    def test_no_picture_is_too_odd(self) -> None:
        """Single pixels, threads of pixels, flat, striped and noisy ones: uploads are anything."""
        signal = self.make()
        random = np.random.default_rng(1)
        for (width, height), channels in itertools.product(_ODD_SIZES, self._channels()):
            shape = (height, width, 3) if channels == "rgb" else (height, width)
            stripes = np.zeros(shape, np.uint8)
            stripes[::2] = 255
            for array in (
                np.zeros(shape, np.uint8),
                np.full(shape, 255, np.uint8),
                stripes,
                random.integers(0, 256, shape, np.uint8),
            ):
                try:
                    result = signal.hash_pixels(_pixels(array))
                except Exception as error:
                    message = f"hash_pixels raises {type(error).__name__} for a picture of {width} x {height} px"
                    raise AssertionError(message) from error
                self._check(result)

    def test_a_recompressed_picture_is_close(self) -> None:
        for seed, channels in itertools.product(_SEEDS, self._channels()):
            self._require_close(_photo(seed, channels), _recompressed(seed, channels), "a JPEG of quality 80")

    def test_a_smaller_picture_is_close(self) -> None:
        for seed, channels in itertools.product(_SEEDS, self._channels()):
            self._require_close(_photo(seed, channels), _halved(seed, channels), "half the size")

    def test_grey_and_colour_are_close(self) -> None:
        """A signal type that asks for luma still gets RGB where another one needs it."""
        if self.make().pixels == "luma":
            for seed in _SEEDS:
                self._require_close(_photo(seed, "rgb"), _photo(seed, "luma"), "luma in place of RGB")

    def test_a_scaled_decode_is_close(self) -> None:
        """With ``scale``, the array holds block means of a picture of ``full_width`` by ``full_height``."""
        if self.make().pixels == "luma":
            for seed, scale in itertools.product(_SEEDS, (2, 4)):
                photo = _photo(seed, "luma")
                self._require_close(photo, _block_means(photo, scale), f"decoded at 1/{scale}")
                cut = _pixels(photo.array[: _HEIGHT - 1, : _WIDTH - 3])
                self._require_close(cut, _block_means(cut, scale), f"decoded at 1/{scale} with blocks cut short")

    def test_unrelated_pictures_are_far(self) -> None:
        signal = self.make()
        for channels in self._channels():
            hashes = [signal.hash_pixels(_photo(seed, channels)).value for seed in _SEEDS]
            nearest = min(distance_bits(a, b) for a, b in itertools.combinations(hashes, 2))
            limit = signal.max_distance_bits
            require(nearest > limit, f"unrelated pictures are {nearest} bits apart; the limit to match is {limit}")

    def test_variants_are_the_same_for_every_picture(self) -> None:
        signal = self.make()
        names = {tuple(signal.hash_pixels(pixels).variants) for pixels in self._photos()}
        require(len(names) == 1, "some pictures have other variants than others")

    def test_variants_are_what_their_names_say(self) -> None:
        signal = self.make()
        for pixels in self._photos():
            for name, value in signal.hash_pixels(pixels).variants.items():
                if name in _TURNS:
                    turned = signal.hash_pixels(_pixels(_TURNS[name](pixels.array))).value
                    distance, limit = distance_bits(value, turned), signal.max_distance_bits
                    require(distance <= limit, f"variant {name} is {distance} bits from the hash of that form")

    def _channels(self) -> tuple[Channels, ...]:
        """The kinds of pixels that the signal type can be handed."""
        return ("luma", "rgb") if self.make().pixels == "luma" else ("rgb",)

    def _photos(self) -> Iterator[Pixels]:
        for channels in self._channels():
            for seed in _SEEDS:
                yield _photo(seed, channels)

    def _check(self, result: PixelHash) -> None:
        length = self.make().length_bytes
        require(isinstance(result, PixelHash), f"hash_pixels gives {type(result).__name__}, not PixelHash")
        quality = result.quality
        fits = quality is None or (type(quality) is int and 0 <= quality <= 100)
        require(fits, f"quality is {quality!r}, not None or an int of 0 to 100")
        require("original" not in result.variants, "variants hold the original")
        require(all(isinstance(name, str) and name for name in result.variants), "a variant has no name")
        for value in (result.value, *result.variants.values()):
            require(type(value) is bytes, f"a hash is of type {type(value).__name__}, not bytes")
            require(len(value) == length, f"a hash has {len(value)} bytes instead of {length}")

    def _require_close(self, a: Pixels, b: Pixels, what: str) -> None:
        signal = self.make()
        limit = signal.max_distance_bits
        if limit > 0:
            distance = distance_bits(signal.hash_pixels(a).value, signal.hash_pixels(b).value)
            require(distance <= limit, f"{what}: {distance} bits away; the limit to match is {limit}")
