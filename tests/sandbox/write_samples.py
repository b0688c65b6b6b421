"""Writes src/uploadguard/sandbox/samples.py anew: ``python -m tests.sandbox.write_samples``. Drawn pictures only."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
HEAD = '''\
"""One small drawn picture of every kind that the built-in decoders read, for warming their codecs up.

Written by tests/sandbox/write_samples.py.
"""

from __future__ import annotations

import base64
from typing import Final

__all__ = ["SAMPLES"]

_ENCODED: Final = {
'''
TAIL = """}

SAMPLES: Final = {name: base64.b64decode(text) for name, text in _ENCODED.items()}
\"\"\"Files by a name of what they are.\"\"\"
"""


def drawn(mode: str, side: int = 24) -> Image.Image:
    """A smooth picture with an edge."""
    y, x = np.mgrid[:side, :side]
    planes = np.stack([x * 9 % 256, y * 9 % 256, (x * y) % 200, 55 + x * 8], -1).astype(np.uint8)
    image = Image.fromarray(planes)
    return image.convert("RGB").convert(mode) if mode != "RGBA" else image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def samples() -> Iterator[tuple[str, bytes]]:
    rgb, grey, alpha = drawn("RGB"), drawn("L"), drawn("RGBA")
    wide = Image.fromarray(np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100)
    more = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    yield "jpeg", saved(rgb, "JPEG", quality=80)
    yield "jpeg grey", saved(grey, "JPEG")
    yield "jpeg cmyk", saved(drawn("CMYK"), "JPEG")
    yield "jpeg progressive", saved(rgb, "JPEG", progressive=True)
    yield "jpeg cut short", saved(rgb, "JPEG", quality=95)[:-200]
    yield "png", saved(rgb, "PNG")
    yield "png grey", saved(grey, "PNG")
    yield "png palette", saved(drawn("P"), "PNG")
    yield "png alpha", saved(alpha, "PNG")
    yield "png 16 bits", saved(wide, "PNG")
    yield "png animated", saved(rgb, "PNG", **more)
    yield "png cut short", saved(rgb, "PNG")[:-100]
    yield "webp", saved(rgb, "WEBP")
    yield "webp lossless", saved(alpha, "WEBP", lossless=True)
    yield "webp animated", saved(rgb, "WEBP", **more)
    yield "gif", saved(rgb, "GIF")
    yield "gif animated", saved(rgb, "GIF", **more)
    yield "avif", saved(rgb, "AVIF", speed=10)
    yield "avif alpha", saved(alpha, "AVIF", speed=10)
    yield "avif animated", saved(rgb, "AVIF", speed=10, **more)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"tiff {compression}", saved(rgb, "TIFF", compression=compression)
    yield "tiff 16 bits", saved(wide, "TIFF")
    yield "tiff fax", saved(drawn("1"), "TIFF", compression="group4")
    yield "tiff pages", saved(rgb, "TIFF", **more)
    yield "bmp", saved(drawn("RGB", 8), "BMP")
    yield "bmp palette", saved(drawn("1"), "BMP")
    yield "heic", (ROOT / "tests/media/data/drawn.heic").read_bytes()


def main() -> None:
    lines = []
    for name, data in samples():
        text = base64.b64encode(data).decode()
        lines += [f'    "{name}": (', *(f'        "{part}"' for part in textwrap.wrap(text, 108)), "    ),"]
    path = ROOT / "src/uploadguard/sandbox/samples.py"
    path.write_text(HEAD + "\n".join(lines) + "\n" + TAIL, encoding="ascii")


if __name__ == "__main__":
    main()
