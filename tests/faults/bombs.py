"""Small files that want to be large: made here, never stored."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

__all__ = [
    "BOMBS",
    "EndlessStream",
    "gif_frames",
    "jpeg_scans",
    "png_of_megapixels",
    "sound_gif_frames",
    "tiff_of_ifds",
]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_megapixels(width: int = 13_350, height: int = 13_350, *, bits: int = 8) -> bytes:
    """A sound PNG of one colour: 178 megapixels of RGB in half a megabyte by default."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * 3 * bits // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def png_of_text(megabytes: int = 500) -> bytes:
    """A tiny picture with compressed text that wants to be large."""
    text = b"k\0\0" + zlib.compress(bytes(megabytes << 20), 9)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(9 * 8))
    chunks = [(b"IHDR", header), (b"zTXt", text), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def gif_frames(frames: int = 10_000, side: int = 1000) -> bytes:
    """An animation of that many frames, each a large screen of one colour in a few bytes."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    # The clear code, a colour and the end: decoders fill the rest of the frame, or take it as cut short.
    frame = b"\x21\xf9\x04\x00\x01\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0)
    return head + (frame + b"\x02\x02\x44\x01\x00") * frames + b";"


def jpeg_scans(scans: int = 2000, side: int = 8000) -> bytes:
    """A progressive JPEG of one colour with as many refining scans as wanted: each is a pass over all blocks."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True, quality=50)
    data = file.getvalue()
    begin = data.rindex(b"\xff\xda")  # the last scan, which may come again and again
    end = len(data) - 2
    return data[:end] + data[begin:end] * scans + data[end:]


def tiff_of_ifds(pages: int = 50_000) -> bytes:
    """A TIFF of many pages of one pixel."""
    page = 2 + 12 * 8 + 4
    out = [b"II*\x00" + struct.pack("<I", 8)]
    at = 8
    for number in range(pages):
        tags = [(256, 4, 1), (257, 4, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 4), (278, 4, 1), (279, 4, 1)]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        at += page
        out.append(struct.pack("<H", 8) + entries + struct.pack("<I", at if number + 1 < pages else 0))
    return b"".join(out)


def heif_of_boxes(depth: int = 20_000) -> bytes:
    """An AVIF whose boxes lie inside each other."""
    inner = b""
    for _ in range(depth):
        inner = struct.pack(">I", 8 + len(inner)) + b"meta" + inner
    return struct.pack(">I", 24) + b"ftypavif" + bytes(4) + b"avifmif1" + inner


def jpeg_of_exif(depth: int = 4000) -> bytes:
    """A JPEG whose EXIF directories point to each other, and in the end to the first."""
    ifds = bytearray(b"II*\x00" + struct.pack("<I", 8))
    for number in range(depth):
        following = 8 + 18 * (number + 1) if number + 1 < depth else 8
        ifds += struct.pack("<HHHIII", 1, 0x8769, 4, 1, following, following)
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG")
    data = file.getvalue()
    exif = b"Exif\0\0" + bytes(ifds[:65_000])
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def sound_gif_frames(frames: int = 10_000, side: int = 500) -> bytes:
    """A sound animation of that many equal frames of one colour."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "GIF")
    data = file.getvalue()
    begin = data.index(b"\x2c" + bytes(4) + struct.pack("<HH", side, side))  # the picture, up to the trailer
    return data[:begin] + data[begin:-1] * frames + data[-1:]


BOMBS = {
    "png of 178 megapixels": png_of_megapixels,
    "png of 16 bits, 178 megapixels": lambda: png_of_megapixels(bits=16),
    "png with 500 MB of text": png_of_text,
    "gif of 10,000 frames": gif_frames,
    "sound gif of 10,000 frames": sound_gif_frames,
    "jpeg of 2,000 scans": jpeg_scans,
    "tiff of 50,000 pages": tiff_of_ifds,
    "avif of 20,000 boxes inside each other": heif_of_boxes,
    "jpeg with EXIF directories in a ring": jpeg_of_exif,
}


class EndlessStream(io.RawIOBase):
    """So many bytes that begin like a JPEG, none of which are stored."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._chunks = self._make()

    def _make(self) -> Iterator[bytes]:
        yield b"\xff\xd8\xff\xe0"
        block = bytes(range(256)) * 4096
        while True:
            yield block

    def read(self, size: int = -1) -> bytes:
        """The next bytes, never more than wanted."""
        chunk = next(self._chunks)[: min(self._left, size if size >= 0 else self._left)]
        self._left -= len(chunk)
        return chunk

    def readable(self) -> bool:
        """Yes."""
        return True
