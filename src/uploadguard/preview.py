"""Previews of preserved pictures: what a reviewer is shown.

A picture is decoded in a worker process that is started for it alone, and comes back as raw pixels. The PNG is made
here from these, so nothing of the file's own bytes is in it, no metadata, and this process decodes nothing.

The usual preview is grey and so blurred that nobody can be recognised: the worker hands over :data:`BLURRED_CELLS`
cells on the longer side, each the mean brightness of what it covers, and they are enlarged here into one another. So
even a worker that a file has taken over cannot put anything sharper before a reviewer. Faces that fill the picture are
then some nine cells wide; people need about sixteen to tell one stranger's face from another's.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from uploadguard.errors import EvidenceError
from uploadguard.hashing import inspection_job
from uploadguard.media.source import BytesSource
from uploadguard.plugins import Plugins
from uploadguard.sandbox.preview_wire import PreviewFailure, PreviewRequest
from uploadguard.sandbox.preview_worker import preview_of
from uploadguard.sandbox.previews import sandboxed_preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uploadguard.config import Settings

__all__ = ["BLURRED_CELLS", "MAX_SIDE_PIXELS", "make_preview"]

MAX_SIDE_PIXELS: Final = 512
BLURRED_CELLS: Final = 12


def make_preview(
    data: bytes | memoryview,
    settings: Settings,
    *,
    clear: bool = False,
    frame: int = 0,
    plugins: Plugins | None = None,
) -> bytes:
    """A PNG of a picture file, or of an animation's ``frame``, counted from 0; no side over 512 pixels.

    Grey and blurred unless ``clear``. Decoded as ``settings.sandbox`` says, by the decoders of ``plugins``, else of
    those that the settings name. Raises :class:`~uploadguard.errors.EvidenceError` where no preview can be made, for
    whatever is wrong with the file, and :class:`~uploadguard.errors.SandboxError` where no worker can be had.
    """
    plugins = plugins if plugins is not None else Plugins(settings)
    job = replace(inspection_job(settings, plugins), signals=())
    request = PreviewRequest(frame, MAX_SIDE_PIXELS if clear else BLURRED_CELLS, grey=not clear)
    if settings.sandbox.isolation == "none":
        made = preview_of(BytesSource(data), job, request)
    else:
        made = sandboxed_preview(data, settings.sandbox, job, plugins, request)
    if isinstance(made, PreviewFailure):
        raise EvidenceError(f"no preview can be made: {made.detail}")
    pixels = np.frombuffer(made.samples, np.uint8).reshape(made.height, made.width, made.bands)
    return _png(pixels if clear else _enlarged(pixels[:, :, 0])[:, :, None])


def _enlarged(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey cells, shape (h, w), as a smooth picture whose longer side has ``MAX_SIDE_PIXELS``."""
    scale = MAX_SIDE_PIXELS / max(cells.shape)
    down, across = (_weights(cells_there, max(1, round(cells_there * scale))) for cells_there in cells.shape)
    smooth = down @ cells.astype(np.float64) @ across.T
    return np.clip(smooth + 0.5, 0, 255).astype(np.uint8)


def _weights(cells: int, pixels: int) -> NDArray[np.float64]:
    """How much of each cell is in each pixel, shape (pixels, cells): a cubic B-spline, the edge cells repeated."""
    places = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    below = np.floor(places).astype(int)
    weights = np.zeros((pixels, cells))
    for step in (-1, 0, 1, 2):
        distance = np.abs(places - (below + step))
        near = (4 - 6 * distance**2 + 3 * distance**3) / 6
        far = np.maximum(2 - distance, 0) ** 3 / 6
        weights[np.arange(pixels), np.clip(below + step, 0, cells - 1)] += np.where(distance < 1, near, far)
    return weights


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of samples of shape (h, w, 1) or (h, w, 3)."""
    height, width, bands = pixels.shape
    # Each sample as its difference from the one to the left, which packs better.
    rows = np.ones((height, 1 + width * bands), np.uint8)
    rows[:, 1:] = np.diff(pixels, axis=1, prepend=np.uint8(0)).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if bands == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
