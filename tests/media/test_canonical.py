"""Canonical pixels of every odd kind, against an independent reckoning."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import PHOTOS
from tests.media.files import (
    WHITE,
    as_rgb,
    blend,
    decode,
    decoder_of,
    encode,
    oriented,
    png_chunk,
    scene,
    scene_rgba,
    write_lossless_jpeg,
    write_png,
    write_tiff,
)
from uploadguard.media.base import DecodeOptions, UnsupportedError
from uploadguard.media.canonical import flatten
from uploadguard.media.pillow import PILLOW_DECODERS
from uploadguard.media.source import BytesSource

TINT = (10, 200, 90)


def pillow_rgb(data: bytes) -> NDArray[np.uint8]:
    """Pillow's own RGB, laid over white where there is alpha."""
    with Image.open(io.BytesIO(data)) as image:
        if "A" not in image.getbands() and "transparency" not in image.info:
            return np.asarray(image.convert("RGB"))
        rgba = np.asarray(image.convert("RGBA"))
        return blend(rgba[:, :, :3].astype(np.int64), rgba[:, :, 3])


def pillow_decode(data: bytes, **options: Any) -> NDArray[np.uint8]:
    """The first frame through the Pillow decoder, also where another one comes first."""
    _, media_type = decoder_of(data)
    picture = PILLOW_DECODERS[media_type].open(BytesSource(data), media_type, DecodeOptions(**options))
    return next(picture.frames([0])).array


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_photos_in_rgb_are_pillows_own(path: Any) -> None:
    data = path.read_bytes()
    pixels = decode(data, pixels="rgb")
    assert np.array_equal(pixels.array, pillow_rgb(data))
    assert pixels.array.flags.c_contiguous
    assert pixels.scale == 1


@pytest.mark.parametrize("path", [p for p in PHOTOS if p.suffix == ".png"], ids=lambda path: path.name)
def test_pillow_and_libvips_give_equal_pixels(path: Any) -> None:
    data = path.read_bytes()
    assert np.array_equal(decode(data).array, pillow_decode(data))


PNG_KINDS = [
    (colour_type, depth_bits, keyed)
    for colour_type, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16)))
    for depth_bits in depths
    for keyed in (False, True)
    if not (keyed and colour_type > 3)
]


