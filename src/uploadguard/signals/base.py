"""What a signal type is: the protocol that built-in and plugged-in kinds of hash share.

A *digest* is computed from the upload's original bytes, a *pixel signal* from canonical pixels. A signal type with
neither face can be read from lists, and nothing is hashed for it. The hash set stores digests of up to 64 bytes and
Hamming codes of 8 or 32, so not PhotoDNA's 144 bytes: readers count those as ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

from uploadguard.media.base import Pixels

__all__ = ["ByteHasher", "DigestSignal", "PixelHash", "PixelSignal", "SignalType", "lookup_kinds", "parse_hex"]


@runtime_checkable
class SignalType(Protocol):
    """A kind of hash."""

    @property
    def name(self) -> str:
        """Lower case, as in lists and configuration: ``md5``, ``pdq``."""

    @property
    def length_bytes(self) -> int:
        """The length of every value of this signal type."""

    @property
    def max_distance_bits(self) -> int:
        """The default limit, inclusive: two hashes at this Hamming distance match. 0 means exact look-up only."""

    def parse(self, text: str) -> bytes:
        """A hash as lists write it to its value. Raises ``ValueError`` with a reason that does not repeat the hash."""

    def format(self, value: bytes) -> str:
        """The value as lists write it; the inverse of :meth:`parse`."""


class ByteHasher(Protocol):
    """A running digest, as in :mod:`hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more of the upload's bytes."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


@runtime_checkable
class DigestSignal(SignalType, Protocol):
    """A signal type computed from the original bytes."""

    def new(self) -> ByteHasher:
        """A fresh running digest."""


@dataclass(frozen=True, slots=True)
class PixelHash:
    """A hash of one picture.

    ``quality`` is 0 to 100 or None. ``variants`` maps the names of further forms of the same picture (``rot90``,
    ``flip_x``, ...) to their hashes; the original is not among them. ``unsure``: several bits hang on so little that
    colour in place of approximate luma could turn them.
    """

    value: bytes
    quality: int | None = None
    variants: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    unsure: bool = False

    def __repr__(self) -> str:
        return f"PixelHash(<redacted>, quality={self.quality}, variants={len(self.variants)})"


@runtime_checkable
class PixelSignal(SignalType, Protocol):
    """A signal type computed from canonical pixels."""

    @property
    def pixels(self) -> Literal["luma", "rgb"]:
        """``luma`` where one plane, possibly scaled, is enough; ``rgb`` forces a full decode for every upload."""

    @property
    def min_quality(self) -> int:
        """A hash below this quality is not used for matching; the decision says so. 0 where there is no quality."""

    def hash_pixels(self, pixels: Pixels) -> PixelHash:
        """Hash one frame. Must not change ``pixels``; called from several threads at once."""


def lookup_kinds(signal_types: Iterable[SignalType]) -> dict[str, tuple[int, int]]:
    """length_bytes and max_distance_bits by name: what the hash set needs to know of signal types to store them."""
    return {signal.name: (signal.length_bytes, signal.max_distance_bits) for signal in signal_types}


def parse_hex(text: str, length_bytes: int) -> bytes:
    """Hex in either case to bytes. Raises ``ValueError`` that gives lengths but never the text."""
    if len(text) != 2 * length_bytes:
        raise ValueError(f"expected {2 * length_bytes} hex digits, found {len(text)} characters")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise ValueError("not hexadecimal") from None
    if len(value) != length_bytes:  # bytes.fromhex skips blanks
        raise ValueError("not hexadecimal: blanks inside")
    return value
