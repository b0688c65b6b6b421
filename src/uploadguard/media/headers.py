"""Small readers of file headers: what must be known before a decoder library may take memory or time.

All of them take a flat view of the whole file, touch only headers, and raise
:class:`~uploadguard.media.base.DecodeError` for a file they cannot follow.
"""

from __future__ import annotations

import itertools
import re
import struct
from dataclasses import dataclass

from uploadguard.media.base import DecodeError, UnsupportedError

__all__ = [
    "GifHeader",
    "JpegHeader",
    "PngHeader",
    "exif_orientation",
    "gif_header",
    "is_bmff_complete",
    "jpeg_header",
    "png_header",
    "tiff_page_count",
    "webp_size",
]

MAX_TIFF_PAGES = 4096
_MAX_IFD_ENTRIES = 512
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def exif_orientation(block: bytes | memoryview | None) -> int:
    """The orientation, 1 to 8, that an EXIF block states; 1 where it states none or cannot be read. Never raises."""
    if not block:
        return 1
    view = memoryview(block)
    if bytes(view[:6]) == b"Exif\0\0":
        view = view[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(view[:4]))
    if order is None:
        return 1
    try:
        (ifd,) = struct.unpack_from(f"{order}I", view, 4)
        (entries,) = struct.unpack_from(f"{order}H", view, ifd)
        for index in range(min(entries, _MAX_IFD_ENTRIES)):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", view, ifd + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """``components`` is 1, 3 or 4. ``lossless`` marks a process that libjpeg can neither scale nor turn to luma.

    ``progressive`` is for Huffman coding only. ``interleaved``: the first scan holds all components.
    """

    width: int
    height: int
    components: int
    lossless: bool
    progressive: bool
    orientation: int
    interleaved: bool


_SOF_SUPPORTED = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
_SOF_UNSUPPORTED = frozenset({0xC5, 0xC6, 0xC7, 0xC8, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MAX_JPEG_SEGMENTS = 10_000
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


def jpeg_header(data: memoryview) -> JpegHeader:
    """Read up to the first scan, by the same rules as libjpeg.

    The same rules matter: Pillow sizes its row buffer from this header, and libjpeg fills it from its own reading.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        raise DecodeError("not a JPEG file")
    frame: tuple[int, int, int, bool, bool] | None = None
    orientation = 1
    at = 2
    for segments in itertools.count():
        if segments == _MAX_JPEG_SEGMENTS:
            raise DecodeError(f"the JPEG header has more than {_MAX_JPEG_SEGMENTS:,} segments")
        at, marker = _next_jpeg_marker(data, at)
        if marker in _JPEG_BARE:
            continue
        if marker in _SOF_UNSUPPORTED:
            raise UnsupportedError("a JPEG of a coding process that is not supported")
        if marker not in _JPEG_TABLES and marker not in _SOF_SUPPORTED and marker != 0xDA:
            raise DecodeError("the JPEG header holds a marker that does not belong there")
        if at + 2 > len(data):
            raise DecodeError("the JPEG file ends inside its header")
        length = int.from_bytes(data[at : at + 2], "big")
        segment = data[at + 2 : at + max(length, 2)]
        if marker == 0xDA:
            break
        if marker in _SOF_SUPPORTED:
            if frame is not None:
                raise DecodeError("the JPEG header has two frames")
            frame = _jpeg_frame(segment, marker)
        elif marker == 0xE1 and orientation == 1 and bytes(segment[:6]) == b"Exif\0\0":
            orientation = exif_orientation(segment)
        at += max(length, 2)
    if frame is None:
        raise DecodeError("the JPEG file has a scan before its frame")
    return JpegHeader(*frame, orientation, len(segment) > 0 and segment[0] == frame[2])


def _next_jpeg_marker(data: memoryview, at: int) -> tuple[int, int]:
    """The place behind the next marker, and its code. Bytes between segments are skipped, as libjpeg does."""
    found = _JPEG_MARKER.search(data, at)
    if found is None:
        raise DecodeError("the JPEG file ends inside its header")
    return found.end(), data[found.end() - 1]


def _jpeg_frame(segment: memoryview, marker: int) -> tuple[int, int, int, bool, bool]:
    if len(segment) < 6:
        raise DecodeError("the JPEG file ends inside its header")
    precision_bits, height, width, components = struct.unpack_from(">BHHB", segment)
    if precision_bits != 8:
        raise UnsupportedError(f"a JPEG of {precision_bits} bits a sample")
    if components not in (1, 3, 4):
        raise UnsupportedError(f"a JPEG of {components} components")
    if len(segment) != 6 + 3 * components or not width or not height:
        raise DecodeError("the JPEG header is damaged")
    return width, height, components, marker == 0xC3, marker == 0xC2


@dataclass(frozen=True, slots=True)
class PngHeader:
    """``depth_bits`` is per sample. ``animated`` says that an animation control chunk precedes the picture."""

    width: int
    height: int
    depth_bits: int
    animated: bool
    orientation: int


_MAX_PNG_CHUNKS = 65_536


