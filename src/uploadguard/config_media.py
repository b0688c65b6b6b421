"""The settings of what is decoded and hashed: limits on media, and the kinds of hash."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uploadguard.config_schema import Shown
from uploadguard.config_types import Flag, Section, UniqueNames, Whole

__all__ = ["MediaSettings", "PdqSettings", "SignalsSettings"]


class MediaSettings(Section):
    """Limits, checked before anything is decoded, and how pictures are laid out for hashing."""

    max_file_bytes: Whole = Field(
        default=104_857_600,
        ge=1,
        description="Largest upload to decode, in bytes. Digests are looked up for larger ones too.",
    )
    max_pixels: Whole = Field(
        default=100_000_000, ge=1, description="Largest picture to decode: width x height of one frame, in pixels."
    )
    max_frames_hashed: Whole = Field(
        default=64,
        ge=1,
        description="Most frames or pages of one file to hash: the first, the last, and those that differ from others.",
    )
    max_decoded_pixels: Whole = Field(
        default=400_000_000,
        ge=1,
        description="Most pixels to decode for one upload: all frames on the way to the last hashed one.",
    )
    max_side_pixels: Whole = Field(default=65_535, ge=1, description="Longest side of a picture to decode, in pixels.")
    max_bands: Whole = Field(default=5, ge=1, description="Most samples of one pixel: 5 is four inks and alpha.")
    max_frames: Whole = Field(
        default=10_000, ge=1, description="Most frames of an animation, or pages, in a file to decode."
    )
    max_metadata_bytes: Whole = Field(
        default=67_108_864, ge=1, description="Most bytes of a file that are not its pixels, unpacked where packed."
    )
    max_metadata_parts: Whole = Field(
        default=20_000, ge=1, description="Most segments, chunks, boxes and directory entries besides pixels."
    )
    max_metadata_depth: Whole = Field(default=12, ge=1, description="Deepest nesting of boxes and directories.")
    allow_codecs: UniqueNames = Field(
        default=(),
        description="Codecs to decode with although their version has known holes, by the name in the refusal.",
    )
    background: Annotated[str, Shown('a colour as "#rrggbb"')] = Field(
        default="#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="The colour that lies under transparent pixels."
    )

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """``background`` as red, green and blue, 0 to 255 each."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


class PdqSettings(Section):
    """PDQ, the perceptual hash."""

    mode: Literal["auto", "exact"] = Field(
        default="auto",
        description="auto decodes to luma, as fast as can be; exact decodes to RGB and hashes bit by bit as the "
        "reference does.",
    )
    jpeg_scale: Literal["auto", 1, 2, 4, 8] = Field(
        default="auto",
        description="Fraction to decode JPEG at: 4 is a quarter of each side; auto chooses by size. No effect in mode "
        "exact.",
    )
    min_quality: Whole = Field(
        default=50,
        ge=0,
        le=100,
        description="A hash of lower quality is not matched; the upload counts as low_quality.",
    )
    variants: Flag = Field(
        default=True, description="Whether mirrored and turned forms of a picture are looked up too."
    )


class SignalsSettings(Section):
    """The kinds of hash to compute and look up."""

    enabled: UniqueNames = Field(
        default=("md5", "sha1", "sha256", "pdq"),
        min_length=1,
        description="The signal types to use. phash, dhash and whash need the imagehash extra; plugins add more.",
    )
    pdq: PdqSettings = Field(default_factory=PdqSettings)
