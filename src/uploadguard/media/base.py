"""What a decoder is, and what it hands over: canonical pixels.

Canonical pixels are 8-bit sRGB-like samples as stored in the file: palette looked up, CMYK turned to RGB, 16 bit cut
to its high byte, alpha laid over the configured background, EXIF orientation *not* applied (the dihedral variants of a
hash cover it), ICC profile not applied. What viewers may show besides is a *face* of the frame. Laying a sample c of
alpha a over background b gives ``(c * a + b * (255 - a) + 127) // 255``: the nearest integer, all in 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "DecodeError",
    "DecodeOptions",
    "Decoder",
    "Picture",
    "Pixels",
    "RefusedCodecError",
    "Source",
    "TooComplexError",
    "TooManyPixelsError",
    "TruncatedError",
    "UnsupportedError",
]


class DecodeError(Exception):
    """The media could not be decoded. The text is one sentence for the operator and holds no payload."""


class UnsupportedError(DecodeError):
    """The media is of a kind that this decoder does not read (a pixel format, a codec)."""


class RefusedCodecError(DecodeError):
    """The codec for this media type has a known hole; none of the media was given to it."""


class TooManyPixelsError(DecodeError):
    """The header promises a frame of more than ``DecodeOptions.max_pixels``; none of it was decoded."""


class TooComplexError(DecodeError):
    """The file holds more metadata, parts, nesting, bands or frames than the limits allow; nothing was decoded."""


class TruncatedError(DecodeError):
    """The media ended early or is damaged inside. ``pixels`` holds what could be decoded, if anything."""

    def __init__(self, reason: str, pixels: Pixels | None = None) -> None:
        super().__init__(reason)
        self.pixels = pixels


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """One frame of canonical pixels.

    ``array`` is C-contiguous uint8: shape (h, w) for luma, (h, w, 3) for RGB. ``full_width`` and ``full_height`` are
    the stored picture's size in pixels; with ``scale`` s the array holds means over s by s blocks of it, so that
    h = ceil(full_height / s) and w = ceil(full_width / s). ``approximate`` says that the luma is the file's own, which
    differs a little from that of RGB pixels, since these are rounded and clipped. ``faces`` holds, by name, what else
    viewers may show of this frame: over another background, without its transparency, with its tone curve.
    """

    array: NDArray[np.uint8]
    full_width: int
    full_height: int
    scale: int = 1
    frame: int = 0
    approximate: bool = False
    faces: Mapping[str, Pixels] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return f"Pixels({self.full_width}x{self.full_height}, scale={self.scale}, frame={self.frame})"

    @property
    def is_luma(self) -> bool:
        """Whether there is one plane instead of three."""
        return self.array.ndim == 2


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How to decode.

    ``pixels`` is what the signal types need: with ``luma`` a decoder gives one plane where the format has or can give
    one, and RGB otherwise; with ``rgb`` it always gives three planes at full size, grey pictures with R = G = B; with
    ``scaled_rgb`` it gives three planes, smaller where the format can scale while decoding.
    ``jpeg_scale`` is ``auto`` (the smallest of 1, 1/2, 1/4 that keeps the shorter side at 512 px or more), or a fixed
    1, 2, 4 or 8; it does not act on ``rgb``, nor on formats that cannot scale while decoding. ``background`` is the RGB
    colour that lies under transparent pixels. ``tone`` is a table of 65,536 bytes from 16-bit samples to the 8-bit ones
    that a viewer makes of them, where those are far from the stored ones; 8-bit samples count 257-fold. ``max_pixels``
    is the most that one frame may have, inclusive: width times height as stored; ``max_side_pixels`` is the longest
    side, inclusive: JPEG goes no further than its default, and filtering takes memory for each column, whatever the
    height.
    """

    pixels: Literal["luma", "rgb", "scaled_rgb"] = "luma"
    jpeg_scale: Literal["auto", 1, 2, 4, 8] = "auto"
    background: tuple[int, int, int] = (255, 255, 255)
    tone: bytes | None = None
    max_pixels: int = 100_000_000
    max_side_pixels: int = 65_535


class Picture(Protocol):
    """An opened picture: the header is read, no pixel is decoded yet."""

    @property
    def width(self) -> int:
        """Stored width in pixels."""

    @property
    def height(self) -> int:
        """Stored height in pixels."""

    @property
    def frames_total(self) -> int:
        """The number of frames; 1 for a still."""

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8; 1 where there is none."""

    @property
    def sequential(self) -> bool:
        """Whether a frame can only be reached by decoding all frames before it, as in animations."""

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Decode the frames of these ascending indices. Raises :class:`DecodeError` or one of its kinds."""

    def close(self) -> None:
        """Let go of the file and its pixels."""


@runtime_checkable
class Decoder(Protocol):
    """Turns bytes of certain media types into canonical pixels."""

    @property
    def name(self) -> str:
        """Shown in decisions: ``pillow``, ``pyvips``."""

    @property
    def media_types(self) -> frozenset[str]:
        """The sniffed media types it takes: ``image/jpeg``. The first registered decoder of a type is used."""

    def sniff(self, head: bytes) -> str | None:
        """The media type that the first 4,096 bytes show, if it is one that this decoder alone knows; else None."""

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> Picture:
        """Read the header; no pixel memory is taken before ``options.max_pixels`` is checked.

        Raises :class:`DecodeError` or one of its kinds, and what ``data.check()`` raises, unchanged.
        """


class Source(Protocol):
    """The upload's bytes, in memory."""

    @property
    def data(self) -> bytes | memoryview:
        """All of them."""

    def check(self) -> None:
        """Called now and then while decoding; raises when the answer is no longer needed."""
