"""HEIC and HEIF through pi-heif, where it is installed (the extra ``heic``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from uploadguard.media.base import DecodeOptions, Pixels, Source, TruncatedError, UnsupportedError
from uploadguard.media.headers import is_bmff_complete
from uploadguard.media.pillow import ENDS_EARLY, check_size
from uploadguard.media.source import WatchedSource, library_errors

__all__ = ["HeifDecoder"]


class HeifDecoder:
    """HEIC and HEIF. libheif turns the picture by itself, so the orientation is always 1 here."""

    name = "pi-heif"
    media_types = frozenset({"image/heic", "image/heif"})

    def sniff(self, head: bytes) -> str | None:  # noqa: ARG002 - the protocol's face
        """None: the library's own sniffing knows these types."""
        return None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> HeifPicture:
        """Read the header; see :class:`uploadguard.media.base.Decoder`."""
        try:
            import pi_heif
        except ImportError:
            raise UnsupportedError(f"{media_type} needs pi-heif: install uploadguard[heic]") from None
        source = data if isinstance(data, WatchedSource) else WatchedSource(data)
        with library_errors(source, f"libheif cannot read the header of this {media_type}"):
            source.check()
            file = pi_heif.open_heif(bytes(source.data), convert_hdr_to_8bit=True)
            primary = file.primary_index
            images = [file[primary], *(image for index, image in enumerate(file) if index != primary)]
        return HeifPicture(source, images, options)


class HeifPicture:
    """The top-level pictures of a file, the primary one first."""

    orientation = 1
    sequential = False

    def __init__(self, source: WatchedSource, images: list[Any], options: DecodeOptions) -> None:
        self._source = source
        self._images = images
        self._options = options
        self.width, self.height = images[0].size
        self.frames_total = len(images)
        check_size(self.width, self.height, options)

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Decode these pictures; see :class:`uploadguard.media.base.Picture`."""
        import numpy as np

        from uploadguard.media.canonical import shaped
        from uploadguard.media.faces import faces_of_samples, flatten, toned

        for index in indices:
            image = self._images[index]
            width, height = image.size
            check_size(width, height, self._options)
            with library_errors(self._source, "libheif cannot decode this picture"):
                self._source.check()
                # A copy: the library's array is a view of memory that goes with the picture. Its rows may be padded.
                array = np.array(np.asarray(image)[:height, :width], order="C")
                if array.dtype != np.uint8:
                    raise UnsupportedError(f"a HEIF picture of the kind {image.mode}")
                faces = faces_of_samples(array, self._options, index) if image.has_alpha else {}
                array = flatten(array, self._options.background) if image.has_alpha else array
                array = shaped(array, self._options)
                if self._options.tone is not None:
                    bright = toned(array, self._options.tone)
                    faces = {**faces, "tone": Pixels(bright, width, height, frame=index)}
            pixels = Pixels(array, width, height, frame=index, faces=faces)
            if not is_bmff_complete(self._source.data):
                raise TruncatedError(ENDS_EARLY, pixels)
            yield pixels

    def close(self) -> None:
        """Let go of the pictures."""
        self._images = []
