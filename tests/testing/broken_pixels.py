"""Pixel signals that break one rule each, with the test of the suite that must find it and what it says."""

from __future__ import annotations

import hashlib
import time
from types import MappingProxyType
from typing import Any

import numpy as np

from tests.testing.broken_signals import Sound
from uploadguard.media.base import Pixels
from uploadguard.signals.base import PixelHash
from uploadguard.signals.pdq import Pdq


class SoundPixels(Pdq):
    """PDQ; each broken one changes one thing."""

    def altered(self, pixels: Pixels, **changes: Any) -> PixelHash:
        result = super().hash_pixels(pixels)
        return PixelHash(**{"value": result.value, "quality": result.quality, "variants": result.variants, **changes})


class WithoutMinQuality(Sound):
    pixels = "luma"

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return Pdq().hash_pixels(pixels)


class Cmyk(SoundPixels):
    def __init__(self) -> None:
        super().__init__()
        self.pixels = "cmyk"  # type: ignore[assignment]


class QualityInFractions(SoundPixels):
    def __init__(self) -> None:
        super().__init__()
        self.min_quality = 0.5  # type: ignore[assignment]


class ShortHash(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, value=bytes(31))


class HexHash(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, value="00" * 32)


class ShortVariant(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, variants={"rot90": bytes(8)})


class OriginalVariant(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, variants={"original": bytes(32)})


class QualityOver100(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, quality=101)


class BareBytes(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> Any:
        return super().hash_pixels(pixels).value


class NoQuality(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, quality=None)


class AlwaysPoor(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, quality=10)


class AlwaysGood(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, quality=100)


class Counting(SoundPixels):
    calls = 0

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        self.calls += 1
        return self.altered(pixels, quality=100 - self.calls % 2)


class PerInstance(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, value=hashlib.sha256(b"%d" % id(self)).digest())


class SharedPixels(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        self.kept = pixels
        time.sleep(0.001)
        return super().hash_pixels(self.kept)


class Writing(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        result = super().hash_pixels(pixels)
        pixels.array[0, 0] ^= 255
        return result


class DividesByZero(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        if min(pixels.array.shape[:2]) < 8:
            raise ZeroDivisionError
        return super().hash_pixels(pixels)


class BytesOfPixels(SoundPixels):
    """A digest of the pixels that claims to find similar pictures."""

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, value=hashlib.sha256(pixels.array.tobytes()).digest())


class Sized(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        value = super().hash_pixels(pixels).value
        return self.altered(pixels, value=value if pixels.full_width > 300 else bytes(byte ^ 255 for byte in value))


class RedOnly(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        array = pixels.array if pixels.is_luma else np.ascontiguousarray(255 - pixels.array[:, :, 0])
        return super().hash_pixels(Pixels(array, pixels.full_width, pixels.full_height, pixels.scale))


class IgnoresScale(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        if pixels.scale > 1:
            return self.altered(pixels, value=super().hash_pixels(pixels).variants["rot90"])
        return super().hash_pixels(pixels)


class AllTheSame(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        return self.altered(pixels, value=bytes(31) + b"\1")


class VariantsAtWill(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        result = super().hash_pixels(pixels)
        return result if result.value[0] & 1 else self.altered(pixels, variants={})


class Mislabelled(SoundPixels):
    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        variants = dict(super().hash_pixels(pixels).variants)
        variants["rot90"], variants["rot270"] = variants["rot270"], variants["rot90"]
        return self.altered(pixels, variants=MappingProxyType(variants))


PIXELS: list[tuple[str, Any, str]] = [
    ("test_it_is_a_pixel_signal", WithoutMinQuality, "lacks a member"),
    ("test_it_is_a_pixel_signal", Cmyk, "'cmyk'"),
    ("test_it_is_a_pixel_signal", QualityInFractions, r"0\.5"),
    ("test_photos_hash_to_its_length", ShortHash, "31 bytes"),
    ("test_photos_hash_to_its_length", HexHash, "type str"),
    ("test_photos_hash_to_its_length", ShortVariant, "8 bytes"),
    ("test_photos_hash_to_its_length", OriginalVariant, "the original"),
    ("test_photos_hash_to_its_length", QualityOver100, "quality is 101"),
    ("test_photos_hash_to_its_length", BareBytes, "gives bytes"),
    ("test_photos_are_good_enough_to_match", NoQuality, "have no quality"),
    ("test_photos_are_good_enough_to_match", AlwaysPoor, "only 10"),
    ("test_a_flat_picture_is_not_good_enough", AlwaysGood, "quality of 100"),
    ("test_the_same_pixels_have_the_same_hash", Counting, "another instance|second time"),
    ("test_the_same_pixels_have_the_same_hash", PerInstance, "another instance"),
    ("test_threads_can_share_it_to_hash", SharedPixels, "not thread-safe"),
    ("test_pixels_are_not_changed", Writing, "writes to the pixels"),
    ("test_no_picture_is_too_odd", DividesByZero, "ZeroDivisionError for a picture of 1 x 1"),
    ("test_a_recompressed_picture_is_close", BytesOfPixels, "quality 80"),
    ("test_a_smaller_picture_is_close", Sized, "half the size"),
    ("test_grey_and_colour_are_close", RedOnly, "luma in place of RGB"),
    ("test_a_scaled_decode_is_close", IgnoresScale, "decoded at 1/2"),
    ("test_unrelated_pictures_are_far", AllTheSame, "0 bits apart"),
    ("test_variants_are_the_same_for_every_picture", VariantsAtWill, "other variants"),
    ("test_variants_are_what_their_names_say", Mislabelled, "variant rot90"),
]
