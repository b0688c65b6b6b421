"""The versions of the package and of the codecs it decodes with, for bug reports."""

from __future__ import annotations

from importlib import metadata

from uploadguard.media.codecs import codec_versions

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Versions by name; ``not installed`` where an optional part is missing. Imports the decoders."""
    return {"uploadguard": metadata.version("uploadguard"), **codec_versions()}
