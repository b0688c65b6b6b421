"""The inspection of one upload: from its bytes to hashes and facts, never pixels.

A pure function of its arguments, so that it can run anywhere: in line, in a thread, or in a sandboxed process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from uploadguard.media.base import (
    DecodeError,
    DecodeOptions,
    Decoder,
    Picture,
    Pixels,
    Source,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedError,
)
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.source import WatchedSource
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.signals.base import PixelSignal

__all__ = ["Inspection", "Limits", "inspect_media"]

_CODES: tuple[tuple[type[DecodeError], FailureCode], ...] = (
    (TooManyPixelsError, FailureCode.TOO_MANY_PIXELS),
    (UnsupportedError, FailureCode.UNSUPPORTED_FORMAT),
    (TruncatedError, FailureCode.TRUNCATED),
    (DecodeError, FailureCode.DECODE_FAILED),
)

_MIN_FRAME_COST_PIXELS = 65_536
"""What reaching a frame costs at least: an animation of a million tiny frames takes time too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one inspection, all inclusive.

    ``max_pixels`` is width times height of one frame, ``max_decoded_pixels`` the sum over all frames that must be
    decoded to reach the ones that are hashed, ``max_frames_hashed`` how many of an animation's frames are hashed.
    ``max_bands`` is samples of a pixel. Metadata is all of a file but its pixels: its bytes, unpacked where they are
    packed, its parts (segments, chunks, boxes, directory entries), and how deep they nest.
    """

    max_pixels: int = 100_000_000
    max_decoded_pixels: int = 400_000_000
    max_frames_hashed: int = 64
    max_side_pixels: int = 65_535
    max_bands: int = 5
    max_frames: int = 10_000
    max_metadata_bytes: int = 67_108_864
    max_metadata_parts: int = 20_000
    max_metadata_depth: int = 12


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection found. ``timings_ms`` has the stages ``open``, ``decode`` and one for each signal type."""

    media: Media
    hashes: tuple[Hash, ...]
    failures: tuple[Failure, ...]
    timings_ms: dict[str, float]


