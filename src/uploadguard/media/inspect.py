"""The inspection of one upload: from its bytes to hashes and facts, never pixels.

A pure function of its arguments, so that it can run anywhere: in line, in a thread, or in a sandboxed process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from uploadguard.media.base import (
    DecodeError,
    DecodeOptions,
    Decoder,
    Picture,
    Pixels,
    RefusedCodecError,
    Source,
    TooComplexError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedError,
)
from uploadguard.media.collector import HashCollector
from uploadguard.media.colour import is_odd_profile, tone_table, with_profile
from uploadguard.media.intruders import find_intruders
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.source import PartSource, WatchedSource
from uploadguard.media.structure import Embedded, Structure, Tally, read_structure
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.signals.base import PixelSignal

__all__ = ["STAGES", "Inspection", "Limits", "inspect_media"]

_CODES: tuple[tuple[type[DecodeError], FailureCode], ...] = (
    (TooManyPixelsError, FailureCode.TOO_MANY_PIXELS),
    (TooComplexError, FailureCode.TOO_COMPLEX),
    (UnsupportedError, FailureCode.UNSUPPORTED_FORMAT),
    (RefusedCodecError, FailureCode.CODEC_REFUSED),
    (TruncatedError, FailureCode.TRUNCATED),
    (DecodeError, FailureCode.DECODE_FAILED),
)

STAGES = ("structure", "open", "decode")
"""Of an inspection's timings, beside one for each signal type."""

_MIN_FRAME_COST_PIXELS = 65_536
"""What reaching a frame costs at least: an animation of a million tiny frames takes time too."""

