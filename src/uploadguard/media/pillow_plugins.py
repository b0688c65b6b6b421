"""Pillow file plugins that differ from Pillow's own where that matters for checking uploads. Imports Pillow.

``ImageCms`` comes along so that a worker has loaded it before it may no longer load anything.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import PIL
from PIL import Image, ImageCms, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from uploadguard.media.headers import JpegHeader
from uploadguard.media.source import MemoryFile

__all__ = ["AvifFile", "ImageCms", "JpegFile", "TiffFile"]

_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_ORIENTATION = 274
_WHITE_IS_ZERO = 0
_ROWS_HELD_BACK = 64
"""At full size: two of the tallest MCUs, for those under way and for smoothing between them."""


def _silence_libtiff() -> None:
    """Keep the libtiff that Pillow brings from writing to the host's standard error, as uploaders of bad files please.

    Pillow reports the same errors as exceptions. Without a bundled libtiff nothing is done.
    """
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for path in folder.glob("libtiff*"):
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                library.TIFFSetErrorHandler(None)
                library.TIFFSetWarningHandler(None)


_silence_libtiff()


class JpegFile(ImageFile.ImageFile):
    """JPEG by a header that was read beforehand, as luma or in its own mode, scaled by 1, 2, 4 or 8.

    Always the first picture of a multi-picture file. Where the data ends early, libjpeg is told so instead of Pillow:
    then even a progressive file, which libjpeg hands over only at its end, gives what it holds. ``ended_early`` says
    that this happened.

    ``without_end``: the file's own end marker is left out. libjpeg then has to ask for it, and has by then handed over
    what the data before it holds, but for a few rows. If a row well above the last still changes afterwards, the data
    ran dry: libjpeg, which tells nobody of it, fills the rest with grey. ``ran_dry`` says so. Baseline files of one
    scan only.
    """

    format = "JPEG"
    format_description = "JPEG (ISO 10918)"

    def __init__(
        self, fp: MemoryFile, header: JpegHeader, *, luma: bool, scale: int, without_end: bool = False
    ) -> None:
        self._header = header
        self._luma = luma
        self._scale = scale
        self.ended_early = False
        self._gives_end = without_end
        self._late_row: bytes | None = None
        super().__init__(fp)  # type: ignore[arg-type]

    def _open(self) -> None:
        header, scale = self._header, self._scale
        self._mode, raw_mode = {1: ("L", "L"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK;I")}[header.components]
        if self._luma:
            self._mode = raw_mode = "L"
        self._size = -(-header.width // scale), -(-header.height // scale)
        self.decoderconfig = (scale, 0)
        self.tile = [ImageFile._Tile("jpeg", (0, 0, *self._size), 0, (raw_mode, ""))]

    def load_read(self, read_bytes: int) -> bytes:
        """The next bytes; at the end of a file whose picture is not complete, one end-of-image marker."""
        assert self.fp is not None
        data = self.fp.read(read_bytes)
        if data:
            return data
        if self._gives_end:
            self._gives_end = False
            self._late_row = self._read_late_row()
            return b"\xff\xd9"
        if not self.ended_early:
            self.ended_early = True
            return b"\xff\xd9"
        return b""

    @property
    def ran_dry(self) -> bool:
        """Whether rows were missing when all data had been decoded; for after loading."""
        return self._late_row is not None and self._read_late_row() != self._late_row

    def _read_late_row(self) -> bytes:
        width, height = self.size
        top = max(0, height - 1 - _ROWS_HELD_BACK // self._scale)
        row = self.im.crop((0, top, width, top + 1))
        return Image.Image()._new(row).tobytes()


class AvifFile(AvifImageFile):
    """AVIF whose picture opens even where its EXIF block cannot be parsed."""

    def _open(self) -> None:
        try:
            super()._open()
        except Exception:
            if not self._mode or not getattr(self, "n_frames", 0):
                raise
            self.info.pop("exif", None)
            self.is_animated = self.n_frames > 1
            self.seek(0)


class TiffFile(TiffImageFile):
    """TIFF with pixels as stored: Pillow's own class turns them by the orientation tag when it loads."""

    def _setup(self) -> None:
        super()._setup()
        self._size = self._tile_size

    def load_prepare(self) -> None:
        """Take memory for the page; its size has been checked."""
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        """Leave the pixels as they are."""

    @property
    def orientation(self) -> int:
        """The orientation tag of the current page, 1 to 8; 1 where it is missing or out of range."""
        value = self.tag_v2.get(_TIFF_ORIENTATION)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    @property
    def samples(self) -> dict[str, Any]:
        """What :func:`uploadguard.media.canonical.from_pillow` must know of 16-bit samples."""
        bits = self.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (16,))
        return {
            "sample_bits": 12 if bits[0] == 12 else 16,
            "inverted": self.tag_v2.get(_TIFF_PHOTOMETRIC, 1) == _WHITE_IS_ZERO,
        }
