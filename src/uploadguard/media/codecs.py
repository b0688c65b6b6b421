"""The codecs that decoding rests on: their versions, and versions with known holes.

Wheels bundle their codecs, so the system's security updates do not reach them. The table names the newest hole of each
codec that a decoder here can be led into; holes in encoders, tools and formats that are not decoded are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from uploadguard.logs import log
from uploadguard.media.base import DecodeOptions, Decoder, Picture, RefusedCodecError, Source

__all__ = ["KNOWN_HOLES", "Hole", "RefusingDecoder", "codec_versions", "log_holes", "refused_codecs", "without_holes"]

NOT_INSTALLED = "not installed"
NOT_TOLD = "not told"

_PILLOW_FEATURES = {
    "libjpeg_turbo": "libjpeg-turbo",
    "zlib_ng": "zlib-ng",
    "zlib": "zlib",
    "libtiff": "libtiff",
    "webp": "libwebp",
    "avif": "libavif",
    "jpg_2000": "openjpeg",
    "littlecms2": "lcms2",
}
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Hole:
    """Versions of ``codec`` before ``fixed_in`` can be attacked by ``media_types``; ``hole`` is the CVE's number."""

    codec: str
    fixed_in: str
    hole: str
    media_types: frozenset[str]
    version: str = ""

    def __str__(self) -> str:
        return f"{self.codec} {self.version} has {self.hole}, which {self.fixed_in} fixes"


_PILLOW_TYPES = frozenset(
    {"image/jpeg", "image/png", "image/gif", "image/webp", "image/tiff", "image/avif", "image/bmp"}
)
_WITH_PROFILES = (_PILLOW_TYPES | {"image/heic", "image/heif"}) - {"image/gif", "image/bmp"}
_AVIF, _HEIF = frozenset({"image/avif"}), frozenset({"image/heic", "image/heif"})

KNOWN_HOLES: tuple[Hole, ...] = (
    Hole("Pillow", "13.0.0", "CVE-2026-96639", _PILLOW_TYPES),
    Hole("libwebp", "1.3.2", "CVE-2023-4863", frozenset({"image/webp"})),
    Hole("libtiff", "4.7.1", "CVE-2025-9900", frozenset({"image/tiff"})),
    Hole("libavif", "1.3.0", "CVE-2025-48174", _AVIF),
    Hole("dav1d", "1.4.0", "CVE-2024-1580", _AVIF),
    Hole("libheif", "1.22.1", "CVE-2026-49271", _HEIF),
    Hole("libde265", "1.0.19", "CVE-2026-45382", _HEIF),
    Hole("lcms2", "2.19", "CVE-2026-41254", _WITH_PROFILES),
)
"""The newest hole of each codec that untrusted media can reach here, by its public record."""


def codec_versions() -> dict[str, str]:
    """Versions by name; ``not installed`` where an optional part is missing, ``not told`` where a build hides it.

    Imports the decoders.
    """
    import pyvips
    from PIL import __version__ as pillow_version
    from PIL import features

    found = {"Pillow": pillow_version}
    for feature, name in _PILLOW_FEATURES.items():
        version = features.version(feature)
        if version is not None:
            found[name] = str(version)
    found.update(_av1_versions())
    found["libvips"] = ".".join(str(pyvips.version(part)) for part in range(3))
    found["libpng in libvips"] = NOT_TOLD
    found.update(_heif_versions())
    return found


def refused_codecs(versions: Mapping[str, str]) -> list[Hole]:
    """The codecs among ``versions`` (as from :func:`codec_versions`) that have a known hole, each with its version.

    Versions that are not told are not refused: what they are cannot be known.
    """
    refused = []
    for hole in KNOWN_HOLES:
        version = versions.get(hole.codec, NOT_INSTALLED)
        numbers = _numbers(version)
        if numbers and numbers < _numbers(hole.fixed_in):
            refused.append(Hole(hole.codec, hole.fixed_in, hole.hole, hole.media_types, version))
    return refused


class RefusingDecoder:
    """Takes the media types that a known hole reaches, and decodes none of them."""

    name = "refused"

    def __init__(self, holes: Sequence[Hole]) -> None:
        self._holes = tuple(holes)
        self.media_types = frozenset[str]().union(*(hole.media_types for hole in holes))

    def sniff(self, head: bytes) -> str | None:
        """No type is this decoder's alone."""
        del head
        return None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> Picture:
        """Always raises :class:`RefusedCodecError`, which names the codec."""
        del data, options
        raise RefusedCodecError(str(next(hole for hole in self._holes if media_type in hole.media_types)))


def without_holes(decoders: Sequence[Decoder], allowed: Collection[str]) -> tuple[tuple[Decoder, ...], list[Hole]]:
    """The decoders, with those of codecs that have a known hole refused, and the holes.

    Decoders of plugins rest on codecs that are not known here, and go before what is refused. ``allowed`` names codecs
    to use all the same. Imports the decoders.
    """
    holes = [hole for hole in refused_codecs(codec_versions()) if hole.codec not in allowed]
    if not holes:
        return tuple(decoders), []
    own = [decoder for decoder in decoders if type(decoder).__module__.startswith("uploadguard.media.")]
    return (*(decoder for decoder in decoders if decoder not in own), RefusingDecoder(holes), *own), holes


def log_holes(holes: Iterable[str]) -> None:
    """Tell the operator which codecs are not used, and why."""
    for hole in holes:
        log.error("%s: uploads that need it are not decoded; upgrade it, or name it in media.allow_codecs", hole)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers, without zeros at the end: 2.19 and 2.19.0 are the same."""
    match = _NUMBER.match(version)
    numbers = [int(part) for part in match[0].split(".")] if match is not None else []
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _av1_versions() -> dict[str, str]:
    try:
        from PIL import _avif
    except ImportError:
        return {"libavif": NOT_INSTALLED}
    # "dav1d [dec]:1.5.3-0-g1234567, aom [enc]:3.14.1"
    parts = (part.partition(":") for part in _avif.codec_versions().split(", "))
    return {name.partition(" ")[0]: version for name, _, version in parts if version}


def _heif_versions() -> dict[str, str]:
    try:
        import pi_heif
    except ImportError:
        return {"libheif": NOT_INSTALLED}
    # "libde265 HEVC decoder, version 1.1.0"
    texts = pi_heif.libheif_info().get("decoders", {}).items()
    decoders = {name: text.rpartition("version ")[2] for name, text in texts if "version " in text}
    return {"pi-heif": pi_heif.__version__, "libheif": pi_heif.libheif_version(), **decoders}
