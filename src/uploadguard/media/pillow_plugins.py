"""Pillow file plugins that differ from Pillow's own where that matters for checking uploads. Imports Pillow."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from uploadguard.media.headers import JpegHeader
from uploadguard.media.source import MemoryFile

__all__ = ["AvifFile", "JpegFile", "TiffFile"]

_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_ORIENTATION = 274
_WHITE_IS_ZERO = 0


class JpegFile(ImageFile.ImageFile):
    """JPEG by a header that was read beforehand, as luma or in its own mode, scaled by 1, 2, 4 or 8.

    Always the first picture of a multi-picture file. Where the data ends early, libjpeg is told so instead of Pillow:
    then even a progressive file, which libjpeg hands over only at its end, gives what it holds. ``ended_early`` says
    that this happened.
    """

    format = "JPEG"
    format_description = "JPEG (ISO 10918)"

    def __init__(self, fp: MemoryFile, header: JpegHeader, *, luma: bool, scale: int) -> None:
        self._header = header
        self._luma = luma
        self._scale = scale
        self.ended_early = False
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
        if not data and not self.ended_early:
            self.ended_early = True
            return b"\xff\xd9"
        return data


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
