"""Content decides what a file is."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.files import encode, scene
from uploadguard.media.sniff import HEAD_BYTES, sniff


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    """A file type box and the start of another."""
    body = major + b"\0\0\0\0" + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + b"\0\0\0\x20metaheic"


@pytest.mark.parametrize(
    ("file_format", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
        ("AVIF", "image/avif"),
        ("PPM", "image/x-portable-anymap"),
        ("ICO", "image/x-icon"),
        ("JPEG2000", "image/jp2"),
        ("PDF", "application/pdf"),
        ("QOI", "image/qoi"),
    ],
)
def test_files_that_pillow_writes(file_format: str, media_type: str) -> None:
    assert sniff(encode(scene(), file_format)[:HEAD_BYTES]) == media_type


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (ftyp(b"avif", b"mif1"), "image/avif"),
        (ftyp(b"avis"), "image/avif"),
        (ftyp(b"heic", b"mif1"), "image/heic"),
        (ftyp(b"hevx"), "image/heic"),
        (ftyp(b"mif1", b"mif1", b"heic"), "image/heic"),
        (ftyp(b"mif1", b"miaf", b"avif"), "image/avif"),
        (ftyp(b"msf1", b"hevc"), "image/heic"),
        (ftyp(b"mif1", b"miaf"), "image/heif"),
        (ftyp(b"isom", b"avc1", b"mp41"), "video/mp4"),
        (ftyp(b"isom", b"heic"), "video/mp4"),
        (ftyp(b"qt  "), "video/quicktime"),
        (ftyp(b"3gp5"), "video/3gpp"),
        (ftyp(b"crx "), "image/x-canon-cr3"),
        (b"II+\0\x08\0\0\0", "image/tiff"),
        (b"MM\0+\0\x08\0\0", "image/tiff"),
        (b"\x1aE\xdf\xa3\x9fB\x82\x84webm", "video/webm"),
        (b"\x1aE\xdf\xa3\x9fB\x82\x88matroska", "video/x-matroska"),
        (b"8BPS\0\x01", "image/vnd.adobe.photoshop"),
        (b"PK\x03\x04", "application/zip"),
        (b"\xff\x0a\xfa", "image/jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- c -->\n<SVG xmlns=''>", "image/svg+xml"),
        (b"  <svg>", "image/svg+xml"),
        (b"<!DOCTYPE html><p>", "text/html"),
    ],
)
def test_named_by_content(head: bytes, media_type: str) -> None:
    assert sniff(head) == media_type


@pytest.mark.parametrize("head", [b"", b"BM", b"BMW is a maker of cars, and this is a text", b"GIF", b"hello", b"RIFF"])
def test_nothing_recognised(head: bytes) -> None:
    assert sniff(head) is None


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"GIF89a/*" + b"\0" * 8 + b"*/=1;alert(1)//<svg>", "image/gif"),
        (b"\xff\xd8\xff\xe0%PDF-1.4 PK\x03\x04", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n<html><script>", "image/png"),
        (b"%PDF-1.4\n\xff\xd8\xff\xe0", "application/pdf"),
    ],
)
def test_polyglots_are_what_they_begin_as(head: bytes, media_type: str) -> None:
    assert sniff(head) == media_type


@given(st.binary(max_size=64))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    assert sniff(head) is None or "/" in str(sniff(head))
