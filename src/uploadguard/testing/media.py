"""Synthetic media for the tests of hosts and plugins: photo-like pictures, and files of the odd kinds that uploads are.

All of it is drawn on the spot, the same for the same seed, and shows nothing. numpy and Pillow are imported only when
a function is called. Encoded bytes depend on Pillow's version; pixels do not.
"""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from uploadguard.testing._drawing import Random, layer, noise, smooth, to_image

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ODD_MEDIA",
    "animated_gif",
    "animated_webp",
    "cmyk_jpeg",
    "corrupt_jpeg",
    "empty_file",
    "encode",
    "flat_png",
    "gif_script",
    "grey16_png",
    "grey_alpha_png",
    "grey_jpeg",
    "header_only_jpeg",
    "jpeg_followed_by",
    "jpeg_with_thumbnail",
    "make_photo",
    "palette_png",
    "pixel_bomb_png",
    "rotated_jpeg",
    "text_named_jpg",
    "transparent_png",
    "truncated_jpeg",
    "two_faced_png",
    "zip_archive",
]

_SIZE = (400, 300)


def make_photo(width: int = 640, height: int = 480, seed: int = 0) -> Image.Image:
    """An RGB picture with the look of a photograph to a hash: broad light and shade, edges, texture at all scales.

    Pictures of different seeds are unrelated; the same seed at another size of the same aspect is the same picture.
    """
    return _photo(width, height, seed).copy()


@functools.lru_cache(maxsize=16)
def _photo(width: int, height: int, seed: int) -> Image.Image:
    import numpy as np

    random = Random(seed * 7919 + 17)
    canvas = np.zeros((height, width, 3))
    clouds = noise(width, height, seed * 3 + 1, cells=2, fall=0.55)[:, :, None]
    dark, light = random.array(3) * (0.2, 0.35, 0.35), (0.35, 0.55, 0.55) + random.array(3) * (0.25, 0.45, 0.45)
    canvas += dark + (light - dark) * smooth((clouds - 0.25) * 2.0)

    longer = max(width, height)
    y, x = np.arange(height)[:, None] / longer, np.arange(width)[None, :] / longer
    edge = 0.004
    for index in range(7):
        colour = random.array(3)
        centre_x, centre_y = random.between(0, width / longer), random.between(0, height / longer)
        radius_x, radius_y = random.between(0.05, 0.22), random.between(0.05, 0.22)
        turn_x, turn_y = random.between(-0.6, 0.6), random.between(-0.6, 0.6)
        across = (x - centre_x + turn_x * (y - centre_y)) / radius_x
        down = (y - centre_y + turn_y * (x - centre_x)) / radius_y
        reach = np.hypot(across, down) if index % 2 else np.maximum(np.abs(across), np.abs(down))
        cover = smooth((1.0 - reach) * min(radius_x, radius_y) / edge)
        shade = np.clip(0.65 - 0.35 * across - 0.25 * down, 0.0, 1.4)[:, :, None]
        layer(canvas, cover, colour * shade)

    grain = noise(width, height, seed * 3 + 2, cells=24, octaves=3, fall=0.8)[:, :, None]
    return to_image(canvas + (grain - 0.5) * 0.12)


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:  # noqa: A002 - Pillow's own word
    """The picture as a file of one of Pillow's formats; ``options`` are those of that format's writer."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def grey_jpeg(seed: int = 0) -> bytes:
    """A JPEG with one component."""
    return encode(make_photo(*_SIZE, seed).convert("L"), quality=90)


def cmyk_jpeg(seed: int = 0) -> bytes:
    """A JPEG of four inks, inverted and marked so, as Adobe's programs write them."""
    return encode(make_photo(*_SIZE, seed).convert("CMYK"), quality=90)


def palette_png(seed: int = 0) -> bytes:
    """A PNG of 64 colours whose palette indices say nothing of brightness."""
    return encode(make_photo(*_SIZE, seed).quantize(64), "PNG")


def grey16_png(seed: int = 0) -> bytes:
    """A grey PNG of 16 bits a sample, over the full range."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(make_photo(*_SIZE, seed).convert("L"), np.uint16)
    return encode(Image.fromarray(grey * 257), "PNG")


def grey_alpha_png(seed: int = 0) -> bytes:
    """A grey PNG with an alpha channel that is opaque in a wide ellipse."""
    return encode(_with_alpha(seed).convert("LA"), "PNG")


def transparent_png(seed: int = 0) -> bytes:
    """An RGB PNG with an alpha channel; what lies under the transparent corners is black."""
    import numpy as np
    from PIL import Image

    pixels = np.array(_with_alpha(seed))
    pixels[pixels[:, :, 3] == 0] = 0
    return encode(Image.fromarray(pixels), "PNG")


def rotated_jpeg(seed: int = 0, *, orientation: int = 6) -> bytes:
    """A JPEG whose EXIF orientation, 1 to 8, asks viewers to turn or mirror it; its pixels are not turned."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(make_photo(*_SIZE, seed), quality=90, exif=exif)


def animated_gif(seed: int = 0, *, frames: int = 5) -> bytes:
    """A GIF whose frames, 100 ms each, are pictures of the seeds ``seed``, ``seed + 1`` and so on."""
    return _animation("GIF", seed, frames)


