"""The whole inspection, with tiny signal types that stand in for real ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from tests.media.files import encode, oriented, png_chunk, scene, write_png
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions, Pixels, Source
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.models import FailureCode
from uploadguard.signals.base import PixelHash, PixelSignal


@dataclass
class MeanSignal:
    """Hashes a picture to its mean; its quality is the spread of its samples."""

    name: str = "mean"
    length_bytes: int = 2
    max_distance_bits: int = 0
    pixels: Literal["luma", "rgb"] = "luma"
    min_quality: int = 20
    error: Exception | None = None
    value: bytes | None = None
    seen: list[Pixels] = field(default_factory=list)

    def parse(self, text: str) -> bytes:
        """From hex."""
        return bytes.fromhex(text)

    def format(self, value: bytes) -> str:
        """To hex."""
        return value.hex()

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        """The mean and the inverted mean."""
        self.seen.append(pixels)
        if self.error is not None:
            raise self.error
        mean = int(pixels.array.mean())
        quality = min(100, int(pixels.array.std()))
        value = bytes((mean, 0)) if self.value is None else self.value
        return PixelHash(value, quality, {"inverted": bytes((255 - mean, 0))})


def inspect(data: bytes, *signals: PixelSignal, limits: Limits | None = None, **options: object) -> Inspection:
    """Inspect with the built-in decoders."""
    decode_options = DecodeOptions(**options)  # type: ignore[arg-type]
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, signals, decode_options, limits or Limits())


def codes(inspection: Inspection) -> list[FailureCode]:
    """The failures' codes."""
    return [failure.code for failure in inspection.failures]


def animation(frames: Sequence[Image.Image]) -> bytes:
    """An animated PNG."""
    return encode(frames[0], "PNG", save_all=True, append_images=frames[1:])


def flat(value: int) -> Image.Image:
    """A grey frame."""
    return Image.new("RGB", (64, 48), (value,) * 3)


def test_a_good_photo() -> None:
    signal = MeanSignal()
    assert isinstance(signal, PixelSignal)
    data = photo("rocket.jpg").read_bytes()
    found = inspect(data, signal)
    assert found.failures == ()
    assert [(h.signal_type, h.variant, h.frame) for h in found.hashes] == [
        ("mean", "original", 0),
        ("mean", "inverted", 0),
    ]
    with Image.open(photo("rocket.jpg")) as image:
        width, height = image.size
    media = found.media
    assert (media.size_bytes, media.media_type, media.width, media.height) == (len(data), "image/jpeg", width, height)
    assert (media.decoder, media.frames_total, media.frames_hashed, media.orientation) == ("pillow", 1, 1, 1)
    assert set(found.timings_ms) == {"structure", "open", "decode", "mean"}


def test_stages_are_timed_by_the_given_clock() -> None:
    ticks = itertools.count(0.0, 0.5)
    found = inspect_media(
        BytesSource(encode(scene(), "PNG")),
        BUILTIN_DECODERS,
        [MeanSignal()],
        DecodeOptions(),
        Limits(),
        clock=lambda: next(ticks),
    )
    assert found.timings_ms == {"structure": 500.0, "open": 500.0, "decode": 1000.0, "mean": 500.0}


def test_orientation_and_scale_are_reported() -> None:
    data = encode(scene(2100, 2200), "JPEG", exif=oriented(8))
    media = inspect(data, MeanSignal()).media
    assert (media.orientation, media.scale, media.width, media.height) == (8, 4, 2100, 2200)


def test_one_signal_in_rgb_makes_the_decode_rgb() -> None:
    luma, colour = MeanSignal(), MeanSignal(name="colour", pixels="rgb")
    found = inspect(encode(scene(2100, 2200), "JPEG"), luma, colour)
    assert [signal.seen[0].array.shape for signal in (luma, colour)] == [(2200, 2100, 3)] * 2
    assert len(found.hashes) == 4


