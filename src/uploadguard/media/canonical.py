"""The step from a decoder's samples to canonical pixels; the rules stand in :mod:`uploadguard.media.base`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uploadguard.media.base import DecodeOptions, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["flatten", "from_pillow", "shaped"]

_STRIP_ROWS = 64
"""Rows blended at once, so that the 16-bit intermediates stay in the cache."""


def from_pillow(
    image: Image.Image, options: DecodeOptions, *, sample_bits: int = 16, inverted: bool = False
) -> NDArray[np.uint8]:
    """The canonical pixels of a loaded Pillow image, shape (h, w) or (h, w, 3).

    ``sample_bits`` and ``inverted`` tell of 16-bit modes what Pillow does not: how many bits are in use, and whether 0
    is white. Raises :class:`UnsupportedError` for a mode whose white is not defined.
    """
    transparency = image.info.get("transparency")
    mode = image.mode
    background = options.background
    if mode == "1":
        image, mode = image.convert("L"), "L"
    elif mode in {"P", "PA"}:
        alpha = mode == "PA" or transparency is not None or (image.palette is not None and image.palette.mode == "RGBA")
        image = image.convert("RGBA" if alpha else "RGB")
        mode, transparency = image.mode, None
    elif mode in {"La", "RGBa"}:
        image = image.convert(mode.upper())
        mode = image.mode
    elif mode in {"CMYK", "YCbCr", "RGBX"}:
        image = image.convert("RGB")
        mode = "RGB"

    if mode in {"LA", "RGBA"}:
        array = flatten(np.asarray(image), background)
    elif mode == "L":
        array = np.asarray(image)
        if isinstance(transparency, int):
            array = _lay_over(array, array != transparency, background)
    elif mode == "RGB":
        array = np.asarray(image)
        if isinstance(transparency, tuple):
            array = _lay_over(array, (array != transparency).any(axis=2), background)
    elif mode.startswith("I;16"):
        wide = np.asarray(image)
        array = (wide >> (sample_bits - 8)).astype(np.uint8)
        if inverted:
            array = ~array
        if isinstance(transparency, int):
            array = _lay_over(array, wide != transparency, background)
    else:
        raise UnsupportedError(f"samples of the kind {mode} have no defined white")
    return shaped(array, options)


def shaped(array: NDArray[np.uint8], options: DecodeOptions) -> NDArray[np.uint8]:
    """C-contiguous, and with three planes unless ``options.pixels`` is ``luma``."""
    if array.ndim == 2 and options.pixels != "luma":
        return np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array)


def flatten(samples: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Grey or colour samples with alpha as the last of their 2 or 4 bands, laid over ``background``.

    Grey stays one plane where nothing but grey can come out of it.
    """
    colours = samples.shape[2] - 1
    if samples[:, :, -1].min() == 255:
        return samples[:, :, 0] if colours == 1 else samples[:, :, :3]
    planes = 1 if colours == 1 and len(set(background)) == 1 else 3
    out = np.empty((*samples.shape[:2], planes), np.uint8)
    for top in range(0, len(samples), _STRIP_ROWS):
        rows = slice(top, top + _STRIP_ROWS)
        alpha = samples[rows, :, -1].astype(np.uint16)
        rest = 255 - alpha
        for plane in range(planes):
            total = samples[rows, :, min(plane, colours - 1)] * alpha
            total += rest * np.uint16(background[plane])
            # x / 255 to the nearest integer, without a division; exact for all x up to 255 * 255.
            total += 128
            total += total >> 8
            total >>= 8
            out[rows, :, plane] = total
    return out[:, :, 0] if planes == 1 else out


def _lay_over(
    array: NDArray[np.uint8], opaque: NDArray[np.bool_], background: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """The background wherever a picture with one transparent colour shows that colour."""
    if array.ndim == 2 and len(set(background)) == 1:
        return np.where(opaque, array, np.uint8(background[0]))
    colours = array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)
    return np.where(opaque[:, :, None], colours, np.array(background, np.uint8))
