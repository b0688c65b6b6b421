"""What a worker that makes previews says to the host, and what the host believes of it.

It is started for one file, with what to make of it; the request is that of :mod:`uploadguard.sandbox.wire`. The answer
is raw pixels or a sentence::

    "P"  request u64, width u16, height u16, bands u8, then width * height * bands bytes
    "F"  request u64, then why there is none: printable ASCII

The host takes pixels of as many bands as it asked for, no side over what it asked for, and exactly so many bytes. What
they show it cannot check. So what must be blurred is asked for small, and enlarged by the host: a worker that was taken
over can hand over no more than those few cells.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from uploadguard.sandbox.wire import ProtocolError

__all__ = ["PreviewFailure", "PreviewRequest", "RawPicture", "failure_answer", "parse_preview", "picture_answer"]

_LENGTH: Final = struct.Struct("<I")
_PICTURE: Final = struct.Struct("<cQHHB")
_FAILURE: Final = struct.Struct("<cQ")
_MAX_DETAIL_BYTES: Final = 500


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What to make: which frame, counted from 0, its longest side at most, and whether of one band or three."""

    frame: int
    max_side_pixels: int
    grey: bool

    @property
    def bands(self) -> int:
        """Samples of a pixel."""
        return 1 if self.grey else 3

    @property
    def max_answer_bytes(self) -> int:
        """The longest answer."""
        return max(_PICTURE.size + self.max_side_pixels**2 * self.bands, _FAILURE.size + _MAX_DETAIL_BYTES)


@dataclass(frozen=True, slots=True)
class RawPicture:
    """Samples of 8 bits, row by row, ``bands`` of them for each pixel."""

    width: int
    height: int
    bands: int
    samples: bytes

    def __repr__(self) -> str:
        return f"RawPicture({self.width}x{self.height}, bands={self.bands})"


@dataclass(frozen=True, slots=True)
class PreviewFailure:
    """Why there is no picture: a sentence for the operator."""

    detail: str


def picture_answer(number: int, picture: RawPicture) -> bytes:
    """The answer to request ``number``, ready to be sent."""
    head = _PICTURE.pack(b"P", number, picture.width, picture.height, picture.bands)
    return _LENGTH.pack(len(head) + len(picture.samples)) + head + picture.samples


def failure_answer(number: int, detail: str) -> bytes:
    """The answer where there is none."""
    text = "".join(c if " " <= c <= "~" else "?" for c in detail[:_MAX_DETAIL_BYTES]).encode("ascii")
    return _LENGTH.pack(_FAILURE.size + len(text)) + _FAILURE.pack(b"F", number) + text


def parse_preview(message: bytes, number: int, request: PreviewRequest) -> RawPicture | PreviewFailure:
    """The answer to request ``number``. Raises :class:`~uploadguard.sandbox.wire.ProtocolError`."""
    if message[:1] == b"P" and len(message) >= _PICTURE.size:
        _, answered, width, height, bands = _PICTURE.unpack_from(message)
        samples = message[_PICTURE.size :]
        within = 1 <= width <= request.max_side_pixels and 1 <= height <= request.max_side_pixels
        if answered != number or bands != request.bands or not within or len(samples) != width * height * bands:
            raise ProtocolError("its picture is not what was asked for")
        return RawPicture(width, height, bands, samples)
    if message[:1] == b"F" and len(message) >= _FAILURE.size:
        _, answered = _FAILURE.unpack_from(message)
        detail = message[_FAILURE.size :].decode("latin-1")
        if answered != number or len(detail) > _MAX_DETAIL_BYTES or not all(" " <= c <= "~" for c in detail):
            raise ProtocolError("its failure is no line of text")
        return PreviewFailure(detail)
    raise ProtocolError("its answer is neither a picture nor a failure")
