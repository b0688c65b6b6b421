"""Files that two programs read differently: what else they show is hashed, or the decision says that it was not."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media import profiles
from tests.media.files import encode, png_chunk, write_png, write_tiff
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions
from uploadguard.media.colour import tone_table
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.media.structure import Structure
from uploadguard.models import FailureCode, Match, Verdict
from uploadguard.policy import Policy, SignalDefaults, decide
from uploadguard.signals.pdq import Pdq
from uploadguard.testing.media import (
    gif_script,
    jpeg_followed_by,
    jpeg_with_thumbnail,
    make_photo,
    transparent_png,
    two_faced_png,
    zip_archive,
)

SIZE = (400, 300)
LIMIT_BITS = 31


def inspect(data: bytes, **options: Any) -> Inspection:
    return inspect_media(BytesSource(data), BUILTIN_DECODERS, [Pdq()], DecodeOptions(**options), Limits())


def codes(data: bytes) -> list[FailureCode]:
    return [failure.code for failure in inspect(data).failures]


def faces(data: bytes) -> dict[str, bytes]:
    """Each face's hash; the frame's own under the empty name."""
    found = (item for item in inspect(data).hashes if item.variant.endswith("original"))
    return {item.variant.rpartition(".")[0]: item.value for item in found}


def photo(seed: int = 0, file_format: str = "JPEG", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    return encode(make_photo(*size, seed), file_format, **options)


def distance_bits(one: bytes, picture: Image.Image) -> int:
    other = faces(encode(picture, "PNG"))[""]
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def shows(hash_value: bytes, seed: int) -> bool:
    return distance_bits(hash_value, make_photo(*SIZE, seed)) <= LIMIT_BITS


def png_pixels(data: bytes) -> bytes:
    """What the IDAT chunks of a sound PNG hold."""
    at, found = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            found += data[at + 8 : at + 8 + size]
        at += 12 + size
    return found


FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF")
PROGRAM = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(100)
INTRUDERS = {
    "zip": zip_archive(),
    "rar": b"Rar!\x1a\x07\x01\0" + bytes(64),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(64),
    "gzip": b"\x1f\x8b\x08\0" + bytes(64),
    "pdf": b"%PDF-1.7\n1 0 obj\n",
    "html": b"<!DOCTYPE html><body>hello",
    "php": b"\n\n<?php echo 1;",
    "php behind text": b"harmless words " * 200 + b"<?PHP echo 1;",
    "shell script": b"#!/bin/sh\necho\n",
    "elf": b"\x7fELF\x02\x01\x01" + bytes(64),
    "windows program": PROGRAM,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


class TestAppended:
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_whole_files_have_nothing_appended(self, file_format: str) -> None:
        assert codes(photo(file_format=file_format)) == []

    @pytest.mark.parametrize("kind", INTRUDERS)
    def test_other_files_behind_a_picture_are_named(self, kind: str) -> None:
        found = inspect(jpeg_followed_by(INTRUDERS[kind]))
        assert [failure.code for failure in found.failures] == [FailureCode.APPENDED_CONTENT]
        assert "follows the picture" in found.failures[0].detail
        assert found.hashes

    @pytest.mark.parametrize("file_format", FORMATS)
    @pytest.mark.parametrize("kind", ["zip", "rar", "html"])
    def test_in_every_format(self, file_format: str, kind: str) -> None:
        assert FailureCode.APPENDED_CONTENT in codes(photo(file_format=file_format) + INTRUDERS[kind])

    @pytest.mark.parametrize(
        "trailer",
        [
            bytes(5000),
            b"\xff" * 100,
            b"\0\0\0\x18ftypmp42" + bytes(200),
            b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + bytes(300) + b"SEFHe\0\0\0SEFT",
            b"vendor notes, version 3",
            b"MZ and no program",
        ],
        ids=["zeros", "ones", "motion photo", "maker's trailer", "text", "two letters"],
    )
    def test_what_cameras_append_is_let_be(self, trailer: bytes) -> None:
        assert codes(jpeg_followed_by(trailer)) == []

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
    @pytest.mark.parametrize("padding", [b"", bytes(100)])
    def test_another_picture_behind_it_is_hashed(self, file_format: str, padding: bytes) -> None:
        data = jpeg_followed_by(padding + photo(seed=5, file_format=file_format))
        assert codes(data) == []
        assert shows(faces(data)["appended"], 5)

    def test_several_pictures_and_then_an_archive(self) -> None:
        data = jpeg_followed_by(photo(seed=5) + photo(seed=6) + zip_archive())
        found = faces(data)
        assert shows(found["appended"], 5)
        assert shows(found["appended2"], 6)
        assert codes(data) == [FailureCode.APPENDED_CONTENT]

    def test_more_pictures_than_are_hashed(self) -> None:
        assert codes(jpeg_followed_by(photo(seed=5) * 5)) == [FailureCode.PICTURES_UNHASHED]

    def test_a_picture_that_cannot_be_decoded_is_told(self) -> None:
        assert codes(jpeg_followed_by(photo(seed=5, file_format="PNG")[:40])) == [FailureCode.PICTURES_UNHASHED]

    def test_an_animation_behind_it_is_told(self) -> None:
        frames = [make_photo(*SIZE, seed) for seed in (5, 6)]
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert codes(jpeg_followed_by(data)) == [FailureCode.PICTURES_UNHASHED]


def with_comment(text: bytes) -> bytes:
    return photo()[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + photo()[2:]


_POLYGLOT_NAMES = [
    *("pdf", "pdf further in", "zip", "php", "html", "rar", "gif script", "gif html", "bmp script", "jpeg script"),
    *("png php", "dicom"),
]


class TestPolyglots:
    @pytest.mark.parametrize(
        "data",
        [
            with_comment(b"%PDF-1.7\n"),
            with_comment(bytes(2000) + b"%PDF-1.7\n"),
            with_comment(zip_archive()),
            with_comment(b"<?php system($_GET['c']); ?>"),
            with_comment(b"<script>alert(1)</script>"),
            with_comment(INTRUDERS["rar"]),
            gif_script(),
            photo(file_format="GIF", comment=b"<script src=//example.org>"),
            b"BM//" + photo(file_format="BMP")[4:],
            photo()[:2] + b"\xff\xe0/*" + bytes(0x2F2A - 2) + photo()[2:],
            photo(file_format="PNG")[:33] + png_chunk(b"tEXt", b"a\0<?php") + photo(file_format="PNG")[33:],
            b"II*\0" + struct.pack("<I", 132) + bytes(120) + b"DICM" + bytes(200),
        ],
        ids=[
            "pdf",
            "pdf_later",
            "zip",
            "php",
            "html",
            "rar",
            "gif_script",
            "gif_html",
            "bmp_script",
            "jpeg_script",
            "png_php",
            "dicom",
        ],
    )
    def test_they_are_named(self, data: bytes) -> None:
        assert FailureCode.POLYGLOT in codes(data)

    def test_an_archive_that_counts_from_the_start_of_the_picture(self) -> None:
        archive = bytearray(zip_archive())
        picture = photo()
        at = archive.rindex(b"PK\x05\x06")
        directory_at = int.from_bytes(archive[at + 16 : at + 20], "little")
        struct.pack_into("<I", archive, at + 16, directory_at + len(picture))
        struct.pack_into("<I", archive, directory_at + 42, len(picture))
        assert codes(picture + bytes(archive)) == [FailureCode.APPENDED_CONTENT]

    def test_a_bitmap_of_the_right_size_is_no_script(self) -> None:
        data = bytearray(photo(file_format="BMP", size=(10, 10)))
        data += bytes(0x2F2F - len(data))
        struct.pack_into("<I", data, 2, len(data))
        assert data[2:4] == b"//"
        assert FailureCode.POLYGLOT not in codes(bytes(data))


class TestThumbnails:
    def test_another_picture_as_thumbnail_is_hashed(self) -> None:
        found = faces(jpeg_with_thumbnail(0, thumbnail_seed=1))
        assert shows(found[""], 0)
        assert shows(found["thumbnail"], 1)

    def test_the_same_picture_adds_nothing(self) -> None:
        assert set(faces(jpeg_with_thumbnail(0, thumbnail_seed=0))) == {""}

    def test_in_a_png_and_a_webp(self) -> None:
        data = jpeg_with_thumbnail(0, thumbnail_seed=1)
        block = data[12 : 4 + int.from_bytes(data[4:6])]
        for file_format in ("PNG", "WEBP"):
            assert shows(faces(photo(file_format=file_format, exif=b"Exif\0\0" + block))["thumbnail"], 1)

    def test_in_photoshop_resources(self) -> None:
        thumbnail = photo(seed=1, size=(160, 120))
        resource = b"8BIM" + struct.pack(">H", 0x040C) + b"\0\0" + struct.pack(">I", 28 + len(thumbnail)) + bytes(28)
        body = b"Photoshop 3.0\0" + resource + thumbnail
        data = photo()[:2] + b"\xff\xed" + (len(body) + 2).to_bytes(2) + body + photo()[2:]
        assert shows(faces(data)["thumbnail"], 1)

    def test_a_broken_one_is_nobodys_loss(self) -> None:
        data = bytearray(jpeg_with_thumbnail())
        at = data.index(b"\xff\xd8", 2)
        data[at : at + 400] = bytes(400)
        assert codes(bytes(data)) == []

    def test_an_allow_listed_picture_does_not_clear_its_thumbnail(self) -> None:
        policy = Policy(signal_types={"pdq": SignalDefaults(31, 256, digest=False)})
        allowed = Match("reviewed", "1", None, "pdq", 0, allow=True)
        for variant, verdict in (("original", Verdict.ALLOW), ("thumbnail.original", Verdict.QUEUE)):
            listed = Match("known", "2", None, "pdq", 3, variant=variant)
            assert decide([allowed, listed], [], policy, tenant=None).verdict is verdict


class TestTransparency:
    def test_what_shows_over_black_is_hashed(self) -> None:
        found = faces(two_faced_png(0, dark_seed=1))
        assert shows(found[""], 0)
        assert shows(found["other_ground"], 1)

    def test_what_a_conversion_without_alpha_shows_is_hashed(self) -> None:
        picture = make_photo(*SIZE, 3)
        picture.putalpha(1)
        found = faces(encode(picture, "PNG"))
        assert shows(found["bare"], 3)
        assert not shows(found[""], 3)

    @pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "AVIF"])
    def test_in_every_format_with_alpha(self, file_format: str) -> None:
        picture = Image.open(io.BytesIO(two_faced_png())).convert("RGBA")
        options = {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "AVIF" else {}
        assert shows(faces(encode(picture, file_format, **options))["other_ground"], 1)

    def test_one_transparent_colour(self) -> None:
        picture = make_photo(*SIZE, 2).convert("L").point(lambda value: value // 2)
        data = encode(picture, "PNG", transparency=40)
        assert {"other_ground", "bare"} <= set(faces(data)) or set(faces(data)) == {""}

    def test_opaque_alpha_costs_nothing(self) -> None:
        picture = make_photo(*SIZE, 2)
        picture.putalpha(255)
        assert set(faces(encode(picture, "PNG"))) == {""}

    def test_large_pictures_are_the_same_scaled(self) -> None:
        picture = Image.open(io.BytesIO(two_faced_png())).resize((2101, 2203), Image.Resampling.BOX)
        found = faces(encode(picture, "PNG", compress_level=1))
        small = faces(two_faced_png())
        for name in ("other_ground", "bare"):
            assert (int.from_bytes(found[name]) ^ int.from_bytes(small[name])).bit_count() <= 24

    def test_the_other_ground_of_a_dark_background_is_white(self) -> None:
        found = inspect(transparent_png(), background=(0, 0, 0))
        light = inspect(transparent_png(), background=(255, 255, 255))
        own = {item.variant: item.value for item in found.hashes}
        assert own["other_ground.original"] == next(h.value for h in light.hashes if h.variant == "original")


class TestColour:
    def test_a_gamma_far_off_is_followed(self) -> None:
        light = np.asarray(make_photo(*SIZE, 1).convert("L"), np.float64) / 255
        samples = np.round(light ** (2.2 * 0.02) * 65_535).astype(np.uint16)[:, :, None]
        data = write_png(samples, 16, 0, png_chunk(b"gAMA", struct.pack(">I", 2_000)))
        assert shows(faces(data)["tone"], 1)

    def test_in_eight_bits_with_alpha(self) -> None:
        picture = make_photo(*SIZE, 1).convert("LA")
        picture.putalpha(200)
        data = encode(picture, "PNG")
        data = data[:33] + png_chunk(b"gAMA", struct.pack(">I", 5_000)) + data[33:]
        assert "tone" in faces(data)

    @pytest.mark.parametrize("gamma", [45_455, 55_556, 0])
    def test_usual_gammas_add_nothing(self, gamma: int) -> None:
        data = photo(file_format="PNG")
        assert set(faces(data[:33] + png_chunk(b"gAMA", struct.pack(">I", gamma)) + data[33:])) == {""}

    def test_srgb_goes_before_gamma_and_chromaticities(self) -> None:
        data = photo(file_format="PNG")
        odd = png_chunk(b"gAMA", struct.pack(">I", 2_000)) + png_chunk(b"cHRM", struct.pack(">8I", *range(8)))
        assert codes(data[:33] + odd + data[33:]) == [FailureCode.SHOWN_OTHERWISE]
        assert codes(data[:33] + odd + png_chunk(b"sRGB", b"\0") + data[33:]) == []
        assert set(faces(data[:33] + odd + png_chunk(b"sRGB", b"\0") + data[33:])) == {""}

    def test_a_transfer_curve_of_a_cicp_chunk_is_followed(self) -> None:
        light = np.asarray(make_photo(*SIZE, 1).convert("L"), np.uint8)
        data = encode(Image.fromarray(np.where(light < 128, light // 4, light)), "PNG")
        assert "tone" in faces(data[:33] + png_chunk(b"cICP", bytes((1, 8, 0, 1))) + data[33:])

    @pytest.mark.parametrize(("transfer", "white"), [(8, 65_535), (16, 38_000), (18, 49_000)])
    def test_tone_curves_rise_from_black_to_white(self, transfer: int, white: int) -> None:
        """Linear light, PQ with white at 203 candelas (0.58), HLG (0.75)."""
        table = tone_table(Structure(transfer=transfer))
        assert table is not None
        values = np.frombuffer(table, np.uint8)
        assert (len(values), values[0], values[-1]) == (65_536, 0, 255)
        assert (np.diff(values.astype(int)) >= 0).all()
        assert abs(int(np.argmax(values >= 254)) - white) < 2_500

    @pytest.mark.parametrize("transfer", [1, 2, 6, 13])
    def test_usual_transfer_curves_need_no_table(self, transfer: int) -> None:
        assert tone_table(Structure(transfer=transfer)) is None

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_a_profile_that_makes_another_picture_is_followed(self, file_format: str) -> None:
        """The samples are a light picture in coarse steps, with a dark one between the steps."""
        steps = np.linspace(0, 1, 256)
        tone = profiles.curve((steps * 8) % 1.0)
        profile = profiles.profile(profiles.SRGB, tone)
        high = np.asarray(make_photo(*SIZE, 0).convert("L"), int) // 32 * 32
        shown = np.asarray(make_photo(*SIZE, 1).convert("L"), float) / 255
        low = np.round(np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4) * 29 + 1).astype(int)
        image = Image.fromarray((high + low).astype(np.uint8)).convert("RGB")
        options: dict[str, Any] = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(
            file_format, {}
        )
        found = faces(encode(image, file_format, icc_profile=profile, **options))
        assert shows(found["profile"], 1)
        assert not shows(found[""], 1)

    @pytest.mark.parametrize("primaries", ["SRGB", "DISPLAY_P3", "ADOBE_RGB", "PROPHOTO"])
    def test_real_colour_spaces_add_nothing(self, primaries: str) -> None:
        profile = profiles.profile(
            getattr(profiles, primaries), profiles.gamma(1.8 if primaries == "PROPHOTO" else 2.2)
        )
        assert set(faces(photo(icc_profile=profile))) == {""}

    @pytest.mark.parametrize("profile", [b"x", bytes(200), b"\xff" * 3000])
    def test_what_is_no_profile_is_ignored(self, profile: bytes) -> None:
        assert codes(photo(icc_profile=profile)) == []

    def test_an_animation_with_an_odd_profile_is_told(self) -> None:
        profile = profiles.profile(profiles.SRGB, profiles.curve(np.linspace(1, 0, 256).tolist()))
        frames = [make_photo(*SIZE, seed) for seed in (5, 6)]
        data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], icc_profile=profile)
        assert codes(data) == [FailureCode.SHOWN_OTHERWISE]


def avif_with(properties: bytes, plain: bytes | None = None) -> bytes:
    """An AVIF file with more item properties, which belong to no item."""
    data = bytearray(plain if plain is not None else photo(file_format="AVIF"))
    places = [data.index(kind) - 4 for kind in (b"meta", b"iprp", b"ipco")]
    pixels_at = data.index(b"mdat") + 4
    at = places[2] + int.from_bytes(data[places[2] : places[2] + 4])
    located = data.index(struct.pack(">I", pixels_at), places[0])
    struct.pack_into(">I", data, located, pixels_at + len(properties))
    for place in places:
        struct.pack_into(">I", data, place, int.from_bytes(data[place : place + 4]) + len(properties))
    return bytes(data[:at] + properties + data[at:])


class TestBoxes:
    def test_a_clean_aperture_is_followed(self) -> None:
        """The right half of a picture of two halves."""
        clap = struct.pack(">I4s8i", 40, b"clap", 400, 1, 300, 1, 200, 1, 0, 1)
        wide = Image.new("RGB", (800, 300))
        wide.paste(make_photo(*SIZE, 0), (0, 0))
        wide.paste(make_photo(*SIZE, 1), (400, 0))
        plain = encode(wide, "AVIF", quality=90)
        assert shows(faces(avif_with(clap, plain))["aperture0"], 1)
        assert set(faces(plain)) == {""}

    def test_an_aperture_that_cannot_be_read_is_told(self) -> None:
        assert codes(avif_with(struct.pack(">I4s8i", 40, b"clap", 400, 0, 300, 1, 0, 1, 0, 1))) == [
            FailureCode.SHOWN_OTHERWISE
        ]

    def test_a_still_picture_beside_an_animation_is_told(self) -> None:
        data = photo(file_format="AVIF")
        assert codes(data + struct.pack(">I4s", 8, b"moov")) == [FailureCode.SHOWN_OTHERWISE]

    def test_high_dynamic_range_is_followed(self) -> None:
        data = avif_with(struct.pack(">I4s4s3HB", 19, b"colr", b"nclx", 9, 16, 9, 128))
        assert codes(data) == []
        assert set(faces(data)) <= {"", "tone"}


class TestFrames:
    def test_the_still_picture_of_an_animated_png_is_hashed(self) -> None:
        """The default image is no part of the animation, and shown by viewers that know no animation."""
        still, *others = (make_photo(*SIZE, seed) for seed in (1, 2, 3))
        data = encode(still, "PNG", save_all=True, append_images=others, default_image=True)
        found = inspect(data)
        own = {item.frame: item.value for item in found.hashes if item.variant == "original"}
        assert [shows(own[frame], frame + 1) for frame in range(3)] == [True] * 3

    @pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
    def test_one_frame_among_many_is_found_wherever_it_is(self, file_format: str) -> None:
        frames = [make_photo(200, 150, 1) for _ in range(30)]
        for index, frame in enumerate(frames):
            frame.putpixel((index, 0), (255, 0, 0))
        frames[17] = make_photo(200, 150, 7)
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
        hashes = [item.value for item in inspect(data).hashes if item.variant == "original"]
        assert any(distance_bits(value, make_photo(200, 150, 7)) <= LIMIT_BITS for value in hashes)
        assert len(hashes) < 10

    @pytest.mark.parametrize("whole", [True, False])
    @pytest.mark.parametrize("trick", ["fewer", "none", "late", "before", "twice"])
    def test_an_animation_whose_chunks_disagree_is_told(self, trick: str, whole: bool) -> None:
        """Some viewers go by the count, some by the chunks, and those without animation show the IDAT chunks."""
        shown, other = (png_pixels(photo(seed, "PNG")) for seed in (0, 1))
        still, frame = png_chunk(b"IDAT", shown), png_chunk(b"fdAT", struct.pack(">I", 2) + other)
        control, first, second = (
            png_chunk(b"acTL", struct.pack(">II", {"fewer": 1, "none": 0, "before": 1}.get(trick, 2), 0)),
            *(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *SIZE, 0, 0, 1, 10, 0, 0)) for number in (0, 1)),
        )
        sound = [control, first, still, second, frame]
        chunks = {
            "late": [still, control, first, second, frame],
            "before": [control, first, png_chunk(b"fdAT", struct.pack(">I", 1) + other), still],
            "twice": [control, first, still, second, frame, png_chunk(b"IDAT", other)],
        }.get(trick, sound)
        start, end = photo(0, "PNG")[:33], png_chunk(b"IEND", b"")
        assert codes(start + b"".join([png_chunk(b"acTL", struct.pack(">II", 2, 0)), *sound[1:], end])) == []
        assert FailureCode.SHOWN_OTHERWISE in codes(start + b"".join(chunks) + end * whole)

    def test_pictures_inside_a_page_are_told(self) -> None:
        page = np.asarray(make_photo(*SIZE, 0))
        data = write_tiff([(page, 8, 2)], extra={330: 8})
        assert codes(data) == []  # a SHORT is no place of a directory
        data = bytearray(data)
        at = data.index(struct.pack("<HHI", 330, 3, 1))
        struct.pack_into("<HHII", data, at, 330, 4, 1, 8)
        assert FailureCode.PICTURES_UNHASHED in codes(bytes(data))