def inspect_media(
    source: Source,
    decoders: Sequence[Decoder],
    signals: Sequence[PixelSignal],
    options: DecodeOptions,
    limits: Limits,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Inspection:
    """Sniff, open, check the limits, decode, hash.

    Whatever is wrong with the upload, a decoder or a signal type becomes a failure in the result; only what
    ``source.check()`` raises passes through. ``decoders`` are asked in order; RGB is decoded if ``options`` or any
    signal type needs it, and ``limits.max_pixels`` takes the place of the one in ``options``.
    """
    pixels = "rgb" if any(signal.pixels == "rgb" for signal in signals) else options.pixels
    options = replace(options, pixels=pixels, max_pixels=limits.max_pixels, max_side_pixels=limits.max_side_pixels)
    return _Inspector(WatchedSource(source), decoders, signals, options, limits, clock).run()


class _Inspector:
    """One inspection under way: gathers what :class:`Inspection` will hold."""

    def __init__(
        self,
        source: WatchedSource,
        decoders: Sequence[Decoder],
        signals: Sequence[PixelSignal],
        options: DecodeOptions,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._decoders = decoders
        self._signals = signals
        self._options = options
        self._limits = limits
        self._clock = clock
        self._media = Media(len(source.data))
        self._hashes: list[Hash] = []
        self._failures: list[Failure] = []
        self._timings_ms: dict[str, float] = {}

    def run(self) -> Inspection:
        """Go through all stages."""
        if not len(self._source.data):
            self._fail(FailureCode.EMPTY_FILE, "the file is empty")
        else:
            self._source.check()
            self._inspect()
            self._source.raise_interrupted()
            self._judge_quality()
        return Inspection(self._media, tuple(self._hashes), tuple(self._failures), self._timings_ms)

    def _inspect(self) -> None:
        head = bytes(self._source.data[:HEAD_BYTES])
        media_type, decoder = self._choose(head)
        self._media = replace(self._media, media_type=media_type)
        if decoder is None or media_type is None:
            seems = f"seems to be {media_type}, which no decoder reads" if media_type else "is of no known media type"
            self._fail(FailureCode.UNSUPPORTED_FORMAT, f"the file {seems}")
            return
        self._media = replace(self._media, decoder=decoder.name)
        unsure = False
        try:
            with self._stage("open"):
                picture = decoder.open(self._source, media_type, self._options)
            try:
                self._media = replace(
                    self._media,
                    width=picture.width,
                    height=picture.height,
                    orientation=picture.orientation,
                    frames_total=picture.frames_total,
                )
                if self._signals and not self._is_too_large(picture.width, picture.height):
                    unsure = self._hash_frames(picture)
            finally:
                picture.close()
            if unsure:
                self._hash_again_in_colour(decoder, media_type)
        except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the failure names it
            self._decoder_failed(decoder, error)

    def _choose(self, head: bytes) -> tuple[str | None, Decoder | None]:
        """The media type and the first decoder that takes it; decoders are asked to sniff only what is left over."""
        media_type = sniff(head)
        for decoder in self._decoders:
            if media_type in decoder.media_types:
                return media_type, decoder
        for decoder in self._decoders:
            try:
                own_type = decoder.sniff(head)
            except Exception as error:  # noqa: BLE001 - as above
                self._decoder_failed(decoder, error)
                continue
            if own_type is not None:
                return own_type, decoder
        return media_type, None

    def _is_too_large(self, width: int, height: int) -> bool:
        if width * height <= self._limits.max_pixels:
            return False
        detail = f"{width} x {height} pixels are more than the limit of {self._limits.max_pixels:,}"
        self._fail(FailureCode.TOO_MANY_PIXELS, detail)
        return True

    def _hash_frames(self, picture: Picture) -> bool:
        """Hash the chosen frames. Returns whether approximate luma left a hash of a still unsure."""
        unsure = False
        frames = iter(picture.frames(self._choose_frames(picture)))
        try:
            while True:
                with self._stage("decode"):
                    pixels = next(frames, None)
                if pixels is None:
                    return unsure and picture.frames_total == 1
                unsure |= self._hash(pixels) and pixels.approximate
        except TruncatedError as error:
            if error.pixels is not None:
                self._hash(error.pixels)
            raise

    def _hash_again_in_colour(self, decoder: Decoder, media_type: str) -> None:
        """Decode once more: about one photo in a hundred has that many bits that hang on what luma leaves out."""
        with self._stage("decode"):
            picture = decoder.open(self._source, media_type, replace(self._options, pixels="scaled_rgb"))
            try:
                pixels = next(iter(picture.frames([0])))
            finally:
                picture.close()
        self._hashes.clear()
        self._media = replace(self._media, frames_hashed=0)
        self._hash(pixels)

    def _choose_frames(self, picture: Picture) -> list[int]:
        """The first frame and others evenly spaced, as far as the pixel budget reaches."""
        total, most = picture.frames_total, self._limits.max_frames_hashed
        cost = max(picture.width * picture.height, _MIN_FRAME_COST_PIXELS)
        affordable = max(1, self._limits.max_decoded_pixels // cost)
        reach = min(total, affordable) if picture.sequential else total
        count = min(reach, most, affordable)
        if reach < total or count < min(total, most):
            detail = f"the pixel budget reaches {min(reach, affordable)} of {total} frames"
            self._fail(FailureCode.FRAMES_OVER_BUDGET, detail)
        elif total > most:
            self._fail(FailureCode.FRAMES_SAMPLED, f"{count} of {total} frames were hashed, evenly spaced")
        if count < 2:
            return [0]
        return [index * (reach - 1) // (count - 1) for index in range(count)]

    def _hash(self, pixels: Pixels) -> bool:
        """Hash one frame with every signal type. Returns whether one of them is unsure of its hash."""
        unsure = False
        self._media = replace(self._media, scale=pixels.scale, frames_hashed=self._media.frames_hashed + 1)
        for signal in self._signals:
            self._source.check()
            with self._stage(signal.name):
                unsure |= self._hash_with(signal, pixels)
        return unsure

    def _hash_with(self, signal: PixelSignal, pixels: Pixels) -> bool:
        try:
            result = signal.hash_pixels(pixels)
            values = {"original": result.value, **result.variants}
            if any(len(value) != signal.length_bytes for value in values.values()):
                raise ValueError("a hash of the wrong length")
        except Exception as error:  # noqa: BLE001 - a signal type may raise anything; the failure names it
            detail = f"{signal.name} raised {type(error).__name__}"
            self._fail(FailureCode.SIGNAL_FAILED, detail, frame=pixels.frame)
            return False
        self._hashes.extend(
            Hash(signal.name, value, result.quality, variant, pixels.frame) for variant, value in values.items()
        )
        return result.unsure

    def _judge_quality(self) -> None:
        """One failure for each signal type whose hashes are all below its bar; one usable frame is enough."""
        for signal in self._signals:
            qualities = [h.quality for h in self._hashes if h.signal_type == signal.name and h.quality is not None]
            if qualities and max(qualities) < signal.min_quality:
                detail = f"{signal.name} quality is {max(qualities)}, below {signal.min_quality}"
                self._fail(FailureCode.LOW_QUALITY, detail)

    def _decoder_failed(self, decoder: Decoder, error: Exception) -> None:
        """Make an exception a failure, unless it is the source's own: that one is raised again."""
        self._source.raise_interrupted()
        for kind, code in _CODES:
            if isinstance(error, kind):
                self._fail(code, str(error))
                return
        self._fail(FailureCode.PLUGIN_FAILED, f"decoder {decoder.name} raised {type(error).__name__}")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            self._timings_ms[name] = self._timings_ms.get(name, 0.0) + (self._clock() - started) * 1e3

    def _fail(self, code: FailureCode, detail: str, *, frame: int | None = None) -> None:
        self._failures.append(Failure(code, detail, frame))
