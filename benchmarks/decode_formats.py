"""Which library decodes which format faster, on one thread, and whether the pixels agree. Prints a table.

Run: ``python -m benchmarks.decode_formats [DIR] [--rounds N]``: about 8 megapixels of each format, best of N rounds.
The last column is uploadguard's own decoder, to luma where the format can.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pictures import photo_files
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.source import BytesSource

SIZE = 3504, 2336


def picture(folder: Path | None) -> Image.Image:
    """The first photo of the folder in RGB at 8 megapixels, or clouds and noise where there is none."""
    if paths := photo_files(folder):
        with Image.open(paths[0]) as image:
            return image.convert("RGB").resize(SIZE)
    rng = np.random.default_rng(1)
    clouds = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
    return Image.fromarray((np.asarray(clouds) + noise).clip(0, 255).astype(np.uint8))


def cases(base: Image.Image) -> list[tuple[str, str, str, bytes]]:
    """Name, Pillow's format, libvips's loader, file."""
    alpha = base.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(base.size))

    def save(image: Image.Image, file_format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return [
        ("JPEG q90", "JPEG", "jpegload", save(base, "JPEG", quality=90)),
        ("JPEG progressive", "JPEG", "jpegload", save(base, "JPEG", quality=90, progressive=True)),
        ("PNG", "PNG", "pngload", save(base, "PNG")),
        ("PNG level 1", "PNG", "pngload", save(base, "PNG", compress_level=1)),
        ("PNG RGBA", "PNG", "pngload", save(alpha, "PNG")),
        ("WebP q80", "WEBP", "webpload", save(base, "WEBP", quality=80, method=2)),
        ("WebP lossless", "WEBP", "webpload", save(base, "WEBP", lossless=True, method=1, quality=20)),
        ("GIF", "GIF", "gifload", save(base.quantize(256), "GIF")),
        ("AVIF q60", "AVIF", "heifload", save(base, "AVIF", quality=60, speed=9)),
        ("TIFF", "TIFF", "tiffload", save(base, "TIFF")),
        ("TIFF LZW", "TIFF", "tiffload", save(base, "TIFF", compression="tiff_lzw")),
        ("TIFF deflate", "TIFF", "tiffload", save(base, "TIFF", compression="tiff_adobe_deflate")),
        ("TIFF JPEG", "TIFF", "tiffload", save(base, "TIFF", compression="jpeg")),
        ("BMP", "BMP", "", save(base, "BMP")),
    ]


def with_pillow(data: bytes, file_format: str) -> NDArray[np.uint8]:
    """Pillow's pixels, palettes looked up."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=(file_format,))
    return np.asarray(image if image.mode in {"RGB", "RGBA"} else image.convert("RGB"))


def with_vips(data: bytes, loader: str) -> NDArray[np.uint8]:
    """libvips's pixels."""
    image = getattr(pyvips.Image, f"{loader}_buffer")(data, access="sequential", fail_on="error")
    return np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width, image.bands)


def with_uploadguard(data: bytes) -> NDArray[np.uint8]:
    """Canonical pixels, luma where the format can."""
    media_type = sniff(data[:HEAD_BYTES])
    assert media_type is not None
    decoder = next(decoder for decoder in BUILTIN_DECODERS if media_type in decoder.media_types)
    return next(decoder.open(BytesSource(data), media_type, DecodeOptions()).frames([0])).array


def best_ms(rounds: int, call: Callable[[], NDArray[np.uint8]]) -> tuple[float, NDArray[np.uint8]]:
    """The shortest wall-clock time of some rounds, and the result."""
    shortest, result = float("inf"), call()
    for _ in range(rounds):
        started = time.perf_counter()
        result = call()
        shortest = min(shortest, (time.perf_counter() - started) * 1e3)
    return shortest, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Decoding times by format and library, one thread.")
    parser.add_argument("folder", type=Path, nargs="?", help="JPEG photos; without it a picture is drawn")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    base = picture(arguments.folder)
    print(f"{base.width} x {base.height}, best of {arguments.rounds}, milliseconds, one CPU")
    print(f"{'':18}{'MB':>6}{'Pillow':>9}{'libvips':>9}  {'equal':7}{'uploadguard':>12}")
    for name, file_format, loader, data in cases(base):
        pillow_ms, pillow = best_ms(arguments.rounds, lambda d=data, f=file_format: with_pillow(d, f))
        own_ms, _ = best_ms(arguments.rounds, lambda d=data: with_uploadguard(d))
        vips_text, equal = "-", "-"
        if loader:
            vips_ms, vips = best_ms(arguments.rounds, lambda d=data, v=loader: with_vips(d, v))
            vips_text, equal = (
                f"{vips_ms:.1f}",
                "yes" if np.array_equal(pillow, vips[:, :, : pillow.shape[2]]) else "no",
            )
        print(f"{name:18}{len(data) / 1e6:6.1f}{pillow_ms:9.1f}{vips_text:>9}  {equal:7}{own_ms:12.1f}", flush=True)


if __name__ == "__main__":
    main()
