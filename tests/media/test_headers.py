"""The small header readers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.files import encode, oriented, png_chunk, scene, scene_rgba, write_png, write_tiff
from uploadguard.media import headers
from uploadguard.media.base import DecodeError, UnsupportedError


def exif_block(value: int, *, order: str = "<", kind: int = 3, entries: int = 1) -> bytes:
    """A TIFF structure with one tag."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHIHHI", entries, 0x0112, kind, 1, value, 0, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_values(value: int, order: str) -> None:
    block = exif_block(value, order=order)
    assert headers.exif_orientation(block) == value
    assert headers.exif_orientation(b"Exif\0\0" + block) == value


@pytest.mark.parametrize(
    "block",
    [
        None,
        b"",
        b"Exif\0\0",
        b"II*\0\xff\xff\xff\xff",
        exif_block(0),
        exif_block(9),
        exif_block(6, kind=7),
        exif_block(6)[:14],
        b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 20,
    ],
)
def test_bad_exif_means_upright(block: bytes | None) -> None:
    assert headers.exif_orientation(block) == 1


@given(st.binary(max_size=200))
def test_exif_never_raises(block: bytes) -> None:
    assert headers.exif_orientation(block) in range(1, 9)
    assert headers.exif_orientation(b"II*\0\x08\0\0\0" + block) in range(1, 9)


def test_jpeg_header() -> None:
    header = headers.jpeg_header(memoryview(encode(scene(65, 33), "JPEG", exif=oriented(6), progressive=True)))
    assert (header.width, header.height, header.components, header.orientation) == (65, 33, 3, 6)
    assert not header.lossless


def test_jpeg_header_skips_fill_bytes_and_junk() -> None:
    data = encode(scene(), "JPEG")
    padded = data[:2] + b"\xff\xff\xff\xff" + data[3:20] + b"junk\xff\0" + data[20:]
    assert headers.jpeg_header(memoryview(padded)) == headers.jpeg_header(memoryview(data))


def sof(data: bytes) -> int:
    """Where the frame header's marker stands."""
    return data.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d, at: d[:at] + b"\xff\xc5" + d[at + 2 :], UnsupportedError),
        (lambda d, at: d[: at + 4] + b"\x0c" + d[at + 5 :], UnsupportedError),
        (lambda d, at: d[: at + 9] + b"\x02" + d[at + 10 :], UnsupportedError),
        (lambda d, at: d[: at + 5] + b"\0\0" + d[at + 7 :], DecodeError),
        (lambda d, at: d[:at] + d[at : at + 19] + d[at:], DecodeError),
        (lambda d, at: d[:at] + d[at + 19 :], DecodeError),
        (lambda d, at: d[:at] + b"\xff\xd8" + d[at:], DecodeError),
        (lambda d, at: d[:at] + b"\xff\xd9" + d[at:], DecodeError),
        (lambda d, at: d[: at + 6], DecodeError),
    ],
)
def test_jpeg_headers_that_libjpeg_would_refuse(change: object, error: type[DecodeError]) -> None:
    data = encode(scene(), "JPEG")
    changed = change(data, sof(data))  # type: ignore[operator]
    with pytest.raises(error):
        headers.jpeg_header(memoryview(changed))


def test_png_header() -> None:
    samples = np.zeros((5, 7, 1), np.uint8)
    exif = png_chunk(b"eXIf", exif_block(8))
    header = headers.png_header(memoryview(write_png(samples, 4, 0, exif)))
    assert header == headers.PngHeader(7, 5, 4, animated=False, orientation=8)
    assert headers.png_header(memoryview(write_png(samples, 4, 0, png_chunk(b"acTL", b"\0\0\0\2\0\0\0\0")))).animated


def test_gif_header_counts_and_grows_the_canvas() -> None:
    frames = [scene(40 + step, 30).quantize(16) for step in range(3)]
    data = encode(frames[0], "GIF", save_all=True, append_images=[frames[0].rotate(90), frames[0].rotate(180)])
    header = headers.gif_header(memoryview(data))
    assert (header.width, header.height, header.frames_total) == (40, 30, 3)
    at = data.index(b"\x2c\0\0\0\0")
    moved = bytearray(data)
    moved[at + 1 : at + 3] = struct.pack("<H", 500)
    assert headers.gif_header(memoryview(bytes(moved))).width == 540


def test_gif_header_gives_up_on_junk() -> None:
    with pytest.raises(DecodeError):
        headers.gif_header(memoryview(b"GIF89a" + b"\1\0\1\0\0\0\0" + b"x" * 100_000))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp_size(lossless: bool, alpha: bool) -> None:
    picture = scene_rgba(33, 17) if alpha else scene(33, 17)
    assert headers.webp_size(memoryview(encode(picture, "WEBP", lossless=lossless))) == (33, 17)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_pages(order: str, big: bool) -> None:
    page = (np.zeros((4, 4, 1), np.uint8), 8, 1)
    for pages in (1, 3):
        assert headers.tiff_page_count(memoryview(write_tiff([page] * pages, order=order, big=big))) == pages


def test_tiff_loops_end_and_floods_are_refused() -> None:
    data = bytearray(write_tiff([(np.zeros((4, 4, 1), np.uint8), 8, 1)] * 2))
    data[-4:] = data[4:8]
    assert headers.tiff_page_count(memoryview(bytes(data))) == 2
    flood = b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(5000)) + b"\0" * 8
    with pytest.raises(DecodeError, match="more than 4,096 pages"):
        headers.tiff_page_count(memoryview(flood))


def test_cut_off_boxes_show() -> None:
    data = encode(scene(), "AVIF", speed=10)
    assert headers.is_bmff_complete(memoryview(data))
    assert headers.is_bmff_complete(memoryview(data + b"\0" * 100))
    assert not headers.is_bmff_complete(memoryview(data[:-1]))
