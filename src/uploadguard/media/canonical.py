"""The step from a decoder's samples to canonical pixels; the rules stand in :mod:`uploadguard.media.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from uploadguard.media.base import DecodeOptions, Pixels, UnsupportedError
from uploadguard.media.faces import faces_of_samples, flatten, toned

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["flatten", "from_pillow", "shaped"]


def from_pillow(
    image: Image.Image, options: DecodeOptions, *, frame: int = 0, sample_bits: int = 16, inverted: bool = False
) -> tuple[NDArray[np.uint8], Mapping[str, Pixels]]:
    """The canonical pixels of a loaded Pillow image, shape (h, w) or (h, w, 3), and its other faces.

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

    opaque: NDArray[np.bool_] | None = None
    faces: Mapping[str, Pixels] = {}
    if mode in {"LA", "RGBA"}:
        samples = np.asarray(image)
        array = flatten(samples, background)
        faces = faces_of_samples(samples, options, frame)
    elif mode == "L":
        array = np.asarray(image)
        if isinstance(transparency, int):
            opaque = array != transparency
    elif mode == "RGB":
        array = np.asarray(image)
        if isinstance(transparency, tuple):
            opaque = (array != transparency).any(axis=2)
    elif mode.startswith("I;16"):
        wide = np.asarray(image)
        array = (wide >> (sample_bits - 8)).astype(np.uint8)
        if inverted:
            array = ~array
        if isinstance(transparency, int):
            opaque = wide != transparency
    else:
        raise UnsupportedError(f"samples of the kind {mode} have no defined white")
    if opaque is not None and not opaque.all():
        colours = array if array.ndim == 3 else array[:, :, None]
        faces = faces_of_samples(np.dstack((colours, opaque.astype(np.uint8) * 255)), options, frame)
        array = _lay_over(array, opaque, background)
    if options.tone is not None:
        bright = shaped(toned(array, options.tone), options)
        faces = {**faces, "tone": Pixels(bright, image.width, image.height, frame=frame)}
    return shaped(array, options), faces


def shaped(array: NDArray[np.uint8], options: DecodeOptions) -> NDArray[np.uint8]:
    """C-contiguous, and with three planes unless ``options.pixels`` is ``luma``."""
    if array.ndim == 2 and options.pixels != "luma":
        return np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array)


def _lay_over(
    array: NDArray[np.uint8], opaque: NDArray[np.bool_], background: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """The background wherever a picture with one transparent colour shows that colour."""
    if array.ndim == 2 and len(set(background)) == 1:
        return np.where(opaque, array, np.uint8(background[0]))
    colours = array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)
    return np.where(opaque[:, :, None], colours, np.array(background, np.uint8))
