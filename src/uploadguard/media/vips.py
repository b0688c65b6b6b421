"""PNG through libvips, which takes about half of Pillow's time for the same pixels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uploadguard.media import headers
from uploadguard.media.base import DecodeError, DecodeOptions, Picture, Pixels, Source, TruncatedError
from uploadguard.media.pillow import DAMAGED, PILLOW_DECODERS, check_size
from uploadguard.media.source import WatchedSource, library_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VipsPngDecoder"]

_STRIP_ROWS = 128
_PNG = "image/png"


@functools.cache
def _load_vips() -> Any:
    """pyvips, set up for hostile input: unfuzzed loaders blocked, no operation cache, no threads of its own."""
    import pyvips

    logging.getLogger("pyvips").setLevel(logging.ERROR)  # or each uploader of broken files writes to the host's log
    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    return pyvips


class VipsPngDecoder:
    """PNG. Animations and files that libvips does not read without complaint go to Pillow."""

    name = "pyvips"
    media_types = frozenset({_PNG})

    def sniff(self, head: bytes) -> str | None:  # noqa: ARG002 - the protocol's face
        """None: the library's own sniffing knows this type."""
        return None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> Picture:
        """Read the header; see :class:`uploadguard.media.base.Decoder`."""
        source = data if isinstance(data, WatchedSource) else WatchedSource(data)
        header = headers.png_header(source.data)
        check_size(header.width, header.height, options)
        if header.animated:
            return PILLOW_DECODERS[_PNG].open(source, media_type, options)
        return VipsPngPicture(source, header, options)


class VipsPngPicture:
    """A still PNG whose header has been read."""

    frames_total = 1
    sequential = False

    def __init__(self, source: WatchedSource, header: headers.PngHeader, options: DecodeOptions) -> None:
        self._source = source
        self._options = options
        self.width = header.width
        self.height = header.height
        self.orientation = header.orientation

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Decode the one frame; see :class:`uploadguard.media.base.Picture`."""
        for index in indices:
            try:
                array, faces = self._decode(fail_on="error")
            except DecodeError:
                yield from self._try_again(index)
            else:
                yield Pixels(array, self.width, self.height, frame=index, faces=faces)

    def _try_again(self, index: int) -> Iterator[Pixels]:
        """Pillow forgives other things than libvips; what neither reads whole is read as far as it goes."""
        try:
            yield from PILLOW_DECODERS[_PNG].open(self._source, _PNG, self._options).frames([index])
        except TruncatedError:
            raise
        except DecodeError:
            array, faces = self._decode(fail_on="none")
            if array.min() == array.max():
                raise
            raise TruncatedError(DAMAGED, Pixels(array, self.width, self.height, frame=index, faces=faces)) from None

    def _decode(self, *, fail_on: str) -> tuple[NDArray[np.uint8], Mapping[str, Pixels]]:
        """Strip by strip on this thread, so that a check in between stops it."""
        with library_errors(self._source, "libvips cannot decode this image/png"):
            return self._read_strips(fail_on)

    def _read_strips(self, fail_on: str) -> tuple[NDArray[np.uint8], Mapping[str, Pixels]]:
        import numpy as np

        from uploadguard.media.canonical import shaped
        from uploadguard.media.faces import FaceBuilder, flatten

        self._source.check()
        vips = _load_vips()
        image = vips.Image.pngload_buffer(self._source.data, access="sequential", fail_on=fail_on)
        if (image.width, image.height) != (self.width, self.height):
            raise DecodeError("libvips reads another size than the header has")
        wide = image.format == "ushort"
        bands = image.bands
        under, tone = self._options.background, self._options.tone
        builder = FaceBuilder(self.width, self.height, self._options)
        if bands == 1 or (bands == 2 and len(set(under)) == 1):
            out = np.empty((self.height, self.width), np.uint8)
        else:
            out = np.empty((self.height, self.width, 3), np.uint8)
        region = vips.Region.new(image)
        for top in range(0, self.height, _STRIP_ROWS):
            self._source.check()
            rows = min(_STRIP_ROWS, self.height - top)
            samples = region.fetch(0, top, self.width, rows)
            stored: NDArray[Any] = np.frombuffer(samples, np.uint16 if wide else np.uint8).reshape(
                rows, self.width, bands
            )
            strip = (stored >> 8).astype(np.uint8) if wide else stored
            builder.add(strip, out[:top])
            if tone is not None:
                builder.add_tone(_with_tone(stored, strip, tone, under))
            if bands in {2, 4}:
                strip = flatten(strip, under)
            elif bands == 1:
                strip = strip[:, :, 0]
            out[top : top + rows] = strip if strip.ndim == out.ndim else strip[:, :, None]
        return shaped(out, self._options), builder.faces(0)

    def close(self) -> None:
        """Nothing is held between frames."""


def _with_tone(
    stored: NDArray[Any], strip: NDArray[np.uint8], tone: bytes, under: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A strip of samples with its tone curve, flattened; ``strip`` holds it in 8 bits, for its alpha."""
    import numpy as np

    from uploadguard.media.faces import flatten, toned

    if stored.shape[2] not in {2, 4}:
        return toned(stored, tone)
    return flatten(np.dstack((toned(stored[:, :, :-1], tone), strip[:, :, -1:])), under)