def test_without_pixel_signals_nothing_is_decoded() -> None:
    found = inspect(encode(scene(), "PNG"))
    assert (found.media.width, found.media.frames_hashed, found.failures) == (64, 0, ())
    assert "decode" not in found.timings_ms


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", FailureCode.EMPTY_FILE, "empty"),
        (b"only text, whatever its name says", FailureCode.UNSUPPORTED_FORMAT, "no known media type"),
        (b"%PDF-1.7 ...", FailureCode.UNSUPPORTED_FORMAT, "seems to be application/pdf"),
        (b"\0\0\0\x10ftypisom\0\0\0\0", FailureCode.UNSUPPORTED_FORMAT, "seems to be video/mp4"),
        (encode(scene().convert("F"), "TIFF"), FailureCode.UNSUPPORTED_FORMAT, "no defined white"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", FailureCode.DECODE_FAILED, "ends inside its header"),
        (encode(Image.new("1", (20_000, 6_000)), "PNG"), FailureCode.TOO_MANY_PIXELS, "20000 x 6000 pixels"),
    ],
)
def test_what_cannot_be_inspected_says_why(data: bytes, code: FailureCode, words: str) -> None:
    signal = MeanSignal()
    found = inspect(data, signal)
    assert codes(found) == [code]
    assert words in found.failures[0].detail
    assert (found.hashes, signal.seen) == ((), [])


def test_a_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_text("not a picture")
    assert codes(inspect(path.read_bytes(), MeanSignal())) == [FailureCode.UNSUPPORTED_FORMAT]


