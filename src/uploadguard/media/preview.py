"""A small picture of an upload, for a person to look at: decoded as for a check, turned upright, scaled down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

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
from uploadguard.media.inspect import Limits
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.source import WatchedSource
from uploadguard.media.structure import Tally, read_structure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["small_picture"]

_MIN_FRAME_COST_PIXELS: Final = 65_536
"""What reaching a frame costs at least, as in an inspection."""


def small_picture(
    source: Source,
    decoders: Sequence[Decoder],
    options: DecodeOptions,
    limits: Limits,
    *,
    frame: int,
    max_side_pixels: int,
    grey: bool,
) -> NDArray[np.uint8]:
    """A frame's pixels, C-contiguous uint8, shape (h, w), or (h, w, 3) unless ``grey``, no side over the limit.

    Of a damaged file it is what can be decoded. Raises :class:`~uploadguard.media.base.DecodeError` or one of its
    kinds, what ``source.check()`` raises, and whatever a decoder of a plugin's raises.
    """
    watched = WatchedSource(source)
    watched.check()
    media_type, decoder = _choose(bytes(watched.data[:HEAD_BYTES]), decoders)
    tally = Tally(limits)
    structure = read_structure(watched.data, media_type, tally)
    watched.picture_end = structure.end
    options = replace(
        options, pixels="scaled_rgb", max_pixels=limits.max_pixels, max_side_pixels=limits.max_side_pixels
    )
    picture = decoder.open(watched, media_type, options)
    try:
        tally.frames(picture.frames_total)
        _check_reach(picture, frame, limits)
        pixels = _decoded(picture, frame)
    finally:
        picture.close()
    watched.raise_interrupted()
    return _reduced(pixels, picture.orientation, max_side_pixels, grey=grey)


def _choose(head: bytes, decoders: Sequence[Decoder]) -> tuple[str, Decoder]:
    media_type = sniff(head)
    for decoder in decoders:
        if media_type is not None and media_type in decoder.media_types:
            return media_type, decoder
    for decoder in decoders:
        own_type = decoder.sniff(head)
        if own_type is not None:
            return own_type, decoder
    seems = f"seems to be {media_type}, which no decoder reads" if media_type else "is of no known media type"
    raise UnsupportedError(f"the file {seems}")


def _check_reach(picture: Picture, frame: int, limits: Limits) -> None:
    """Refuse a frame that is not there, or too far to be decoded."""
    if not 0 <= frame < max(picture.frames_total, 1):
        raise DecodeError(f"the file has no frame {frame}; it has {picture.frames_total}, counted from 0")
    if picture.width * picture.height > limits.max_pixels:
        raise TooManyPixelsError(
            f"{picture.width} x {picture.height} pixels are more than the limit of {limits.max_pixels:,}"
        )
    cost = max(picture.width * picture.height, _MIN_FRAME_COST_PIXELS)
    if frame and picture.sequential and cost * (frame + 1) > limits.max_decoded_pixels:
        raise TooManyPixelsError(f"frame {frame} is beyond what may be decoded of an animation")


def _decoded(picture: Picture, frame: int) -> Pixels:
    try:
        return next(iter(picture.frames([frame])))
    except TruncatedError as error:
        if error.pixels is None:
            raise
        return error.pixels


def _reduced(pixels: Pixels, orientation: int, max_side_pixels: int, *, grey: bool) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels.array)
    image = image.convert("L" if grey else "RGB")
    longest = max(image.size)
    if longest > max_side_pixels:
        width, height = (max(1, round(side * max_side_pixels / longest)) for side in image.size)
        # Means over what each pixel covers: nothing finer than a pixel is left.
        image = image.resize((width, height), Image.Resampling.BOX)
    return np.ascontiguousarray(_upright(np.asarray(image), orientation))


def _upright(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turned and mirrored as the EXIF orientation asks for."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    return array
