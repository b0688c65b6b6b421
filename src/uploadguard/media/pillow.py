"""Decoders on Pillow.

Each format opens through its own plugin class instead of ``Image.open``: the sniffed format is forced, nothing else is
probed, and Pillow's process-wide bomb limit and truncation switch, which belong to the host, are neither needed nor
changed. Classes of our own stand in where Pillow's would rotate, parse EXIF on opening or lose a cut-off picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from uploadguard.media import headers
from uploadguard.media.base import (
    DecodeError,
    DecodeOptions,
    Pixels,
    Source,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedError,
)
from uploadguard.media.progressive import needed_scans
from uploadguard.media.source import MemoryFile, WatchedSource, library_errors

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["DAMAGED", "ENDS_EARLY", "PILLOW_DECODERS", "PillowDecoder", "check_size"]

ENDS_EARLY = "the file ends early"
DAMAGED = "the file is damaged inside"


@dataclass(frozen=True, slots=True)
class Opened:
    """A Pillow image with its header read, and what Pillow does not tell of it.

    ``width`` and ``height`` are the stored size, before any scaling by ``scale``. ``whole`` is False where the header
    shows a cut-off file.
    """

    image: ImageFile
    width: int
    height: int
    frames_total: int = 1
    orientation: int = 1
    scale: int = 1
    approximate: bool = False
    sequential: bool = False
    whole: bool = True


def check_size(width: int, height: int, options: DecodeOptions) -> None:
    """Raise :class:`TooManyPixelsError` for a picture beyond ``options.max_pixels``, or longer than any real one."""
    if max(width, height) > options.max_side_pixels:
        raise TooManyPixelsError(f"{width} x {height} pixels: a side is longer than {options.max_side_pixels:,}")
    if width * height > options.max_pixels:
        raise TooManyPixelsError(f"{width} x {height} pixels are more than the limit of {options.max_pixels:,}")


def _open_jpeg(source: WatchedSource, options: DecodeOptions) -> Opened:
    from uploadguard.media.pillow_plugins import JpegFile

    header = headers.jpeg_header(source.data)
    check_size(header.width, header.height, options)
    scalable = options.pixels != "rgb" and header.components != 4 and not header.lossless
    scale = _jpeg_scale(header.width, header.height, options) if scalable else 1
    luma = scalable and options.pixels == "luma"
    reduced = needed_scans(source.data, luma=luma, scale=scale) if header.progressive else None
    end = source.picture_end
    without_end = end is not None and header.interleaved and not header.progressive and not header.lossless
    data = source.data[: end - 2] if end is not None and without_end else reduced
    image = JpegFile(MemoryFile(source, data), header, luma=luma, scale=scale, without_end=without_end)
    return Opened(
        image,
        header.width,
        header.height,
        orientation=header.orientation,
        scale=scale,
        approximate=luma and header.components == 3,
    )


def _jpeg_scale(width: int, height: int, options: DecodeOptions) -> int:
    if options.jpeg_scale != "auto":
        return options.jpeg_scale
    return next((scale for scale in (4, 2) if min(width, height) // scale >= 512), 1)


def _open_png(source: WatchedSource, options: DecodeOptions) -> Opened:
    from PIL.PngImagePlugin import PngImageFile

    header = headers.png_header(source.data)
    check_size(header.width, header.height, options)
    image = PngImageFile(MemoryFile(source))  # type: ignore[arg-type]
    transparency = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparency, int):  # Pillow spreads the samples to 8 bits, but not this one
        image.info["transparency"] = transparency * 255 // (2**header.depth_bits - 1)
    elif image.mode == "RGB" and header.depth_bits == 16:  # a 16-bit colour cannot be found in 8-bit samples
        image.info.pop("transparency", None)
    frames_total = int(image.n_frames)
    return Opened(image, *image.size, frames_total, header.orientation, sequential=frames_total > 1)


def _open_gif(source: WatchedSource, options: DecodeOptions) -> Opened:
    from PIL.GifImagePlugin import GifImageFile

    header = headers.gif_header(source.data)
    check_size(header.width, header.height, options)
    image = GifImageFile(MemoryFile(source))  # type: ignore[arg-type]
    return Opened(image, *image.size, header.frames_total, sequential=header.frames_total > 1)


def _open_webp(source: WatchedSource, options: DecodeOptions) -> Opened:
    from PIL.WebPImagePlugin import WebPImageFile

    # libwebp takes the memory for its canvas when the file is opened.
    check_size(*headers.webp_size(source.data), options)
    image = WebPImageFile(MemoryFile(source))  # type: ignore[arg-type]
    frames_total = int(image.n_frames)
    orientation = headers.exif_orientation(image.info.get("exif"))
    return Opened(image, *image.size, frames_total, orientation, sequential=frames_total > 1)


def _open_avif(source: WatchedSource, options: DecodeOptions) -> Opened:
    from uploadguard.media.pillow_plugins import AvifFile

    image = AvifFile(MemoryFile(source))  # type: ignore[arg-type]
    check_size(*image.size, options)
    frames_total = int(image.n_frames)
    return Opened(
        image,
        *image.size,
        frames_total,
        headers.exif_orientation(image.info.get("exif")),
        sequential=frames_total > 1,
        whole=headers.is_bmff_complete(source.data),
    )


def _open_tiff(source: WatchedSource, options: DecodeOptions) -> Opened:
    from uploadguard.media.pillow_plugins import TiffFile

    if bytes(source.data[:4]) == b"MM\0+":
        raise UnsupportedError("a BigTIFF of big-endian byte order, which Pillow does not read")
    frames_total = headers.tiff_page_count(source.data)
    try:
        image = TiffFile(MemoryFile(source))  # type: ignore[arg-type]
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):
            raise
        raise UnsupportedError("a TIFF of a pixel format that Pillow does not read") from None
    check_size(*image.size, options)
    return Opened(image, *image.size, frames_total, image.orientation)


_BMP_RUN_LENGTH = frozenset({1, 2})
_MAX_RUN_LENGTH_PIXELS = 4_000_000
"""Pillow unpacks run lengths in Python: this many pixels can take five seconds."""


def _open_bmp(source: WatchedSource, options: DecodeOptions) -> Opened:
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(MemoryFile(source))  # type: ignore[arg-type]
    if image.info.get("compression") in _BMP_RUN_LENGTH:
        options = replace(options, max_pixels=min(options.max_pixels, _MAX_RUN_LENGTH_PIXELS))
    check_size(*image.size, options)
    return Opened(image, *image.size)


class PillowDecoder:
    """One format, decoded by Pillow."""

    name = "pillow"

    def __init__(self, media_type: str, opener: Callable[[WatchedSource, DecodeOptions], Opened]) -> None:
        self._media_type = media_type
        self._opener = opener
        self.media_types = frozenset({media_type})

    def sniff(self, head: bytes) -> str | None:  # noqa: ARG002 - the protocol's face
        """None: the library's own sniffing knows this type."""
        return None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> PillowPicture:
        """Read the header; see :class:`uploadguard.media.base.Decoder`."""
        source = data if isinstance(data, WatchedSource) else WatchedSource(data)
        with library_errors(source, f"Pillow cannot read the header of this {media_type}"):
            return PillowPicture(source, self._opener(source, options), media_type, options)