def png_header(data: memoryview) -> PngHeader:
    """Read IHDR, and look through the other chunks' headers for acTL and eXIf."""
    if len(data) < 33 or bytes(data[:8]) != b"\x89PNG\r\n\x1a\n" or bytes(data[12:16]) != b"IHDR":
        raise DecodeError("the PNG file does not begin with a whole header")
    width, height, depth_bits = struct.unpack_from(">IIB", data, 16)
    if not width or not height:
        raise DecodeError("the PNG header is damaged")
    animated = seen_idat = False
    orientation = 1
    at = 8
    for chunks in itertools.count():
        if at + 12 > len(data):
            break
        if chunks == _MAX_PNG_CHUNKS:
            raise DecodeError(f"the PNG file has more than {_MAX_PNG_CHUNKS:,} chunks")
        length = int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        if kind == b"IDAT":
            seen_idat = True
        elif kind == b"acTL" and not seen_idat:
            # Pillow shows the still picture of a file with two of these, browsers the animation.
            if animated or length != 8:
                raise DecodeError("the PNG file's animation header is damaged")
            animated = True
        elif kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            break
        at += 12 + length
    return PngHeader(width, height, depth_bits, animated, orientation)


@dataclass(frozen=True, slots=True)
class GifHeader:
    """``width`` and ``height`` are those of the canvas, grown to hold every frame."""

    width: int
    height: int
    frames_total: int


_MAX_GIF_JUNK_BYTES = 4096
_MAX_GIF_BLOCKS = 2_000_000
_MAX_GIF_FRAMES = 50_000


def gif_header(data: memoryview) -> GifHeader:
    """Walk all blocks without unpacking any; a file that ends early counts the frames that begin in it."""
    if len(data) < 13 or bytes(data[:4]) != b"GIF8":
        raise DecodeError("the GIF file does not begin with a whole header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    size = len(data)
    at = 13 + _colour_table_bytes(flags)
    frames_total = junk_bytes = blocks = 0
    while at < size and junk_bytes < _MAX_GIF_JUNK_BYTES:
        block = data[at]
        if block == 0x21:
            at += 2
        elif block == 0x2C:
            if at + 11 > size:
                break
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, at + 1)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames_total += 1
            at += 11 + _colour_table_bytes(flags)
        elif block == 0x3B:
            break
        else:
            at += 1
            junk_bytes += 1
            continue
        while at < size and data[at]:
            at += data[at] + 1
            blocks += 1
            if blocks > _MAX_GIF_BLOCKS:
                raise DecodeError(f"the GIF file has more than {_MAX_GIF_BLOCKS:,} blocks")
        at += 1
        if frames_total > _MAX_GIF_FRAMES:
            raise DecodeError(f"the GIF file has more than {_MAX_GIF_FRAMES:,} frames")
    if not frames_total:
        raise DecodeError("the GIF file holds no picture")
    return GifHeader(width, height, frames_total)


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def webp_size(data: memoryview) -> tuple[int, int]:
    """Width and height of the canvas, from the first chunk."""
    kind = bytes(data[12:16])
    if len(data) >= 30 and kind == b"VP8 " and bytes(data[23:26]) == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if len(data) >= 25 and kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(data) >= 30 and kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise DecodeError("the WebP header is damaged or cut off")


def tiff_page_count(data: memoryview) -> int:
    """Follow the chain of directories; more than :data:`MAX_TIFF_PAGES` are refused, as Pillow gets slow on them.

    A link that leads nowhere or back ends the chain, as in Pillow.
    """
    order = "<" if bytes(data[:2]) == b"II" else ">"
    big = bytes(data[2:4]) in (b"+\0", b"\0+")
    link, count, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    link_at = 8 if big else 4
    seen: set[int] = set()
    try:
        while True:
            (ifd,) = struct.unpack_from(f"{order}{link}", data, link_at)
            if not ifd or ifd in seen or ifd >= len(data):
                break
            seen.add(ifd)
            if len(seen) > MAX_TIFF_PAGES:
                raise DecodeError(f"the TIFF file has more than {MAX_TIFF_PAGES:,} pages")
            (entries,) = struct.unpack_from(f"{order}{count}", data, ifd)
            link_at = ifd + struct.calcsize(f"{order}{count}") + entry_bytes * entries
            if link_at >= len(data):
                break
    except struct.error:
        pass
    if not seen:
        raise DecodeError("the TIFF file has no directory")
    return len(seen)


_MAX_BMFF_BOXES = 65_536


def is_bmff_complete(data: memoryview) -> bool:
    """Whether no top-level box of an ISO base media file (AVIF, HEIC) runs past the file's end."""
    at = 0
    for boxes in itertools.count():
        if at + 8 > len(data):
            break
        if boxes == _MAX_BMFF_BOXES:
            raise DecodeError(f"the file has more than {_MAX_BMFF_BOXES:,} boxes")
        box_bytes = int.from_bytes(data[at : at + 4], "big")
        if box_bytes == 1:
            box_bytes = int.from_bytes(data[at + 8 : at + 16], "big")
        if box_bytes < 8 or not bytes(data[at + 4 : at + 8]).isascii():  # the last box, or no box at all
            return True
        at += box_bytes
    return at <= len(data)
