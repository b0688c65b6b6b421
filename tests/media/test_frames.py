"""Animations, pages, and stopping in the middle."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.files import as_rgb, decode, decoder_of, encode, open_picture, scene
from uploadguard.media.base import DecodeError, DecodeOptions, Decoder, UnsupportedError
from uploadguard.media.heif import HeifDecoder
from uploadguard.media.source import BytesSource, MemoryFile, WatchedSource, library_errors

FRAMES = [Image.fromarray(np.roll(np.asarray(scene()), step * 9, axis=1)) for step in range(5)]
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True, "minimize_size": False}, "TIFF": {}}


def animated(file_format: str, **options: Any) -> bytes:
    """The five frames as one file."""
    return encode(FRAMES[0], file_format, save_all=True, append_images=FRAMES[1:], **options)


@pytest.mark.parametrize("file_format", LOSSLESS)
@pytest.mark.parametrize("indices", [[0], [0, 1, 2, 3, 4], [1, 4], [3]])
def test_frames_come_back_exactly(file_format: str, indices: list[int]) -> None:
    picture = open_picture(animated(file_format, **LOSSLESS[file_format]))
    assert picture.frames_total == 5
    assert picture.sequential == (file_format != "TIFF")
    found = list(picture.frames(indices))
    assert [pixels.frame for pixels in found] == indices
    for pixels in found:
        assert np.array_equal(pixels.array, np.asarray(FRAMES[pixels.frame]))


def test_gif_frames_are_composed() -> None:
    palettes = [frame.quantize(64) for frame in FRAMES]
    data = encode(palettes[0], "GIF", save_all=True, append_images=palettes[1:], optimize=False)
    picture = open_picture(data)
    assert (picture.frames_total, picture.sequential) == (5, True)
    for pixels in picture.frames([0, 2, 4]):
        assert np.array_equal(as_rgb(pixels.array), np.asarray(palettes[pixels.frame].convert("RGB")))


def test_avif_sequences_have_frames() -> None:
    picture = open_picture(animated("AVIF", speed=10, quality=95))
    assert (picture.frames_total, picture.sequential) == (5, True)
    for pixels in picture.frames([0, 4]):
        assert np.abs(pixels.array.astype(int) - np.asarray(FRAMES[pixels.frame])).mean() < 6


def test_the_hidden_default_picture_of_an_animated_png_counts() -> None:
    data = encode(scene().rotate(180), "PNG", save_all=True, append_images=FRAMES, default_image=True)
    picture = open_picture(data)
    assert picture.frames_total == 6
    first, second = picture.frames([0, 1])
    assert np.array_equal(first.array, np.asarray(scene().rotate(180)))
    assert np.array_equal(second.array, np.asarray(FRAMES[0]))


class Stop(Exception):
    """The answer is no longer needed."""


class Fuse:
    """A source whose ``check()`` raises from the nth call on."""

    def __init__(self, data: bytes, calls: int, error: BaseException) -> None:
        self.data = memoryview(data)
        self.calls = calls
        self.asked = 0
        self.error = error

    def check(self) -> None:
        """Burn."""
        self.asked += 1
        if self.asked > self.calls:
            raise self.error


BIG = {
    "jpeg": encode(scene(3000, 2000), "JPEG", quality=97),
    "png": encode(scene(1200, 900), "PNG"),
    "animated png": animated("PNG"),
    "gif": encode(scene(900, 700).quantize(200), "GIF"),
    "webp": encode(scene(300, 200), "WEBP"),
    "tiff": encode(scene(900, 700), "TIFF"),
    "lzw tiff": encode(scene(300, 200), "TIFF", compression="tiff_lzw"),
    "bmp": encode(scene(900, 700), "BMP"),
    "avif": encode(scene(), "AVIF", speed=10),
}


@pytest.mark.parametrize("kind", [Stop, TypeError, SyntaxError, EOFError, KeyboardInterrupt])
@pytest.mark.parametrize("name", BIG)
def test_a_decode_stops_at_every_check(name: str, kind: type[BaseException]) -> None:
    error = kind()
    data = BIG[name]
    decoder, media_type = decoder_of(data)

    def run(fuse: Fuse) -> None:
        list(decoder.open(fuse, media_type, DecodeOptions()).frames([0]))

    free = Fuse(data, sys.maxsize, error)
    run(free)
    assert free.asked >= (5 if name in {"jpeg", "png", "gif", "tiff", "bmp"} else 2)
    for calls in {0, 1, free.asked // 2, free.asked - 1}:
        fuse = Fuse(data, calls, error)
        with pytest.raises(kind) as caught:
            run(fuse)
        assert caught.value is error
        assert fuse.asked == calls + 1


def test_memory_file_reads_like_a_file() -> None:
    file = MemoryFile(WatchedSource(BytesSource(b"0123456789")))
    assert (file.read(3), file.tell(), file.read(), file.read(5)) == (b"012", 3, b"3456789", b"")
    assert (file.seek(-4, 2), file.read(2), file.seek(1, 1), file.read(1)) == (6, b"67", 9, b"9")
    assert (file.seek(50), file.read(1)) == (50, b"")
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)
    assert bytes(file.getvalue()) == b"0123456789"


def test_library_errors_keep_no_words_of_the_library() -> None:
    with pytest.raises(DecodeError) as caught, library_errors(WatchedSource(BytesSource(b"")), "it failed"):
        raise OSError("secret payload")
    assert str(caught.value) == "it failed (OSError)"
    assert caught.value.__suppress_context__


def test_heic_is_decoded_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = HeifDecoder()
    assert isinstance(decoder, Decoder)
    with pytest.raises(DecodeError, match="libheif cannot read the header of this image/heic"):
        decoder.open(BytesSource(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "image/heic", DecodeOptions())
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(UnsupportedError, match=r"uploadguard\[heic\]"):
        decoder.open(BytesSource(b""), "image/heic", DecodeOptions())


def test_decoders_keep_the_protocol() -> None:
    media = importlib.import_module("uploadguard.media")
    types = [kind for decoder in media.BUILTIN_DECODERS for kind in decoder.media_types]
    assert all(isinstance(decoder, Decoder) for decoder in media.BUILTIN_DECODERS)
    assert len(types) == len(set(types)) == 9


def test_importing_loads_no_decoder_library() -> None:
    code = (
        "import sys, uploadguard.media, uploadguard.media.inspect\n"
        "print([name for name in ('PIL', 'pyvips', 'pi_heif', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pillows_process_wide_settings_are_left_alone() -> None:
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)
    for data in BIG.values():
        decode(data)
    assert before[:2] == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