_MAX_THUMBNAILS = 2
_ODD_PROFILE = "its colour profile shows another picture than its samples"


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
    """What an inspection found. ``timings_ms`` has :data:`STAGES` and one for each signal type."""

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
        self._structure = Structure()
        self._collector = HashCollector(signals, limits.max_frames_hashed, self._stage, self._source.check)
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
        collector = self._collector
        self._media = replace(self._media, scale=collector.scale, frames_hashed=collector.frames_hashed)
        failures = (*self._failures, *collector.failures, *collector.low_quality())
        return Inspection(self._media, collector.hashes, failures, self._timings_ms)

    def _inspect(self) -> None:
        head = bytes(self._source.data[:HEAD_BYTES])
        media_type, decoder = self._choose(head)
        self._media = replace(self._media, media_type=media_type)
        if decoder is None or media_type is None:
            seems = f"seems to be {media_type}, which no decoder reads" if media_type else "is of no known media type"
            self._fail(FailureCode.UNSUPPORTED_FORMAT, f"the file {seems}")
            return
        self._media = replace(self._media, decoder=decoder.name)
        try:
            self._read_structure(media_type)
            self._decode(decoder, media_type)
        except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the failure names it
            self._decoder_failed(decoder, error)
        for code, detail in self._structure.troubles.items():
            if all(failure.code is not code for failure in self._failures):
                self._fail(code, detail)

    def _read_structure(self, media_type: str) -> None:
        with self._stage("structure"):
            data, tally = self._source.data, Tally(self._limits)
            self._structure = read_structure(data, media_type, tally)
            find_intruders(data, media_type, self._structure, tally)
            self._source.picture_end = self._structure.end

    def _decode(self, decoder: Decoder, media_type: str) -> None:
        """Hash what the file shows, and then what it shows elsewhere."""
        unsure = False
        options = self._options
        if self._structure.gamma is not None or self._structure.transfer is not None:
            options = replace(options, tone=tone_table(self._structure))
        with self._stage("open"):
            picture = decoder.open(self._source, media_type, options)
        try:
            self._media = replace(
                self._media,
                width=picture.width,
                height=picture.height,
                orientation=picture.orientation,
                frames_total=picture.frames_total,
            )
            Tally(self._limits).frames(picture.frames_total)
            if not self._signals or self._is_too_large(picture.width, picture.height):
                return
            unsure = self._hash_frames(picture)
        finally:
            picture.close()
        if unsure:
            self._hash_again_in_colour(decoder, media_type)
        if is_odd_profile(self._structure.icc):
            self._hash_with_profile(decoder, media_type)
        self._hash_embedded()

    def _choose(self, head: bytes, *, built_in: bool = False) -> tuple[str | None, Decoder | None]:
        """The media type and the first decoder that takes it; decoders are asked to sniff only what is left over.

        ``built_in``: none of them is asked.
        """
        media_type = sniff(head)
        for decoder in self._decoders:
            if media_type in decoder.media_types:
                return media_type, decoder
        for decoder in () if built_in else self._decoders:
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
        """Hash every frame that the pixel budget reaches. Returns whether approximate luma left a hash unsure."""
        unsure = False
        decoded_pixels = 0
        total = picture.frames_total
        frames = iter(picture.frames(range(self._reach(picture))))
        try:
            while True:
                with self._stage("decode"):
                    pixels = next(frames, None)
                if pixels is None:
                    break
                unsure |= self._collector.add_frame(pixels) and pixels.approximate
                self._add_apertures(pixels)
                decoded_pixels += max(pixels.full_width * pixels.full_height, _MIN_FRAME_COST_PIXELS)
                if decoded_pixels >= self._limits.max_decoded_pixels and pixels.frame + 1 < total:
                    self._over_budget(pixels.frame + 1, total)
                    break
        except TruncatedError as error:
            if error.pixels is not None:
                self._collector.add_frame(error.pixels)
            raise
        if self._collector.left_out:
            detail = (
                f"{self._collector.frames_hashed} of {total} frames were hashed; of the others some differ from them"
            )
            self._fail(FailureCode.FRAMES_SAMPLED, detail)
        return unsure and total == 1

    def _reach(self, picture: Picture) -> int:
        """How many frames the pixel budget can reach, by the size of the first; at least one."""
        cost = max(picture.width * picture.height, _MIN_FRAME_COST_PIXELS)
        return max(1, min(picture.frames_total, -(-self._limits.max_decoded_pixels // cost)))

    def _over_budget(self, reached: int, total: int) -> None:
        self._fail(FailureCode.FRAMES_OVER_BUDGET, f"the pixel budget reaches {reached} of {total} frames")

    def _hash_again_in_colour(self, decoder: Decoder, media_type: str) -> None:
        """Decode once more: about one photo in a hundred has that many bits that hang on what luma leaves out."""
        pixels = self._first_frame(decoder, media_type, self._source, "scaled_rgb")
        self._collector.clear()
        self._collector.add_frame(pixels)

    def _first_frame(
        self, decoder: Decoder, media_type: str, source: WatchedSource, pixels: Literal["luma", "scaled_rgb", "rgb"]
    ) -> Pixels:
        with self._stage("decode"):
            picture = decoder.open(source, media_type, replace(self._options, pixels=pixels))
            try:
                if picture.frames_total > 1 and source is not self._source:
                    self._structure.trouble(FailureCode.PICTURES_UNHASHED, "a picture that follows is animated")
                return next(iter(picture.frames([0])))
            finally:
                picture.close()

    def _hash_with_profile(self, decoder: Decoder, media_type: str) -> None:
        """The first frame as its colour profile shows it."""
        stored = self._first_frame(decoder, media_type, self._source, "scaled_rgb")
        shown = with_profile(stored.array, self._structure.icc)
        if shown is not None:
            self._collector.add_face("profile", replace(stored, array=shown, approximate=False))
        if shown is None or self._media.frames_total > 1:
            self._structure.trouble(FailureCode.SHOWN_OTHERWISE, _ODD_PROFILE)

    def _add_apertures(self, pixels: Pixels) -> None:
        """What is left of the first frame where viewers cut it to a clean aperture."""
        if pixels.frame:
            return
        for number, (width, height, right, down) in enumerate(self._structure.clean_apertures):
            left, top = (
                (full - size + shift) // 2
                for full, size, shift in ((pixels.full_width, width, right), (pixels.full_height, height, down))
            )
            if pixels.scale != 1 or left < 0 or top < 0 or min(width, height) < 1:
                continue
            part = pixels.array[top : top + height, left : left + width]
            if part.shape[:2] == (height, width) and part.shape != pixels.array.shape:
                cut = replace(pixels, array=part.copy(), full_width=width, full_height=height, faces={})
                self._collector.add_face(f"aperture{number}", cut)

    def _hash_embedded(self) -> None:
        """Thumbnails, and pictures that follow the first one."""
        counts: Counter[str] = Counter()
        for part in self._structure.embedded:
            counts[part.face] += 1
            if part.face != "thumbnail" or counts[part.face] <= _MAX_THUMBNAILS:
                self._hash_part(part, f"{part.face}{counts[part.face] if counts[part.face] > 1 else ''}")

    def _hash_part(self, part: Embedded, name: str) -> None:
        source = WatchedSource(PartSource(self._source, part.start, part.stop))
        media_type, decoder = self._choose(bytes(source.data[:HEAD_BYTES]), built_in=True)
        try:
            if decoder is None or media_type is None:
                raise UnsupportedError("of no known media type")
            self._collector.add_face(name, self._first_frame(decoder, media_type, source, self._options.pixels))
        except TruncatedError as error:
            if error.pixels is not None:
                self._collector.add_face(name, error.pixels)
        except Exception as error:  # noqa: BLE001 - as for the file itself
            self._source.raise_interrupted()
            source.raise_interrupted()
            if part.face != "thumbnail":  # a thumbnail that cannot be read is shown by nobody
                detail = f"a picture that follows could not be decoded ({type(error).__name__})"
                self._structure.trouble(FailureCode.PICTURES_UNHASHED, detail)

    def _decoder_failed(self, decoder: Decoder, error: Exception) -> None:
        """Make an exception a failure, unless it is the source's own: that one is raised again."""
        self._source.raise_interrupted()
        for kind, code in _CODES:
            if isinstance(error, kind):
                self._fail(code, str(error))
                return
        if isinstance(error, MemoryError):
            self._fail(FailureCode.OUT_OF_MEMORY, f"decoder {decoder.name} ran out of memory")
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
