"""The pictures to check: files of the host's, or drawn ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from uploadguard.errors import MediaReadError
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.testing import media

__all__ = ["DRAWN_SIZES", "draw_pictures", "find_pictures"]

DRAWN_SIZES = ((1152, 864), (2304, 1728), (4000, 3000))
"""Of 1, 4 and 12 megapixels."""

_CANVAS = (1152, 864)
_NOISE = 6.0


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and in folders, at any depth, all that begin as a picture does. Follows no links there.

    Raises :class:`MediaReadError` for a path that does not exist and where there is no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _pictures_in(path)
        elif path.exists():
            found.append(path)
        else:
            raise MediaReadError("no such file or folder", path=path)
    if not found:
        raise MediaReadError("there is no picture in what was given")
    return found


def _pictures_in(folder: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and _is_picture(path):
                yield path


def _is_picture(path: Path) -> bool:
    """Whether it begins as one. What cannot be read is one: checking it will say what is wrong."""
    try:
        with path.open("rb") as file:
            return sniff(file.read(HEAD_BYTES)) is not None
    except OSError:
        return True


def draw_pictures(directory: Path, progress: Callable[[int], None] = lambda _: None) -> list[Path]:
    """Write JPEGs of :data:`DRAWN_SIZES`, with as much noise as makes them as large, and as slow, as a camera's.

    ``progress`` is told how many are written.
    """
    import numpy as np
    from PIL import Image

    scene = media.make_photo(*_CANVAS, seed=7)
    rng = np.random.default_rng(7)
    paths = []
    for number, (width, height) in enumerate(DRAWN_SIZES, 1):
        grain = rng.standard_normal((height, width, 1), np.float32) * _NOISE
        pixels = np.asarray(scene.resize((width, height), Image.Resampling.BICUBIC)) + grain
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        path = directory / f"{width * height / 1e6:.0f}-megapixels.jpg"
        path.write_bytes(media.encode(picture, quality=85))
        paths.append(path)
        progress(number)
    return paths
