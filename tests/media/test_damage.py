"""Cut-off and broken files: hashed as far as they go, never taken for whole, and no exception but the agreed ones."""

from __future__ import annotations

import random
import struct
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.media.files import (
    decode,
    decoder_of,
    encode,
    open_picture,
    oriented,
    png_chunk,
    scene,
    scene_rgba,
    write_png,
)
from uploadguard.media.base import DecodeError, DecodeOptions, Pixels, TooManyPixelsError, TruncatedError
from uploadguard.media.source import BytesSource

ANIMATION = [Image.fromarray(np.roll(np.asarray(scene()), step * 9, axis=1)) for step in range(3)]
PALETTES = [frame.quantize(64) for frame in ANIMATION]
BASES = {
    "jpeg": encode(scene(), "JPEG", exif=oriented(6)),
    "progressive jpeg": encode(scene(), "JPEG", progressive=True),
    "cmyk jpeg": encode(scene().convert("CMYK"), "JPEG"),
    "png": encode(scene(), "PNG", exif=oriented(6)),
    "alpha png": encode(scene_rgba(), "PNG"),
    "palette png": encode(scene().quantize(16), "PNG", transparency=3),
    "animated png": encode(ANIMATION[0], "PNG", save_all=True, append_images=ANIMATION[1:]),
    "webp": encode(scene(), "WEBP", exif=oriented(6)),
    "animated webp": encode(ANIMATION[0], "WEBP", save_all=True, append_images=ANIMATION[1:]),
    "gif": encode(PALETTES[0], "GIF", interlace=False),
    "animated gif": encode(PALETTES[0], "GIF", save_all=True, append_images=PALETTES[1:], disposal=2),
    "avif": encode(scene(), "AVIF", exif=oriented(6), speed=10),
    "tiff": encode(scene(), "TIFF"),
    "lzw tiff": encode(scene(), "TIFF", compression="tiff_lzw"),
    "deflate tiff": encode(scene_rgba(), "TIFF", compression="tiff_adobe_deflate"),
    "paged tiff": encode(ANIMATION[0], "TIFF", save_all=True, append_images=ANIMATION[1:]),
    "bmp": encode(scene(), "BMP"),
    "palette bmp": encode(scene().quantize(8), "BMP"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Pillow warns of odd files; a host does not make that an error, so these tests do not either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_sound(pixels: Pixels) -> bool:
    """Whether pixels keep the promises of their class."""
    array, scale = pixels.array, pixels.scale
    size = -(-pixels.full_height // scale), -(-pixels.full_width // scale)
    return array.dtype == np.uint8 and array.flags.c_contiguous and array.shape in {size, (*size, 3)}


@pytest.mark.parametrize("name", BASES)
def test_a_cut_file_is_never_taken_for_whole(name: str) -> None:
    data = BASES[name]
    whole = [pixels.array for pixels in all_frames(data)]
    partial = unsound = 0
    for cut in [*range(1, len(data), max(1, len(data) // 150)), *range(max(1, len(data) - 12), len(data))]:
        try:
            arrays = [pixels.array for pixels in all_frames(data[:cut], name)]
        except TruncatedError as error:
            partial += error.pixels is not None
            unsound += error.pixels is not None and not is_sound(error.pixels)
        except DecodeError:
            pass
        else:  # nothing but the tail behind the picture is missing, or whole frames
            assert len(arrays) == len(whole) or name in {"animated gif", "paged tiff"}
            assert all(np.array_equal(a, b) for a, b in zip(arrays, whole, strict=False))
    assert not unsound
    # libwebp and libavif give all or nothing, and a compressed TIFF of Pillow's has its directory at the end
    if name.split()[-1] not in {"webp", "avif"} and name not in {"lzw tiff", "deflate tiff"}:
        assert partial > 5


def all_frames(data: bytes, name: str | None = None) -> list[Pixels]:
    """Every frame of a file; with a name, of one whose head may be cut off too."""
    decoder, media_type = decoder_of(BASES[name] if name else data)
    picture = decoder.open(BytesSource(data), media_type, DecodeOptions())
    return list(picture.frames(range(picture.frames_total)))


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "alpha png", "gif", "bmp", "tiff"])
def test_the_upper_part_of_a_cut_file_is_there(name: str) -> None:
    data = BASES[name]
    whole = decode(data).array.astype(int)
    with pytest.raises(TruncatedError) as caught:
        decode(data[: len(data) * 2 // 3] if "jpeg" not in name else data[: len(data) * 9 // 10])
    assert caught.value.pixels is not None
    part = caught.value.pixels.array
    assert part.shape == whole.shape
    rows = slice(0, 8) if name != "bmp" else slice(-8, None)  # a bitmap begins at its bottom
    assert np.abs(part[rows] - whole[rows]).mean() < 12
    assert not np.array_equal(part, whole)


def test_a_header_without_a_picture_is_no_picture() -> None:
    data = BASES["png"]
    with pytest.raises(DecodeError) as caught:
        decode(data[: data.index(b"IDAT") + 4])
    assert not isinstance(caught.value, TruncatedError)


def test_a_png_that_only_libvips_reads_on_is_still_hashed() -> None:
    samples = np.asarray(scene(600, 400))
    data = write_png(samples, 8, 2, png_chunk(b"iCCP", b"name\0\x07profile"))  # Pillow gives up at the profile
    with pytest.raises(TruncatedError) as caught:
        decode(data[: len(data) * 2 // 3])
    assert caught.value.pixels is not None
    assert np.array_equal(caught.value.pixels.array[:16], samples[:16])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes changed, dropped, doubled or moved, the header's more often."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 30))):
        at = rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(200, len(out)))
        how = rng.random()
        if how < 0.5:
            out[at] = rng.choice((0, 1, 127, 128, 255, out[at] ^ 1 << rng.randrange(8)))
        elif how < 0.7:
            del out[at : at + rng.choice((1, 2, 4, 100))]
        elif how < 0.85:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 50)))
        else:
            source = rng.randrange(len(out))
            out[at : at + 4] = out[source : source + 4]
        out = out or bytearray(b"\0")
    return bytes(out)


@pytest.mark.parametrize("name", BASES)
def test_mutants_fail_only_as_agreed(name: str) -> None:
    rng = random.Random(name)
    decoder, media_type = decoder_of(BASES[name])
    outcomes = set()
    for _ in range(250):
        data = mutate(BASES[name], rng)
        options = DecodeOptions(
            pixels=rng.choice(("luma", "rgb")), jpeg_scale=rng.choice(("auto", 1, 2, 4, 8)), max_pixels=500_000
        )
        try:
            picture = decoder.open(BytesSource(data), media_type, options)
            for pixels in picture.frames(range(min(picture.frames_total, 4))):
                assert is_sound(pixels)
            picture.close()
            outcomes.add("whole")
        except DecodeError as error:
            part = error.pixels if isinstance(error, TruncatedError) else None
            outcomes.add("refused" if part is None or is_sound(part) else "unsound")
    assert outcomes == {"whole", "refused"}


@pytest.mark.parametrize("name", BASES)
def test_too_many_pixels_are_refused_from_the_header(name: str) -> None:
    open_picture(BASES[name], max_pixels=64 * 48)
    with pytest.raises(TooManyPixelsError, match="64 x 48 pixels are more than the limit of 3,071"):
        open_picture(BASES[name], max_pixels=64 * 48 - 1)


def test_a_later_page_has_its_own_size() -> None:
    data = encode(scene(), "TIFF", save_all=True, append_images=[scene(100, 100)])
    picture = open_picture(data, max_pixels=5000)
    assert next(picture.frames([0])).full_width == 64
    with pytest.raises(TooManyPixelsError):
        next(picture.frames([1]))


def test_a_single_colour_bomb_takes_no_decoding() -> None:
    data = encode(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(data) < 100_000
    with pytest.raises(TooManyPixelsError):
        open_picture(data)


def run_length_bitmap(width: int, height: int) -> bytes:
    """A bitmap of one colour per row, in run lengths."""
    row = b"".join(bytes((min(255, width - x), 7)) for x in range(0, width, 255)) + b"\0\0"
    body = row * height + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + palette + body


def test_run_length_bitmaps_have_a_lower_limit() -> None:
    assert decode(run_length_bitmap(300, 20)).array[0, 0].tolist() == [30, 29, 28]
    with pytest.raises(TooManyPixelsError, match="limit of 4,000,000"):
        open_picture(run_length_bitmap(2001, 2000))


def test_a_picture_over_pillows_own_limit_is_decoded_when_ours_allows_it() -> None:
    data = encode(Image.new("1", (14_000, 13_000), 1), "TIFF", compression="group4")
    pixels = decode(data, max_pixels=200_000_000)
    assert pixels.array.shape == (13_000, 14_000)
    assert pixels.array.min() == 255
