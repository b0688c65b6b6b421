"""Hashes of one medium, without a hash set or a verdict: for lists of one's own, for benchmarks, for a look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from uploadguard.config import Settings
from uploadguard.media.base import DecodeOptions
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.plugins import Plugins
from uploadguard.signals.base import DigestSignal, PixelSignal
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Data, read_upload

__all__ = ["HashedMedia", "MediaHasher", "decode_options", "hash_media", "media_limits"]


def decode_options(settings: Settings) -> DecodeOptions:
    """How to decode. Whether RGB is needed, the signal types say."""
    return DecodeOptions(jpeg_scale=settings.signals.pdq.jpeg_scale, background=settings.media.background_rgb)


def media_limits(settings: Settings) -> Limits:
    """The bounds on one inspection."""
    return Limits(**{field.name: getattr(settings.media, field.name) for field in fields(Limits)})


@dataclass(frozen=True, slots=True)
class HashedMedia:
    """The hashes of one medium.

    ``hashes`` holds the digests, then for each frame the hashes of the picture and of its variants. ``failures`` says
    what is missing. ``timings_ms`` is wall-clock milliseconds by stage.
    """

    media: Media
    hashes: tuple[Hash, ...]
    failures: tuple[Failure, ...]
    timings_ms: Mapping[str, float]

    @property
    def complete(self) -> bool:
        """Whether all there is to hash was hashed. A hash of low quality counts."""
        return all(failure.code is FailureCode.LOW_QUALITY for failure in self.failures)

    def to_dict(self) -> dict[str, Any]:
        """JSON types. Hashes are hex, without those of variants.

        ``hashes`` has the digests and the first frame's perceptual hashes by signal type; ``frames``, where there is
        more than one, those of every frame.
        """
        own = [item for item in self.hashes if item.variant == "original"]
        first = {item.signal_type: item for item in reversed(own)}
        media = self.media
        record: dict[str, Any] = {
            "hashes": {item.signal_type: item.value.hex() for item in own if first[item.signal_type] is item},
            "pdq_quality": first["pdq"].quality if "pdq" in first else None,
            "media_type": media.media_type,
            "size_bytes": media.size_bytes,
            "width": media.width,
            "height": media.height,
            "orientation": media.orientation,
            "frames_total": media.frames_total,
            "frames_hashed": media.frames_hashed,
            "failures": [{"code": f.code.value, "detail": f.detail, "frame": f.frame} for f in self.failures],
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }
        if media.frames_hashed > 1:
            frames: dict[int, dict[str, Any]] = {}
            for item in own:
                if item.quality is not None or item.frame > 0:
                    frame = frames.setdefault(item.frame, {"frame": item.frame, "hashes": {}, "pdq_quality": None})
                    frame["hashes"][item.signal_type] = item.value.hex()
                    if item.signal_type == "pdq":
                        frame["pdq_quality"] = item.quality
            record["frames"] = list(frames.values())
        return record


class MediaHasher:
    """Hashes media as a Guard with the same settings does. Safe to share between threads.

    Raises what :class:`~uploadguard.plugins.Plugins` raises, and :class:`~uploadguard.errors.ConfigError` for a signal
    type that is enabled and not registered.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings = settings if settings is not None else Settings()
        plugins = Plugins(settings)
        signals = plugins.enabled_signals()
        self._digest_signals = [signal for signal in signals if isinstance(signal, DigestSignal)]
        self._pixel_signals = [signal for signal in signals if isinstance(signal, PixelSignal)]
        self._decoders = plugins.decoders
        self._options = decode_options(settings)
        self._limits = media_limits(settings)

    def hash(self, data: Data) -> HashedMedia:
        """Hash bytes, a path or a binary file object.

        Raises :class:`~uploadguard.errors.MediaReadError`; whatever is wrong with the media is in the result.
        """
        started = time.perf_counter()
        upload = read_upload(data, MultiDigest(self._digest_signals), self._settings.media.max_file_bytes)
        read = time.perf_counter()
        if not upload.digested and upload.content is not None:
            upload.digest.update(upload.content)
        digests = tuple(Hash(name, value) for name, value in upload.digest.digests())
        digested = time.perf_counter()
        if upload.content is None:
            detail = f"{upload.size_bytes} bytes, over media.max_file_bytes; only its digests were computed"
            inspection = Inspection(Media(upload.size_bytes), (), (Failure(FailureCode.TOO_LARGE, detail),), {})
        else:
            source = BytesSource(upload.content)
            inspection = inspect_media(source, self._decoders, self._pixel_signals, self._options, self._limits)
        timings_ms = {
            "read": (read - started) * 1e3,
            "digests": (digested - read) * 1e3,
            **inspection.timings_ms,
            "total": (time.perf_counter() - started) * 1e3,
        }
        return HashedMedia(inspection.media, (*digests, *inspection.hashes), inspection.failures, timings_ms)


def hash_media(data: Data, settings: Settings | None = None) -> HashedMedia:
    """Hash one medium; see :class:`MediaHasher`, which spares the preparations where there are many."""
    return MediaHasher(settings).hash(data)