@pytest.mark.parametrize("background", [WHITE, TINT])
@pytest.mark.parametrize(("colour_type", "depth_bits", "keyed"), PNG_KINDS)
def test_every_kind_of_png(colour_type: int, depth_bits: int, keyed: bool, background: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(colour_type * 100 + depth_bits)
    bands = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    top = 2**depth_bits - 1
    samples = rng.integers(0, top + 1, (150, 9, bands))
    samples[70:140] = samples[0, 0]
    chunks = []
    alpha = np.full(samples.shape[:2], 255)
    eight = samples >> 8 if depth_bits == 16 else samples * 255 // top
    if colour_type == 3:
        palette = rng.integers(0, 256, (top + 1, 3))
        chunks.append(png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
        eight = palette[samples[:, :, 0]]
        if keyed:
            alphas = rng.integers(0, 256, top + 1)
            chunks.append(png_chunk(b"tRNS", alphas.astype(np.uint8).tobytes()))
            alpha = alphas[samples[:, :, 0]]
    elif keyed:
        key = samples[0, 0]
        chunks.append(png_chunk(b"tRNS", struct.pack(f">{bands}H", *key.tolist())))
        alpha = np.where((samples == key).all(axis=2), 0, 255)
    if bands in {2, 4}:
        eight, alpha = eight[:, :, :-1], eight[:, :, -1]
    colour = eight if eight.shape[2] == 3 else np.repeat(eight, 3, axis=2)
    expected = blend(colour, alpha, background)

    data = write_png(samples, depth_bits, colour_type, *chunks)
    array = decode(data, background=background).array
    grey = colour_type in {0, 4}
    assert (array.ndim == 2) == (grey and (background == WHITE or (not keyed and colour_type == 0)))
    assert np.array_equal(as_rgb(array), expected)
    assert np.array_equal(decode(data, background=background, pixels="rgb").array, expected)
    if not (colour_type == 2 and depth_bits == 16 and keyed):
        assert np.array_equal(as_rgb(pillow_decode(data, background=background)), expected)


JPEGS = {
    "baseline": encode(scene(97, 65), "JPEG"),
    "progressive": encode(scene(97, 65), "JPEG", progressive=True),
    "grey": encode(scene(97, 65).convert("L"), "JPEG"),
    "rgb transform": encode(scene(97, 65), "JPEG", keep_rgb=True),
    "cmyk": encode(scene(97, 65).convert("CMYK"), "JPEG"),
    "no subsampling": encode(scene(97, 65), "JPEG", subsampling=0),
    "multi-picture": encode(scene(97, 65), "MPO", save_all=True, append_images=[scene(40, 40)]),
    "restart markers": encode(scene(97, 65), "JPEG", restart_marker_blocks=1),
}


def as_ycck(data: bytes) -> bytes:
    """A CMYK JPEG with an Adobe marker that calls its components YCCK."""
    return data[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\x02" + data[2:]


JPEGS["ycck"] = as_ycck(JPEGS["cmyk"])


@pytest.mark.parametrize("kind", JPEGS)
def test_every_kind_of_jpeg(kind: str) -> None:
    data = JPEGS[kind]
    expected = pillow_rgb(data)
    assert np.array_equal(decode(data, pixels="rgb").array, expected)
    luma = decode(data)
    assert (luma.full_width, luma.full_height, luma.frame) == (97, 65, 0)
    if kind in {"cmyk", "ycck"}:
        assert np.array_equal(luma.array, expected)
    else:
        assert luma.array.shape == (65, 97)
        with Image.open(io.BytesIO(data)) as image:
            grey = np.asarray(image.convert("L")).astype(int)
        # libjpeg's own Y, where Pillow's goes through rounded and clipped RGB
        assert np.abs(luma.array - grey).max() <= 3


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (97, 65), (101, 8), (1, 1), (17, 33)])
def test_scaled_jpeg_holds_block_means(size: tuple[int, int], scale: int) -> None:
    width, height = size
    data = encode(scene(*size), "JPEG", quality=95)
    pixels = decode(data, jpeg_scale=scale)
    assert (pixels.scale, pixels.full_width, pixels.full_height) == (scale, width, height)
    assert pixels.array.shape == (-(-height // scale), -(-width // scale))
    full = decode(data, jpeg_scale=1).array.astype(float)
    rows, columns = height // scale, width // scale
    means = full[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale).mean(axis=(1, 3))
    assert np.abs(pixels.array[:rows, :columns] - means).max(initial=0) <= 8


@pytest.mark.parametrize(
    ("size", "scale"), [((1023, 4000), 1), ((1024, 1025), 2), ((2047, 2048), 2), ((2048, 2050), 4), ((4200, 4100), 4)]
)
def test_auto_scale_keeps_512_pixels(size: tuple[int, int], scale: int) -> None:
    data = encode(Image.new("L", size, 90), "JPEG")
    assert decode(data).scale == scale
    assert decode(data, pixels="rgb").scale == 1


@pytest.mark.parametrize("scale", ["auto", 1, 2, 8])
def test_lossless_jpeg_is_not_scaled(scale: Any) -> None:
    samples = np.asarray(scene(90, 70).convert("L"))
    pixels = decode(write_lossless_jpeg(samples), jpeg_scale=scale)
    assert pixels.scale == 1
    assert np.array_equal(pixels.array, samples)


def test_cmyk_is_scaled_by_nobody() -> None:
    assert decode(JPEGS["cmyk"], jpeg_scale=4).scale == 1


GIFS = {
    "palette": encode(scene().quantize(64), "GIF"),
    "grey": encode(scene().convert("L"), "GIF"),
    "transparent": encode(scene_rgba(), "GIF"),
    "interlaced": encode(scene().quantize(64), "GIF", interlace=True),
}
BMPS = {mode: encode(scene().convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")} | {
    "RGBA": encode(scene_rgba(), "BMP")
}
WEBPS = {
    "lossy": encode(scene(), "WEBP"),
    "lossless": encode(scene(), "WEBP", lossless=True),
    "alpha": encode(scene_rgba(), "WEBP"),
    "lossless alpha": encode(scene_rgba(), "WEBP", lossless=True),
}
AVIFS = {
    "rgb": encode(scene(), "AVIF", speed=10),
    "alpha": encode(scene_rgba(), "AVIF", speed=10),
    "grey": encode(scene().convert("L"), "AVIF", speed=10),
}
TIFFS = {mode: encode(scene().convert(mode), "TIFF") for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr")} | {
    name: encode(scene(), "TIFF", compression=name)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd")
} | {
    "RGBA": encode(scene_rgba(), "TIFF"),
    "LA": encode(scene_rgba().convert("LA"), "TIFF"),
    "group4": encode(scene().convert("1"), "TIFF", compression="group4"),
}  # fmt: skip
FILES = {
    f"{kind}: {name}": data
    for kind, files in (("gif", GIFS), ("bmp", BMPS), ("webp", WEBPS), ("avif", AVIFS), ("tiff", TIFFS))
    for name, data in files.items()
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_the_other_formats(name: str) -> None:
    data = FILES[name]
    expected = pillow_rgb(data)
    assert expected.std() > 10
    assert np.array_equal(decode(data, pixels="rgb").array, expected)
    assert np.array_equal(as_rgb(decode(data).array), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("bits", "photometric"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])
def test_grey_tiff_of_every_depth(order: str, big: bool, bits: int, photometric: int) -> None:
    samples = np.random.default_rng(bits).integers(0, 2**bits, (20, 31 + bits % 8, 1))
    samples[0, 0], samples[0, 1] = 0, 2**bits - 1
    data = write_tiff([(samples, bits, photometric)], order=order, big=big)
    if order == ">" and (big or (bits, photometric) in {(16, 0), (12, 1)}):
        with pytest.raises(UnsupportedError):
            decode(data)
        return
    expected = samples[:, :, 0] >> (bits - 8)
    assert np.array_equal(decode(data).array, expected if photometric else 255 - expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_tiff_is_cut(order: str) -> None:
    samples = np.random.default_rng(3).integers(0, 65536, (9, 11, 3))
    assert np.array_equal(decode(write_tiff([(samples, 16, 2)], order=order)).array, samples >> 8)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_samples_without_a_white_are_unsupported(mode: str) -> None:
    picture = Image.merge("LAB", scene().split()) if mode == "LAB" else scene().convert(mode)
    with pytest.raises(UnsupportedError):
        decode(encode(picture, "TIFF"))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_told_and_not_applied(file_format: str, value: int) -> None:
    options = {"speed": 10} if file_format == "AVIF" else {}
    data = encode(scene(), file_format, exif=oriented(value), **options)
    decoder, media_type = decoder_of(data)
    picture = decoder.open(BytesSource(data), media_type, DecodeOptions(pixels="rgb"))
    assert (picture.width, picture.height, picture.orientation) == (64, 48, value)
    (pixels,) = picture.frames([0])
    assert pixels.array.shape == (48, 64, 3)
    difference = np.abs(pixels.array.astype(int) - np.asarray(scene())).mean()
    assert difference < 6


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_broken_exif_leaves_the_picture_alone(file_format: str) -> None:
    options = {"speed": 10} if file_format == "AVIF" else {}
    block = Image.Exif()
    block[0x010F] = "Maker"  # an AVIF keeps its orientation elsewhere, and then drops an EXIF block that held only that
    good = encode(scene(), file_format, exif=block, **options)
    exif = block.tobytes().removeprefix(b"Exif\0\0")
    assert good.count(exif) == 1
    broken = exif[:8] + b"\xff" * (len(exif) - 8)
    bad = good.replace(exif, broken)
    if file_format == "PNG":
        at = good.index(b"eXIf")
        bad = good[: at - 4] + png_chunk(b"eXIf", broken) + good[at + 8 + len(exif) :]
    decoder, media_type = decoder_of(bad)
    picture = decoder.open(BytesSource(bad), media_type, DecodeOptions(pixels="rgb"))
    assert picture.orientation == 1
    (pixels,) = picture.frames([0])
    assert np.array_equal(pixels.array, decode(good, pixels="rgb").array)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_blending_is_exact(colour: int, alpha: int, under: int) -> None:
    samples = np.array([[[colour, 255 - colour, colour, alpha]]], np.uint8)
    expected = [round((c * alpha + under * (255 - alpha)) / 255) for c in (colour, 255 - colour, colour)]
    assert flatten(samples, (under, under, under))[0, 0].tolist() == expected
