"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

__all__ = ["HEAD_BYTES", "sniff"]

HEAD_BYTES = 4096
"""How many bytes from the start :func:`sniff` looks at, at most."""

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"v/1\x01", "image/x-exr"),
    (b"#?RADIANCE", "image/vnd.radiance"),
    (b"DDS ", "image/vnd.ms-dds"),
    (b"gimp xcf", "image/x-xcf"),
    (b"qoif", "image/qoi"),
    (b"BPG\xfb", "image/bpg"),
    (b"FLIF", "image/flif"),
    (b"\xd7\xcd\xc6\x9a", "image/wmf"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS", "application/postscript"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"OggS", "application/ogg"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"\x7fELF", "application/x-elf"),
    (b"MZ", "application/x-msdownload"),
)

_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_HEIF_CONTAINERS = frozenset({b"mif1", b"mif2", b"msf1", b"miaf", b"1pic"})
_OTHER_BRANDS = {b"qt  ": "video/quicktime", b"crx ": "image/x-canon-cr3", b"jp2 ": "image/jp2"}
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_PNM = frozenset(b"1234567")


def sniff(head: bytes) -> str | None:
    """The media type that a file's first bytes show (up to :data:`HEAD_BYTES` of them), or None where they show none.

    Only a signature at the very start counts: a file that is two things at once is what a viewer takes it for first.
    Types beyond those that can be decoded are named so that a refusal can say what the file seems to be.
    """
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _sniff_ftyp(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "image/bmp"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/x-matroska" if b"matroska" in head[:HEAD_BYTES] else "video/webm"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"pnot"):
        return "video/quicktime"
    if head[:1] == b"P" and head[1:2] and head[1] in _PNM and head[2:3].isspace():
        return "image/x-portable-anymap"
    return _sniff_markup(head[:HEAD_BYTES])


def _sniff_ftyp(head: bytes) -> str:
    """ISO base media: the major brand decides; a mere container brand leaves it to the compatible brands."""
    box_bytes = min(int.from_bytes(head[:4], "big"), HEAD_BYTES)
    compatible = [head[at : at + 4] for at in range(16, min(box_bytes, len(head)) - 3, 4)]
    major = head[8:12]
    for brand in (major, *compatible):
        if brand in _AVIF_BRANDS:
            return "image/avif"
        if brand in _HEIC_BRANDS:
            return "image/heic"
        if brand not in _HEIF_CONTAINERS and brand == major:
            break
    if major in _HEIF_CONTAINERS:
        return "image/heif"
    if major[:2] == b"3g":
        return "video/3gpp"
    return _OTHER_BRANDS.get(major, "video/mp4")


def _sniff_markup(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text.startswith(b"<"):
        return None
    if b"<svg" in text:
        return "image/svg+xml"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "text/html"
    return "application/xml" if text.startswith(b"<?xml") else None
