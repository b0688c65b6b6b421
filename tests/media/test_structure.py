"""Limits on what is not pixels, damage that decoders do not tell, and the codecs' versions."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.media.files import encode, png_chunk, write_tiff
from uploadguard.media import BUILTIN_DECODERS, codecs
from uploadguard.media.base import DecodeOptions, TooComplexError
from uploadguard.media.codecs import KNOWN_HOLES, codec_versions, refused_codecs, without_holes
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.intruders import find_intruders
from uploadguard.media.sniff import sniff
from uploadguard.media.source import BytesSource
from uploadguard.media.structure import Structure, Tally, read_structure
from uploadguard.models import FailureCode
from uploadguard.signals.pdq import Pdq
from uploadguard.testing.media import jpeg_followed_by, jpeg_with_thumbnail, make_photo

SIZE = (400, 300)


def photo(file_format: str = "JPEG", **options: Any) -> bytes:
    return encode(make_photo(*SIZE, 0), file_format, **options)


def inspect(data: bytes, **limits: int) -> Inspection:
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, [Pdq()], DecodeOptions(), Limits(**limits))


def codes(data: bytes, **limits: int) -> list[FailureCode]:
    return [failure.code for failure in inspect(data, **limits).failures]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def into_jpeg(*segments: bytes) -> bytes:
    return photo()[:2] + b"".join(segments) + photo()[2:]


def into_png(*chunks: bytes) -> bytes:
    return photo("PNG")[:33] + b"".join(chunks) + photo("PNG")[33:]


def boxes(depth: int) -> bytes:
    """An AVIF file with this many boxes inside each other behind it."""
    box = b""
    for _ in range(depth):
        box = struct.pack(">I4s", 8 + len(box), b"moov") + box
    return photo("AVIF") + box


def chained_directories(depth: int) -> bytes:
    """A TIFF whose first page leads to directories inside each other."""
    data = bytearray(write_tiff([(np.asarray(make_photo(*SIZE, 0)), 8, 2)], extra={34665: 1}))
    at = data.index(struct.pack("<HHI", 34665, 3, 1))
    for _ in range(depth):
        below = len(data)
        struct.pack_into("<HHII", data, at, 34665, 4, 1, below)
        data += struct.pack("<HHHIII", 1, 34665, 4, 1, 0, 0)
        at = below + 2
    return bytes(data)


_LIMIT_NAMES = [
    *("jpeg bytes", "jpeg parts", "png parts", "ztxt", "iccp", "itxt", "tiff depth", "gif", "webp", "tiff", "apng"),
    *("tiff bands", "jpeg bands"),
]


class TestLimits:
    @pytest.mark.parametrize(
        ("data", "limit", "most"),
        [
            (into_jpeg(*[segment(0xFE, bytes(60_000))] * 20), "max_metadata_bytes", 1_300_000),
            (into_jpeg(*[segment(0xFE, b"")] * 500), "max_metadata_parts", 550),
            (into_png(*[png_chunk(b"prVt", b"x")] * 500), "max_metadata_parts", 510),
            (into_png(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))), "max_metadata_bytes", 3_010_000),
            (into_png(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000)))), "max_metadata_bytes", 3_010_000),
            (
                into_png(png_chunk(b"iTXt", b"a\0\1\0en\0b\0" + zlib.compress(bytes(900_000)))),
                "max_metadata_bytes",
                910_000,
            ),
            (chained_directories(8), "max_metadata_depth", 9),
            (photo("GIF", save_all=True, append_images=[make_photo(*SIZE, s) for s in range(1, 10)]), "max_frames", 10),
            (
                photo("WEBP", save_all=True, append_images=[make_photo(*SIZE, s) for s in range(1, 10)]),
                "max_frames",
                10,
            ),
            (photo("TIFF", save_all=True, append_images=[make_photo(*SIZE, 1)] * 9), "max_frames", 10),
            (photo("PNG", save_all=True, append_images=[make_photo(*SIZE, s) for s in range(1, 10)]), "max_frames", 10),
            (photo("TIFF"), "max_bands", 3),
            (photo(), "max_bands", 3),
        ],
        ids=_LIMIT_NAMES,
    )
    def test_up_to_the_limit_and_no_further(self, data: bytes, limit: str, most: int) -> None:
        assert FailureCode.TOO_COMPLEX not in codes(data, **{limit: most})
        fewer = most - 1 if most < 100 else most * 4 // 5
        found = inspect(data, **{limit: fewer})
        assert [failure.code for failure in found.failures] == [FailureCode.TOO_COMPLEX]
        assert found.hashes == ()

    def test_boxes_in_boxes(self) -> None:
        assert FailureCode.TOO_COMPLEX not in codes(boxes(8), max_metadata_depth=9)
        assert codes(boxes(9), max_metadata_depth=9) == [FailureCode.TOO_COMPLEX]

    def test_the_longest_side(self) -> None:
        assert codes(photo(), max_side_pixels=400) == []
        assert codes(photo(), max_side_pixels=399) == [FailureCode.TOO_MANY_PIXELS]

    def test_a_bomb_of_text_is_not_unpacked(self) -> None:
        bomb = into_png(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 1)))
        assert len(bomb) < 2_000_000
        assert codes(bomb) == [FailureCode.TOO_COMPLEX]

    def test_directories_that_lead_in_circles_end(self) -> None:
        data = bytearray(chained_directories(1))
        at = data.rindex(struct.pack("<HHI", 34665, 4, 1))
        struct.pack_into("<I", data, at + 8, int.from_bytes(data[4:8], "little"))
        assert codes(bytes(data)) == []


def restarted(**changes: Any) -> tuple[bytes, list[int]]:
    """A JPEG with a restart marker after each row of blocks, and where these are."""
    data = photo(restart_marker_rows=1, **changes)
    start = data.index(b"\xff\xda")
    return data, [at for at in range(start, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]


class TestDamage:
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    def test_whole_files_with_restart_markers(self, subsampling: str) -> None:
        data, places = restarted(subsampling=subsampling)
        assert len(places) > 10
        assert codes(data) == []
        assert codes(photo(restart_marker_blocks=7, subsampling=subsampling)) == []
        assert codes(encode(make_photo(*SIZE, 0).convert("L"), "JPEG", restart_marker_blocks=3)) == []
        assert codes(photo(restart_marker_blocks=7, subsampling=subsampling, progressive=True)) == []

    def test_a_restart_marker_too_few(self) -> None:
        data, places = restarted()
        assert codes(data[: places[-1]] + data[places[-1] + 2 :]) == [FailureCode.TRUNCATED]

    def test_a_stretch_between_restart_markers_missing(self) -> None:
        data, places = restarted()
        assert codes(data[: places[3]] + data[places[6] :]) == [FailureCode.TRUNCATED]

    def test_an_early_end_after_a_restart_marker(self) -> None:
        data, places = restarted()
        assert codes(data[: places[8]] + b"\xff\xd9") == [FailureCode.TRUNCATED]

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
    @pytest.mark.parametrize("size", [(400, 300), (1600, 1200), (2400, 2200)])
    def test_data_that_runs_dry_before_the_end_marker(self, share: float, size: tuple[int, int]) -> None:
        """libjpeg fills the rest with grey, warns nobody, and Pillow is content."""
        data = encode(make_photo(*size, 0), "JPEG", quality=80)
        assert codes(data) == []
        assert FailureCode.TRUNCATED in codes(data[: int(len(data) * share)] + b"\xff\xd9")

    def test_a_dark_foot_is_not_taken_for_missing_data(self) -> None:
        picture = make_photo(*SIZE, 0)
        for value in (0, 128, 255):
            picture.paste((value,) * 3, (0, 150, 400, 300))
            assert codes(encode(picture, "JPEG")) == []

    def test_a_component_sent_twice(self) -> None:
        data = photo()
        start = data.index(b"\xff\xda")
        assert FailureCode.SHOWN_OTHERWISE in codes(data[:-2] + data[start:])

    def test_two_frames(self) -> None:
        data = photo()
        start = data.index(b"\xff\xc0")
        assert FailureCode.SHOWN_OTHERWISE in codes(data[:-2] + data[start:])

    def test_scans_of_one_component_each_are_no_repetition(self) -> None:
        assert codes(photo(progressive=True)) == []

    @pytest.mark.parametrize("file_format", ["PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG"])
    def test_cut_files_are_never_clean(self, file_format: str) -> None:
        data = photo(file_format)
        for share in (0.3, 0.6, 0.9):
            found = codes(data[: int(len(data) * share)])
            assert {FailureCode.TRUNCATED, FailureCode.DECODE_FAILED} & set(found)

    def test_libtiff_says_nothing_on_standard_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        data = bytearray(photo("TIFF", compression="tiff_lzw"))
        data[5000:5400] = b"\xff" * 400
        assert codes(bytes(data)) != []
        assert capfd.readouterr().err == ""


SEEDS = [photo(name) for name in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP")] + [
    jpeg_followed_by(jpeg_with_thumbnail()),
    boxes(3),
    chained_directories(3),
    into_png(png_chunk(b"iTXt", b"a\0\1\0en\0b\0" + zlib.compress(bytes(900)))),
]


class TestReaders:
    @settings(max_examples=int(os.environ.get("UPLOADGUARD_FUZZ_EXAMPLES", "200")), deadline=None)
    @given(st.data())
    def test_they_follow_anything_and_raise_one_thing_only(self, data: st.DataObject) -> None:
        file = bytearray(data.draw(st.sampled_from(SEEDS)))
        for _ in range(data.draw(st.integers(0, 12))):
            at = data.draw(st.integers(0, min(len(file) - 1, 3000)))
            part = data.draw(st.binary(max_size=8))
            file[at : at + data.draw(st.integers(0, 8))] = part
        media_type = sniff(bytes(file[:4096])) or "image/jpeg"
        tally = Tally(Limits(max_metadata_parts=2000))
        try:
            found = read_structure(memoryview(bytes(file)), media_type, tally)
            find_intruders(memoryview(bytes(file)), media_type, found, tally)
        except TooComplexError:
            return
        assert isinstance(found, Structure)
        assert all(0 <= part.start < part.stop for part in found.embedded)

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
    def test_the_end_of_a_picture_is_found(self, file_format: str) -> None:
        data = photo(file_format)
        media_type = sniff(data[:4096])
        assert media_type is not None
        for trailer in (b"", bytes(100), b"abc" * 50):
            found = read_structure(memoryview(data + trailer), media_type, Tally(Limits()))
            assert found.end == len(data)


class TestCodecs:
    def test_versions_are_told(self) -> None:
        versions = codec_versions()
        assert {"Pillow", "libjpeg-turbo", "libtiff", "libwebp", "libavif", "dav1d", "lcms2", "libvips"} <= set(
            versions
        )
        assert all(value[0].isdigit() or value.startswith("not ") for value in versions.values())

    def test_nothing_here_has_a_known_hole(self) -> None:
        assert refused_codecs(codec_versions()) == []

    def test_what_a_hole_reaches_is_not_decoded_and_the_rest_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "codec_versions", lambda: {"libwebp": "1.3.1"})
        decoders, holes = without_holes(BUILTIN_DECODERS, ())
        assert [hole.codec for hole in holes] == ["libwebp"]
        found = inspect_media(BytesSource(photo("WEBP")), decoders, [], DecodeOptions(), Limits())
        assert [failure.code for failure in found.failures] == [FailureCode.CODEC_REFUSED]
        assert "libwebp 1.3.1 has CVE-2023-4863" in found.failures[0].detail
        assert inspect_media(BytesSource(photo("JPEG")), decoders, [], DecodeOptions(), Limits()).failures == ()
        assert without_holes(BUILTIN_DECODERS, ["libwebp"]) == (BUILTIN_DECODERS, [])

    def test_a_plugins_decoder_goes_before_what_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Own:
            name = "own"
            media_types = frozenset({"image/webp"})

        monkeypatch.setattr(codecs, "codec_versions", lambda: {"libwebp": "1.3.1"})
        decoders, _ = without_holes((Own(), *BUILTIN_DECODERS), ())  # type: ignore[arg-type]
        assert [decoder.name for decoder in decoders][:2] == ["own", "refused"]

    @pytest.mark.parametrize("hole", KNOWN_HOLES, ids=lambda hole: hole.codec)
    def test_versions_with_holes_are_refused_by_name(self, hole: Any) -> None:
        numbers = [int(part) for part in hole.fixed_in.split(".")]
        older = f"{numbers[0] - 1}.99.9" if numbers[0] else f"0.{numbers[1] - 1}.9"
        for version in (older, f"{older}-5-gabcdef"):
            (refused,) = refused_codecs({hole.codec: version})
            assert (refused.version, refused.media_types) == (version, hole.media_types)
            assert str(refused) == f"{hole.codec} {version} has {hole.hole}, which {hole.fixed_in} fixes"
        for version in (hole.fixed_in, hole.fixed_in + ".1", f"{numbers[0] + 1}.0", "not told", "not installed"):
            assert refused_codecs({hole.codec: version}) == []

    def test_zeros_at_the_end_count_for_nothing(self) -> None:
        assert refused_codecs({"lcms2": "2.19", "Pillow": "13.0"}) == []

    def test_the_documentation_has_the_same_table(self) -> None:
        text = (Path(__file__).parents[2] / "docs/hostile-media.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| (CVE-\S+) \|$", text, re.MULTILINE)
        assert rows == [(hole.codec, hole.fixed_in, hole.hole) for hole in KNOWN_HOLES]

    def test_a_decoder_reads_every_type_that_can_be_refused(self) -> None:
        known = {name for decoder in BUILTIN_DECODERS for name in decoder.media_types}
        assert all(hole.media_types <= known and hole.media_types for hole in KNOWN_HOLES)


def test_pillow_opens_nothing_that_was_not_asked_for() -> None:
    """Decoders are chosen by the sniffed type: what Pillow itself would open is of no account."""
    for file_format in ("PPM", "TGA", "PCX", "ICO", "SGI", "JPEG2000"):
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (9, 99, 199)).save(out, file_format)
        assert codes(out.getvalue()) == [FailureCode.UNSUPPORTED_FORMAT]
