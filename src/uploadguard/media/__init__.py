"""Reads uploads: sniffing, limits from the header, and decoding to canonical pixels.
Knows nothing of hash lists. Importing it is cheap: the decoder libraries come in when a file needs them.
"""

from uploadguard.media.base import Decoder
from uploadguard.media.heif import HeifDecoder
from uploadguard.media.pillow import PILLOW_DECODERS
from uploadguard.media.vips import VipsPngDecoder

__all__ = ["BUILTIN_DECODERS"]

BUILTIN_DECODERS: tuple[Decoder, ...] = (
    PILLOW_DECODERS["image/jpeg"],
    VipsPngDecoder(),
    PILLOW_DECODERS["image/webp"],
    PILLOW_DECODERS["image/gif"],
    PILLOW_DECODERS["image/avif"],
    PILLOW_DECODERS["image/tiff"],
    PILLOW_DECODERS["image/bmp"],
    HeifDecoder(),
)
"""One for each media type; a plugin's decoder of the same type goes before it."""