def animated_webp(seed: int = 0, *, frames: int = 5) -> bytes:
    """As :func:`animated_gif`, in WebP."""
    return _animation("WEBP", seed, frames)


def flat_png(width: int = 400, height: int = 300, colour: tuple[int, int, int] = (90, 120, 150)) -> bytes:
    """A picture of one colour: its perceptual hash is worth nothing."""
    from PIL import Image

    return encode(Image.new("RGB", (width, height), colour), "PNG")


def truncated_jpeg(seed: int = 0, *, keep: float = 0.6) -> bytes:
    """A JPEG that ends early; ``keep`` is the fraction that is left."""
    data = encode(make_photo(*_SIZE, seed), quality=90)
    return data[: int(len(data) * keep)]


def header_only_jpeg(seed: int = 0) -> bytes:
    """A JPEG that ends where its pixels would begin."""
    data = encode(make_photo(*_SIZE, seed), quality=90)
    return data[: data.index(b"\xff\xda")]


def corrupt_jpeg(seed: int = 0) -> bytes:
    """A JPEG with a stretch of zeros in the middle of its pixels."""
    data = bytearray(encode(make_photo(*_SIZE, seed), quality=90))
    middle = len(data) // 2
    data[middle : middle + 512] = bytes(512)
    return bytes(data)


def pixel_bomb_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of one bit a pixel, all black: a small file (110 kB by default) that decodes to very many pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)  # the filter's byte first
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def text_named_jpg() -> bytes:
    """Plain text, for uploads whose name or declared type says JPEG."""
    return b"This is not a picture, whatever its name says.\n" * 20


def zip_archive() -> bytes:
    """A small archive of one text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "Nothing to see here.")
    return out.getvalue()


def jpeg_followed_by(trailer: bytes | None = None, seed: int = 0) -> bytes:
    """A JPEG with something behind its end; None is an archive, so that the file is both."""
    return encode(make_photo(*_SIZE, seed), quality=90) + (zip_archive() if trailer is None else trailer)


def jpeg_with_thumbnail(seed: int = 0, *, thumbnail_seed: int = 1) -> bytes:
    """A JPEG whose EXIF thumbnail is the picture of another seed."""
    thumbnail = encode(make_photo(160, 120, thumbnail_seed), quality=85)
    # Two directories of no entry and of two: where the thumbnail lies, and its length.
    entries = struct.pack("<HHIIHHII", 0x0201, 4, 1, 44, 0x0202, 4, 1, len(thumbnail))
    block = b"II*\0" + struct.pack("<IHIH", 8, 0, 14, 2) + entries + struct.pack("<I", 0) + thumbnail
    picture = encode(make_photo(*_SIZE, seed), quality=90)
    body = b"Exif\0\0" + block
    return picture[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + picture[2:]


def two_faced_png(seed: int = 0, *, dark_seed: int = 1) -> bytes:
    """A PNG that shows one picture over white and another over black: its alpha makes the difference."""
    import numpy as np
    from PIL import Image

    light = np.asarray(make_photo(*_SIZE, seed).convert("L"), np.float64) / 2 + 127.5
    dark = np.asarray(make_photo(*_SIZE, dark_seed).convert("L"), np.float64) / 2
    alpha = 1 - (light - dark) / 255
    grey = np.where(alpha > 0, dark / np.maximum(alpha, 1 / 255), 0)
    samples = np.stack([grey, alpha * 255], axis=2).clip(0, 255).astype(np.uint8)
    return encode(Image.fromarray(samples, "LA"), "PNG")


def gif_script(seed: int = 0) -> bytes:
    """A GIF that is a script as well: its width opens a comment that ends behind the picture."""
    data = bytearray(encode(make_photo(64, 48, seed), "GIF"))
    data[6:8] = b"/*"
    return bytes(data) + b"*/=1;"


def empty_file() -> bytes:
    """No bytes."""
    return b""


ODD_MEDIA: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            grey_jpeg, cmyk_jpeg, palette_png, grey16_png, grey_alpha_png, transparent_png, rotated_jpeg, animated_gif,
            animated_webp, flat_png, truncated_jpeg, header_only_jpeg, corrupt_jpeg, pixel_bomb_png, text_named_jpg,
            empty_file, zip_archive, jpeg_followed_by, jpeg_with_thumbnail, two_faced_png, gif_script,
        )
    }
)  # fmt: skip
"""All of the above by name, to parametrise tests with."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _with_alpha(seed: int) -> Image.Image:
    from PIL import Image, ImageDraw

    image = make_photo(*_SIZE, seed)
    alpha = Image.new("L", image.size, 0)
    ImageDraw.Draw(alpha).ellipse((0, 0, image.width - 1, image.height - 1), fill=255)
    image.putalpha(alpha)
    return image


def _animation(format: Literal["GIF", "WEBP"], seed: int, frames: int) -> bytes:  # noqa: A002
    first, *others = [make_photo(200, 150, seed + index) for index in range(frames)]
    return encode(first, format, save_all=True, append_images=others, duration=100, loop=0)
