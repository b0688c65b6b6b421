"""Hashes of one medium, without a hash set or a verdict: for lists of one's own, for benchmarks, for a look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from uploadguard.config import Settings
from uploadguard.logs import log
from uploadguard.media.base import DecodeOptions
from uploadguard.media.codecs import log_holes, without_holes
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.plugins import Plugins
from uploadguard.sandbox.inspector import SandboxedInspector
from uploadguard.sandbox.parts import Job
from uploadguard.signals.base import DigestSignal, PixelSignal
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Data, read_upload

__all__ = [
    "HashedMedia",
    "MediaHasher",
    "decode_options",
    "hash_media",
    "inspection_job",
    "media_limits",
    "open_sandbox",
]


def decode_options(settings: Settings) -> DecodeOptions:
    """How to decode. Whether RGB is needed, the signal types say."""
    return DecodeOptions(jpeg_scale=settings.signals.pdq.jpeg_scale, background=settings.media.background_rgb)


def media_limits(settings: Settings) -> Limits:
    """The bounds on one inspection."""
    return Limits(**{field.name: getattr(settings.media, field.name) for field in fields(Limits)})


def inspection_job(settings: Settings, plugins: Plugins) -> Job:
    """What uploads are decoded and hashed with. Workers refuse codecs with known holes by themselves."""
    decoders = plugins.decoders
    if settings.sandbox.isolation == "none":
        decoders, holes = without_holes(decoders, settings.media.allow_codecs)
        log_holes([str(hole) for hole in holes])
    return Job(
        decoders=decoders,
        signals=[signal for signal in plugins.enabled_signals() if isinstance(signal, PixelSignal)],
        options=decode_options(settings),
        limits=media_limits(settings),
        allow_codecs=settings.media.allow_codecs,
    )


def open_sandbox(settings: Settings, job: Job, plugins: Plugins) -> SandboxedInspector | None:
    """The worker processes to decode in; None where the settings want it done in this process.

    Raises as :class:`~uploadguard.sandbox.inspector.SandboxedInspector` does.
    """
    if settings.sandbox.isolation != "none":
        return SandboxedInspector(settings.sandbox, job, plugins, max_upload_bytes=settings.media.max_file_bytes)
    log.warning(
        'sandbox.isolation is "none": a file that breaks a decoder breaks this process, and sandbox.deadline_s and '
        "sandbox.max_memory_bytes hold only as far as decoders cooperate; for trusted input only"
    )
    return None


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
    """Hashes media as a Guard with the same settings does. Safe to share between threads. Close it in the end.

    Raises what :class:`~uploadguard.plugins.Plugins` raises, and :class:`~uploadguard.errors.ConfigError` for a signal
    type that is enabled and not registered.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings = settings if settings is not None else Settings()
        plugins = Plugins(settings)
        self._digest_signals = [signal for signal in plugins.enabled_signals() if isinstance(signal, DigestSignal)]
        self._job = inspection_job(settings, plugins)
        self._sandbox = open_sandbox(settings, self._job, plugins)

    def close(self) -> None:
        """End the worker processes."""
        if self._sandbox is not None:
            self._sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
            inspection = self._inspect(upload.content)
        timings_ms = {
            "read": (read - started) * 1e3,
            "digests": (digested - read) * 1e3,
            **inspection.timings_ms,
            "total": (time.perf_counter() - started) * 1e3,
        }
        return HashedMedia(inspection.media, (*digests, *inspection.hashes), inspection.failures, timings_ms)

    def _inspect(self, content: bytes | memoryview) -> Inspection:
        if self._sandbox is None or not content:
            job = self._job
            return inspect_media(BytesSource(content), job.decoders, job.signals, job.options, job.limits)
        if self._sandbox.pool.is_cold:
            self._sandbox.prewarm()
        return self._sandbox.inspection(content, time.monotonic() + self._settings.sandbox.deadline_s).result()


def hash_media(data: Data, settings: Settings | None = None) -> HashedMedia:
    """Hash one medium; see :class:`MediaHasher`, which spares the preparations where there are many."""
    with MediaHasher(settings) as hasher:
        return hasher.hash(data)