def test_a_cut_file_is_hashed_as_far_as_it_goes() -> None:
    data = photo("rocket.jpg").read_bytes()
    found = inspect(data[: len(data) // 2], MeanSignal())
    assert codes(found) == [FailureCode.TRUNCATED]
    assert len(found.hashes) == 2
    assert found.media.frames_hashed == 1


def test_low_quality_is_told_and_the_hash_kept() -> None:
    found = inspect(encode(flat(100), "PNG"), MeanSignal(), MeanSignal(name="easy", min_quality=0))
    assert codes(found) == [FailureCode.LOW_QUALITY]
    assert found.failures[0].detail == "mean quality is 0, below 20"
    assert [h.value for h in found.hashes if h.signal_type == "mean"] == [bytes((100, 0)), bytes((155, 0))]


def test_one_usable_frame_is_enough() -> None:
    assert codes(inspect(animation([flat(9), scene(), flat(200)]), MeanSignal())) == []
    assert codes(inspect(animation([flat(9), flat(99), flat(200)]), MeanSignal())) == [FailureCode.LOW_QUALITY]


def test_a_signal_that_raises_is_named_and_the_others_go_on() -> None:
    bad = MeanSignal(name="bad", error=ZeroDivisionError("payload"))
    found = inspect(encode(scene(), "PNG"), bad, MeanSignal())
    assert codes(found) == [FailureCode.SIGNAL_FAILED]
    assert found.failures[0].detail == "bad raised ZeroDivisionError"
    assert found.failures[0].frame == 0
    assert {h.signal_type for h in found.hashes} == {"mean"}


def test_a_signal_that_breaks_its_contract_is_named() -> None:
    found = inspect(encode(scene(), "PNG"), MeanSignal(value=b"three"))
    assert codes(found) == [FailureCode.SIGNAL_FAILED]
    assert found.hashes == ()


FRAMES = [scene().point(lambda value, step=step: value * (30 - step) // 30) for step in range(20)]
"""Each of another brightness, so of another mean."""


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [0]), (2, [0, 19]), (3, [0, 1, 19]), (20, list(range(20))), (99, list(range(20)))]
)
def test_every_frame_is_looked_at_and_the_first_and_last_are_kept(most: int, expected: list[int]) -> None:
    signal = MeanSignal()
    found = inspect(animation(FRAMES), signal, limits=Limits(max_frames_hashed=most))
    assert [pixels.frame for pixels in signal.seen] == list(range(20))
    assert (found.media.frames_total, found.media.frames_hashed) == (20, len(expected))
    assert codes(found) == ([FailureCode.FRAMES_SAMPLED] if most < 20 else [])
    assert [h.frame for h in found.hashes if h.variant == "original"] == expected


def test_frames_that_show_the_same_count_once() -> None:
    calm = [FRAMES[0]] * 30 + [FRAMES[9]] + [FRAMES[0]] * 30
    calm = [frame.copy() for frame in calm]
    for index, frame in enumerate(calm):
        frame.putpixel((0, 0), (index, 0, 0))  # or the writer leaves out what is the same
    found = inspect(animation(calm), MeanSignal(), limits=Limits(max_frames_hashed=2))
    assert codes(found) == []
    assert (found.media.frames_total, found.media.frames_hashed) == (61, 2)
    assert [h.frame for h in found.hashes if h.variant == "original"] == [0, 30]


def test_the_pixel_budget_counts_every_frame_on_the_way() -> None:
    signal = MeanSignal()
    found = inspect(animation(FRAMES), signal, limits=Limits(max_decoded_pixels=5 * 65_536))
    assert [pixels.frame for pixels in signal.seen] == [0, 1, 2, 3, 4]
    assert codes(found) == [FailureCode.FRAMES_OVER_BUDGET]
    assert found.failures[0].detail == "the pixel budget reaches 5 of 20 frames"


def test_pages_count_by_their_own_size() -> None:
    pages = [FRAMES[0].resize((16, 16)), FRAMES[1].resize((600, 600)), FRAMES[2], FRAMES[3]]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    signal = MeanSignal()
    found = inspect(data, signal, limits=Limits(max_decoded_pixels=65_536 + 360_000))
    assert [pixels.frame for pixels in signal.seen] == [0, 1]
    assert codes(found) == [FailureCode.FRAMES_OVER_BUDGET]
    assert codes(inspect(data, MeanSignal(), limits=Limits(max_decoded_pixels=3 * 65_536 + 360_000))) == []


def test_one_frame_is_always_within_the_budget() -> None:
    found = inspect(encode(scene(), "PNG"), MeanSignal(), limits=Limits(max_decoded_pixels=1))
    assert found.failures == ()
    assert found.media.frames_hashed == 1


def test_an_animation_that_promises_frames_it_does_not_have() -> None:
    samples = np.asarray(scene())
    data = write_png(samples, 8, 2, png_chunk(b"acTL", b"\0\0\0\x63\0\0\0\0"))
    found = inspect(data, MeanSignal())
    assert found.media.frames_hashed == 1
    assert codes(found) == [FailureCode.DECODE_FAILED]


class Stop(Exception):
    """The answer is no longer needed."""


class StoppedSource:
    """A source that nobody waits for any more."""

    data = encode(scene(), "PNG")

    def check(self) -> None:
        """Stop."""
        raise Stop


def test_a_stop_passes_through() -> None:
    with pytest.raises(Stop):
        inspect_media(StoppedSource(), BUILTIN_DECODERS, [MeanSignal()], DecodeOptions(), Limits())


@dataclass
class PluginDecoder:
    """A decoder for a made-up format, which fails on demand."""

    error: Exception | None = None
    swallow: bool = False
    name: str = "plugin"
    media_types: frozenset[str] = frozenset({"image/x-made-up"})
    width: int = 8
    height: int = 4
    frames_total: int = 1
    orientation: int = 1
    sequential: bool = False

    def sniff(self, head: bytes) -> str | None:
        """Made-up files begin with MADE."""
        return "image/x-made-up" if head.startswith(b"MADE") else None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> PluginDecoder:
        """Itself."""
        assert (media_type, options.max_pixels) == ("image/x-made-up", 1000)
        try:
            data.check()
        except Exception:
            if not self.swallow:
                raise
        return self

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """One grey ramp."""
        if self.error is not None:
            raise self.error
        for index in indices:
            array = np.arange(32, dtype=np.uint8).reshape(4, 8) * 8
            yield Pixels(array, 8, 4, frame=index)

    def close(self) -> None:
        """Nothing to do."""


def with_plugin(decoder: PluginDecoder, source: Source | None = None, max_pixels: int = 1000) -> Inspection:
    """Inspect a made-up file."""
    return inspect_media(
        source or BytesSource(b"MADE up"),
        [decoder, *BUILTIN_DECODERS],
        [MeanSignal()],
        DecodeOptions(),
        Limits(max_pixels=max_pixels),
    )


def test_a_plugins_decoder_knows_its_own_files() -> None:
    found = with_plugin(PluginDecoder())
    assert (found.media.decoder, found.media.media_type, found.failures) == ("plugin", "image/x-made-up", ())
    assert len(found.hashes) == 2


def test_a_plugins_decoder_that_raises_is_named() -> None:
    found = with_plugin(PluginDecoder(error=RuntimeError("payload")))
    assert codes(found) == [FailureCode.PLUGIN_FAILED]
    assert found.failures[0].detail == "decoder plugin raised RuntimeError"


def test_a_decoder_without_memory_is_said_to_be_so() -> None:
    found = with_plugin(PluginDecoder(error=MemoryError()))
    assert codes(found) == [FailureCode.OUT_OF_MEMORY]


def test_a_plugins_decoder_cannot_swallow_a_stop() -> None:
    class LateStop(BytesSource):
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == 2:
                raise Stop

    with pytest.raises(Stop):
        with_plugin(PluginDecoder(swallow=True), LateStop(b"MADE up"))


def test_a_plugins_decoder_that_forgets_the_limit_is_held_to_it() -> None:
    decoder = PluginDecoder(width=1000, height=2)
    assert codes(with_plugin(decoder)) == [FailureCode.TOO_MANY_PIXELS]
