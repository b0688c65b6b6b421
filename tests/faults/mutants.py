"""Mutants of good files: bit flips, truncations, header edits, splices. The same seed gives the same mutants."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator

from PIL import Image

from uploadguard.sandbox.samples import SAMPLES
from uploadguard.testing.picture import unrelated_picture

__all__ = ["FORMATS", "good_files", "mutants"]

FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline.jpg": ("JPEG", {"quality": 85}),
    "progressive.jpg": ("JPEG", {"quality": 85, "progressive": True}),
    "restarts.jpg": ("JPEG", {"quality": 85, "restart_marker_blocks": 4}),
    "cmyk.jpg": ("JPEG", {"quality": 85}),
    "rgb.png": ("PNG", {}),
    "palette.png": ("PNG", {}),
    "interlaced.webp": ("WEBP", {"quality": 80}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "animated.webp": ("WEBP", {"save_all": True, "quality": 50}),
    "still.gif": ("GIF", {}),
    "animated.gif": ("GIF", {"save_all": True}),
    "animated.png": ("PNG", {"save_all": True}),
    "raw.tiff": ("TIFF", {}),
    "lzw.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate.tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "jpeg.tiff": ("TIFF", {"compression": "jpeg"}),
    "pages.tiff": ("TIFF", {"save_all": True}),
    "still.bmp": ("BMP", {}),
    "still.avif": ("AVIF", {"quality": 60}),
    "animated.avif": ("AVIF", {"save_all": True, "quality": 60}),
}
"""What good files there are: Pillow's format and how it is saved."""

_MAGIC = [
    *(b"\xff\xd8\xff\xe0", b"\xff\xda\x00\x0c", b"\xff\xc2"),
    *(b"\x89PNG\r\n\x1a\n", b"IHDR", b"IDAT", b"iCCP", b"acTL"),
    *(b"GIF89a", b"RIFF", b"WEBPVP8X", b"ANIM", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00"),
    *(b"ftypavif", b"ftypheic", b"meta", b"iloc", b"PK\x03\x04", b"%PDF-1.4"),
    *(b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00"),
]


def good_files(side: int = 96) -> dict[str, bytes]:
    """One small sound file of each of :data:`FORMATS`, by name."""
    with Image.open(io.BytesIO(unrelated_picture())) as image:
        picture = image.convert("RGB").resize((side, side))
    others = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(90)]
    files = {}
    for name, (kind, options) in FORMATS.items():
        image = picture
        if name.startswith("cmyk"):
            image = picture.convert("CMYK")
        elif name.startswith("palette"):
            image = picture.convert("P")
        options = {**options, "append_images": others} if options.get("save_all") else options
        file = io.BytesIO()
        image.save(file, kind, **options)
        files[name] = file.getvalue()
    return {**files, "still.heic": SAMPLES["heic"]}  # nothing here writes HEIC


def mutants(files: dict[str, bytes], count: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """``count`` changed files with names that say what was done, over all of ``files`` in turn."""
    chance = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        how = chance.choice(_WAYS)
        data = how(files[name], chance, files)
        yield f"{number:06d}-{how.__name__.strip('_')}-{name}", data


Way = Callable[[bytes, random.Random, dict[str, bytes]], bytes]


def _flip_bits(data: bytes, chance: random.Random, _: dict[str, bytes]) -> bytes:
    changed = bytearray(data)
    for _i in range(chance.choice((1, 1, 2, 4, 16, 64))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, chance: random.Random, _: dict[str, bytes]) -> bytes:
    return data[: chance.randrange(len(data))]


def _edit_header(data: bytes, chance: random.Random, _: dict[str, bytes]) -> bytes:
    """Another number or keyword somewhere in the first part, where sizes and counts stand."""
    changed = bytearray(data)
    for _i in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(min(len(changed), chance.choice((64, 256, 1024))))
        value = chance.choice((chance.choice(_MAGIC), chance.randbytes(chance.choice((1, 2, 4)))))
        changed[at : at + len(value)] = value
    return bytes(changed)


def _splice(data: bytes, chance: random.Random, files: dict[str, bytes]) -> bytes:
    """The start of one file and the end of another, maybe of another format."""
    other = files[chance.choice(sorted(files))]
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def _repeat(data: bytes, chance: random.Random, _: dict[str, bytes]) -> bytes:
    """A part of the file many times over."""
    begin = chance.randrange(len(data))
    end = min(len(data), begin + chance.choice((4, 16, 64, 512)))
    return data[:begin] + data[begin:end] * chance.choice((2, 10, 100, 1000)) + data[end:]


def _leave_out(data: bytes, chance: random.Random, _: dict[str, bytes]) -> bytes:
    begin = chance.randrange(len(data))
    return data[:begin] + data[begin + chance.choice((1, 2, 16, 256)) :]


def _append(data: bytes, chance: random.Random, files: dict[str, bytes]) -> bytes:
    return data + chance.choice((chance.randbytes(64), files[chance.choice(sorted(files))], b"PK\x03\x04" + bytes(60)))


_WAYS: tuple[Way, ...] = (
    *(_flip_bits, _flip_bits, _edit_header, _edit_header),
    *(_truncate, _splice, _repeat, _leave_out, _append),
)
