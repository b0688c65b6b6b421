"""Walks through headers are bounded: a small file cannot keep them busy, nor hide from them what browsers read."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.progressive import needed_scans
from uploadguard.media.source import BytesSource
from uploadguard.models import FailureCode
from uploadguard.signals.pdq import Pdq


def inspect(data: bytes) -> Inspection:
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, [Pdq()], DecodeOptions(), Limits())


def codes(data: bytes) -> list[FailureCode]:
    return [failure.code for failure in inspect(data).failures]


def encoded(format_name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(out, format_name, **options)
    return out.getvalue()


def animated(format_name: str) -> bytes:
    frames = [Image.radial_gradient("L").rotate(angle) for angle in (0, 30, 60)]
    out = io.BytesIO()
    frames[0].save(out, format_name, save_all=True, append_images=frames[1:])
    return out.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_an_animation_cannot_hide_behind_chunks() -> None:
    data = animated("PNG")
    assert inspect(data).media.frames_total == 3
    assert codes(data[:33] + chunk(b"prVt") * 65_540 + data[33:]) == [FailureCode.TOO_COMPLEX]


@pytest.mark.parametrize("body", [struct.pack(">II", 3, 0), b"", b"\0" * 9])
def test_an_animation_cannot_hide_behind_a_second_or_odd_header(body: bytes) -> None:
    data = animated("PNG")
    assert codes(data[:33] + chunk(b"acTL", body) + data[33:]) == [FailureCode.DECODE_FAILED]


def test_a_side_beyond_any_real_picture_is_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 20_000_000, 5, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND")
    assert codes(data) == [FailureCode.TOO_MANY_PIXELS]


def test_segments_of_a_jpeg_are_counted() -> None:
    data = encoded("JPEG", progressive=True)
    comment = b"\xff\xfe\x00\x02"
    assert codes(data[:2] + comment * 9_000 + data[2:]) == []
    assert codes(data[:2] + comment * 10_001 + data[2:]) == [FailureCode.DECODE_FAILED]
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    assert needed_scans(memoryview(data), luma=True, scale=4) is not None
    assert needed_scans(memoryview(data[:second] + comment * 10_001 + data[second:]), luma=True, scale=4) is None


def test_blocks_and_frames_of_a_gif_are_counted() -> None:
    data = animated("GIF")
    start = data.index(b"\x21\xf9")
    comment = b"\x21\xfe" + b"\x01a" * 2_000_001 + b"\0"
    assert codes(data[:start] + comment + data[start:]) == [FailureCode.DECODE_FAILED]
    frame = b"\x2c" + bytes(4) + struct.pack("<HHB", 1, 1, 0) + b"\x02\x02\x4c\x01\x00"
    assert codes(data[:-1] + frame * 10_001 + b"\x3b") == [FailureCode.TOO_COMPLEX]


def test_boxes_of_an_avif_are_counted() -> None:
    data = encoded("AVIF")
    assert codes(data) == []
    assert codes(data + b"\0\0\0\x08free" * 65_540) == [FailureCode.DECODE_FAILED]
