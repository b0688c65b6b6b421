"""Faces: what else viewers may show of the same stored samples.

``other_ground`` lies over black where the background is light, else over white; ``bare`` has no transparency, as after
a conversion that drops it; ``tone`` has the file's own tone curve. Large faces are scaled down, by means over blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from uploadguard.media.base import DecodeOptions, Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FaceBuilder", "faces_of_samples", "flatten", "toned"]

STRIP_ROWS = 64
"""Rows blended at once, so that the 16-bit intermediates stay in the cache; a multiple of every scale."""

_MIN_SCALED_SIDE = 512


class FaceBuilder:
    """Builds the faces of one frame from strips of its samples, top to bottom.

    Strips have shape (rows, w, bands), uint8, alpha last where there are 2 or 4 bands; all but the last must have a
    multiple of 4 rows. Nothing is kept while the samples are opaque and there is no tone curve.
    """

    def __init__(self, width: int, height: int, options: DecodeOptions) -> None:
        self._size = width, height
        self._scale = next((scale for scale in (4, 2) if min(width, height) // scale >= _MIN_SCALED_SIDE), 1)
        ground = (0, 0, 0) if sum(options.background) >= 384 else (255, 255, 255)
        self._renders: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
            "other_ground": lambda samples: flatten(samples, ground),
            "bare": _bare,
        }
        self._parts: dict[str, list[NDArray[np.uint8]]] = {}
        self._tones: list[NDArray[np.uint8]] = []

    def add(self, samples: NDArray[np.uint8], above: NDArray[np.uint8]) -> None:
        """The next strip. ``above`` holds the canonical pixels of the opaque strips before it."""
        if not self._parts:
            if samples.shape[2] not in {2, 4} or samples[:, :, -1].min() == 255:
                return
            opaque = above if above.ndim == 3 else above[:, :, None]
            start = [self._reduced(opaque)] if len(above) else []
            self._parts = {name: list(start) for name in self._renders}
        for name, render in self._renders.items():
            self._parts[name].append(self._reduced(render(samples)))

    def add_tone(self, pixels: NDArray[np.uint8]) -> None:
        """The next strip with its tone curve, flattened."""
        self._tones.append(self._reduced(pixels))

    def faces(self, frame: int) -> Mapping[str, Pixels]:
        """The faces by name; empty where there is nothing else to see."""
        parts = {**self._parts, **({"tone": self._tones} if self._tones else {})}
        width, height = self._size
        return MappingProxyType(
            {name: Pixels(_joined(strips), width, height, self._scale, frame) for name, strips in parts.items()}
        )

    def _reduced(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Means over blocks, in three dimensions; a block that the edge cuts repeats the edge."""
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        scale = self._scale
        if scale == 1:
            return pixels
        rows, columns, planes = pixels.shape
        pixels = np.pad(pixels, ((0, -rows % scale), (0, -columns % scale), (0, 0)), mode="edge")
        blocks = pixels.reshape(-(-rows // scale), scale, -(-columns // scale), scale, planes)
        total = blocks.sum(axis=(1, 3), dtype=np.uint16) + scale * scale // 2
        means: NDArray[np.uint8] = (total // (scale * scale)).astype(np.uint8)
        return means


def faces_of_samples(samples: NDArray[np.uint8], options: DecodeOptions, frame: int) -> Mapping[str, Pixels]:
    """The faces of a whole frame with alpha, shape (h, w, 2) or (h, w, 4)."""
    if samples[:, :, -1].min() == 255:
        return MappingProxyType({})
    builder = FaceBuilder(samples.shape[1], samples.shape[0], options)
    for top in range(0, len(samples), STRIP_ROWS):
        builder.add(samples[top : top + STRIP_ROWS], _bare(samples[:top]))
    return builder.faces(frame)


def toned(samples: NDArray[np.uint8] | NDArray[np.uint16], tone: bytes) -> NDArray[np.uint8]:
    """Samples of 8 or 16 bits through a tone table; see :attr:`uploadguard.media.base.DecodeOptions.tone`."""
    table = np.frombuffer(tone, np.uint8)
    if samples.dtype == np.uint8:
        table = table[::257]
    return table[samples]


def flatten(samples: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Grey or colour samples with alpha as the last of their 2 or 4 bands, laid over ``background``.

    Grey stays one plane where nothing but grey can come out of it.
    """
    colours = samples.shape[2] - 1
    if samples[:, :, -1].min() == 255:
        return samples[:, :, 0] if colours == 1 else samples[:, :, :3]
    planes = 1 if colours == 1 and len(set(background)) == 1 else 3
    out = np.empty((*samples.shape[:2], planes), np.uint8)
    for top in range(0, len(samples), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
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


def _bare(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return samples[:, :, :-1]


def _joined(strips: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    planes = max(strip.shape[2] for strip in strips)
    whole = np.concatenate([np.repeat(s, 3, axis=2) if s.shape[2] < planes else s for s in strips])
    return np.ascontiguousarray(whole[:, :, 0] if planes == 1 else whole)
