"""Small files of every kind, made here, and an independent reckoning of their canonical pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions, Decoder, Picture, Pixels
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.source import BytesSource

WHITE = (255, 255, 255)


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """An RGB picture with something different everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 127 + 120 * np.sin(x / 7.0) * np.cos(y / 5.0)
    array = np.stack([wave, x * 255 // max(1, width - 1), y * 255 // max(1, height - 1)], axis=2)
    return Image.fromarray(array.astype(np.uint8))


def scene_rgba(width: int = 64, height: int = 48) -> Image.Image:
    """The scene with every alpha from 0 to 255."""
    y, x = np.mgrid[0:height, 0:width]
    picture = scene(width, height)
    picture.putalpha(Image.fromarray(((x * 5 + y * 3) % 256).astype(np.uint8)))
    return picture


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The picture as a file, written by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def oriented(value: int) -> Image.Exif:
    """An EXIF block that holds an orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def blend(colour: NDArray[Any], alpha: NDArray[Any], background: Sequence[int] = WHITE) -> NDArray[np.uint8]:
    """Samples (h, w, 3) of alpha (h, w) over a background, to the nearest integer, in wide arithmetic."""
    weight = alpha.astype(np.int64)[:, :, None]
    return ((colour * weight + np.array(background) * (255 - weight) + 127) // 255).astype(np.uint8)


def as_rgb(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey as three equal planes."""
    return np.stack([array] * 3, axis=2) if array.ndim == 2 else array


def decoder_of(data: bytes) -> tuple[Decoder, str]:
    """The built-in decoder of a file, and its media type."""
    media_type = sniff(data[:HEAD_BYTES])
    assert media_type is not None
    return next(decoder for decoder in BUILTIN_DECODERS if media_type in decoder.media_types), media_type


def open_picture(data: bytes, **options: Any) -> Picture:
    """The file, opened by its built-in decoder."""
    decoder, media_type = decoder_of(data)
    return decoder.open(BytesSource(data), media_type, DecodeOptions(**options))


def decode(data: bytes, frame: int = 0, **options: Any) -> Pixels:
    """One frame of the file."""
    (pixels,) = open_picture(data, **options).frames([frame])
    return pixels


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(samples: NDArray[Any], depth_bits: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of samples (h, w, bands), with these chunks before the picture."""
    height, width, _ = samples.shape
    rows = pack_rows(samples, depth_bits, ">")
    raw = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth_bits, colour_type, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def pack_rows(samples: NDArray[Any], depth_bits: int, order: str) -> list[bytes]:
    """Samples (h, w, bands) as packed rows of 1, 2, 4, 8, 12 or 16 bits."""
    flat = samples.reshape(len(samples), -1)
    if depth_bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in flat]
    bits = (flat[..., None] >> np.arange(depth_bits - 1, -1, -1)) & 1
    return [np.packbits(row).tobytes() for row in bits.reshape(len(flat), -1).astype(np.uint8)]


def write_tiff(
    pages: Sequence[tuple[NDArray[Any], int, int]],
    *,
    order: str = "<",
    big: bool = False,
    extra: dict[int, int] | None = None,
) -> bytes:
    """An uncompressed TIFF of pages (samples (h, w, bands), bits, photometric), with more SHORT tags in ``extra``."""
    word = "Q" if big else "I"
    out = bytearray(struct.pack(f"{order}2sH", b"II" if order == "<" else b"MM", 43 if big else 42))
    if big:
        out += struct.pack(f"{order}HH", 8, 0)
    link_at = len(out)
    out += struct.pack(f"{order}{word}", 0)
    for samples, bits, photometric in pages:
        height, width, bands = samples.shape
        body = b"".join(pack_rows(samples, bits, order))
        bits_at, body_at = len(out), len(out) + 2 * bands
        out += struct.pack(f"{order}{bands}H", *[bits] * bands) + body
        ifd_at = len(out)
        inline = bands <= (4 if big else 2)
        packed_bits = struct.pack(f"{order}{bands}H", *[bits] * bands) if inline else None
        tags: dict[int, tuple[int, int, int | bytes]] = {
            256: (4, 1, width),
            257: (4, 1, height),
            258: (3, bands, packed_bits if packed_bits is not None else bits_at),
            259: (3, 1, struct.pack(f"{order}H", 1)),
            262: (3, 1, struct.pack(f"{order}H", photometric)),
            273: (4, 1, body_at),
            277: (3, 1, struct.pack(f"{order}H", bands)),
            278: (4, 1, height),
            279: (4, 1, len(body)),
        } | {tag: (3, 1, struct.pack(f"{order}H", value)) for tag, value in (extra or {}).items()}
        out += struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
        for tag, (kind, count, value) in sorted(tags.items()):
            field = value if isinstance(value, bytes) else struct.pack(f"{order}I", value)
            out += struct.pack(f"{order}HH{word}", tag, kind, count) + field.ljust(8 if big else 4, b"\0")
        struct.pack_into(f"{order}{word}", out, link_at, ifd_at)
        link_at = len(out)
        out += struct.pack(f"{order}{word}", 0)
    return bytes(out)


def write_lossless_jpeg(samples: NDArray[np.uint8]) -> bytes:
    """A grey lossless JPEG (process 14, first-order prediction) of samples (h, w)."""
    height, width = samples.shape
    values = samples.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 128
    bits = []
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        bits.append(f"{size:04b}")
        if size:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    return b"".join(
        (
            b"\xff\xd8",
            b"\xff\xc3" + struct.pack(">HBHHB3B", 11, 8, height, width, 1, 1, 0x11, 0),
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0),
            scan,
            b"\xff\xd9",
        )
    )
