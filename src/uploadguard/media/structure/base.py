"""What the readers of all formats share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from uploadguard.media.base import TooComplexError
from uploadguard.models import FailureCode

__all__ = ["Embedded", "Structure", "StructureLimits", "Tally"]


class StructureLimits(Protocol):
    """The limits that hold for structures, all inclusive; see :class:`uploadguard.media.inspect.Limits`."""

    @property
    def max_bands(self) -> int: ...
    @property
    def max_frames(self) -> int: ...
    @property
    def max_metadata_bytes(self) -> int: ...
    @property
    def max_metadata_parts(self) -> int: ...
    @property
    def max_metadata_depth(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture inside the file, a file of its own from ``start`` to ``stop``; ``face`` names it in hashes."""

    face: str
    start: int
    stop: int


@dataclass(slots=True)
class Structure:
    """What was found.

    ``end`` is where the picture's own bytes end; None where that was not found. ``metadata`` holds (start, stop) of
    the parts that are not pixels, ``exif`` that of the EXIF block. ``icc`` is the colour profile, unpacked.
    ``embedded`` holds small pictures in the metadata. ``troubles`` are what to report of the file as it stands.
    ``gamma`` and ``transfer`` are PNG's gAMA (1.0 is linear light) and the transfer characteristics of a cICP chunk or
    nclx box. ``clean_apertures`` holds what a viewer may cut the picture to: width, height, and by how many half
    pixels the cut's centre lies right of and below the picture's.
    """

    end: int | None = None
    metadata: list[tuple[int, int]] = field(default_factory=list)
    exif: tuple[int, int] | None = None
    icc: bytes = b""
    embedded: list[Embedded] = field(default_factory=list)
    troubles: dict[FailureCode, str] = field(default_factory=dict)
    gamma: float | None = None
    transfer: int | None = None
    clean_apertures: list[tuple[int, int, int, int]] = field(default_factory=list)

    def trouble(self, code: FailureCode, detail: str) -> None:
        """Note a trouble; the first of its kind stays."""
        self.troubles.setdefault(code, detail)


class Tally:
    """Counts what the limits are about, and raises at the first excess."""

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self._parts = 0

    @property
    def bytes_left(self) -> int:
        """How many more bytes of metadata there may be."""
        return self._limits.max_metadata_bytes - self._bytes

    def metadata(self, size_bytes: int, *, parts: int = 1) -> None:
        """Count some metadata."""
        self._bytes += size_bytes
        self._parts += parts
        if self._bytes > self._limits.max_metadata_bytes:
            raise TooComplexError(f"more than {self._limits.max_metadata_bytes:,} bytes of metadata")
        if self._parts > self._limits.max_metadata_parts:
            raise TooComplexError(f"more than {self._limits.max_metadata_parts:,} parts of metadata")

    def depth(self, depth: int) -> None:
        """A part lies this deep; 1 is the top."""
        if depth > self._limits.max_metadata_depth:
            raise TooComplexError(f"metadata nested deeper than {self._limits.max_metadata_depth}")

    def bands(self, bands: int) -> None:
        """A pixel has this many samples."""
        if bands > self._limits.max_bands:
            raise TooComplexError(f"{bands} samples a pixel are more than the limit of {self._limits.max_bands}")

    def frames(self, frames: int) -> None:
        """The file has this many frames or pages."""
        if frames > self._limits.max_frames:
            raise TooComplexError(f"more than {self._limits.max_frames:,} frames or pages")
