"""The versions of the package and of the codecs it decodes with, for bug reports."""

from __future__ import annotations

from importlib import metadata

__all__ = ["versions"]

_PILLOW_CODECS = {
    "libjpeg_turbo": "libjpeg-turbo",
    "zlib_ng": "zlib-ng",
    "libtiff": "libtiff",
    "webp": "libwebp",
    "avif": "libavif",
    "jpg_2000": "openjpeg",
}


def versions() -> dict[str, str]:
    """Versions by name; ``not installed`` where an optional part is missing. Imports the decoders."""
    import pyvips
    from PIL import features

    found = {"uploadguard": metadata.version("uploadguard"), "Pillow": metadata.version("pillow")}
    for feature, name in _PILLOW_CODECS.items():
        version = features.version(feature)
        if version is not None:
            found[f"  {name}"] = version
    found["libvips"] = ".".join(str(pyvips.version(part)) for part in range(3))
    try:
        import pi_heif
    except ImportError:
        found["libheif"] = "not installed"
    else:
        found["libheif"] = pi_heif.libheif_version()
    return found