class PillowPicture:
    """A picture that Pillow has opened."""

    def __init__(self, source: WatchedSource, opened: Opened, media_type: str, options: DecodeOptions) -> None:
        self._source = source
        self._opened = opened
        self._options = options
        self._what = f"Pillow cannot decode this {media_type}"
        self.width = opened.width
        self.height = opened.height
        self.frames_total = opened.frames_total
        self.orientation = opened.orientation
        self.sequential = opened.sequential

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Decode these frames; see :class:`uploadguard.media.base.Picture`."""
        from uploadguard.media.canonical import from_pillow

        image, opened = self._opened.image, self._opened
        for index in indices:
            with library_errors(self._source, self._what):
                self._source.check()
                if index:
                    image.seek(index)
                    check_size(*image.size, self._options)
                trouble = self._load(index)
                samples: dict[str, Any] = getattr(image, "samples", {})
                array, faces = from_pillow(image, self._options, frame=index, **samples)
            width, height = (opened.width, opened.height) if index == 0 else image.size
            pixels = Pixels(array, width, height, opened.scale, index, opened.approximate, faces)
            if trouble is not None:
                if array.min() == array.max():
                    raise DecodeError(f"{trouble}, before any of the picture")
                raise TruncatedError(trouble, pixels)
            yield pixels

    def _load(self, index: int) -> str | None:
        """Decode the current frame. Returns what is wrong with it where a part of it could be decoded.

        After an error in the first frame Pillow still holds what it has filled in so far; dropping the tiles makes
        that the picture. A later frame is composed on the one before only in the end, so there is nothing to keep.
        """
        image = self._opened.image
        try:
            image.load()
        except Exception as error:
            self._source.raise_interrupted()
            if index or getattr(image, "_im", None) is None or isinstance(error, MemoryError):
                raise
            image.tile = []
            return ENDS_EARLY if "truncated" in str(error) else DAMAGED
        if getattr(image, "ended_early", False) or not self._opened.whole:
            return ENDS_EARLY
        if getattr(image, "ran_dry", False):
            return DAMAGED
        return None

    def close(self) -> None:
        """Let go of the pixels."""
        self._opened.image.close()


PILLOW_DECODERS = {
    media_type: PillowDecoder(media_type, opener)
    for media_type, opener in (
        ("image/jpeg", _open_jpeg),
        ("image/png", _open_png),
        ("image/webp", _open_webp),
        ("image/gif", _open_gif),
        ("image/avif", _open_avif),
        ("image/tiff", _open_tiff),
        ("image/bmp", _open_bmp),
    )
}
"""By media type. PNG is here for animations and as the second try after libvips."""
