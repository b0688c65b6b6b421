"""The pictures that benchmarks run on: a folder of photos if one is given, else pictures drawn on the spot."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path

from PIL import Image

from uploadguard.testing import media

PHOTOS_VARIABLE = "UPLOADGUARD_PHOTOS"
SIZES = {"1MP": (1152, 864), "4MP": (2304, 1728), "12MP": (4000, 3000), "24MP": (6000, 4000)}


def photo_files(folder: Path | None = None) -> list[Path]:
    """The JPEG files of a folder and of those in it; of the one the environment names, if none is given."""
    if folder is None:
        named = os.environ.get(PHOTOS_VARIABLE)
        if not named:
            return []
        folder = Path(named)
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})


@lru_cache
def jpeg(size: str) -> bytes:
    """A JPEG of quality 90 at one of :data:`SIZES`: a large photo resized, or a drawn one."""
    width, height = SIZES[size]
    photos = [path for path in photo_files() if path.stat().st_size > 1_000_000]
    if photos:
        with Image.open(photos[0]) as image:
            picture = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    else:
        picture = media.make_photo(width, height, seed=7)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
