"""Other kinds of file inside or behind a picture: archives, scripts, programs, documents, further pictures.

Only what a program would open, run or show is looked for, by signatures long or checked enough that the pixels of
honest pictures do not hold them by chance. What is neither is somebody's private trailer and is let be.
"""

from __future__ import annotations

import re

from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.media.structure.base import Embedded, Structure, Tally
from uploadguard.media.structure.jpeg import jpeg_end
from uploadguard.models import FailureCode

__all__ = ["find_intruders"]

_PDF_WINDOW_BYTES = 1024
_ZIP_WINDOW_BYTES = 65_535 + 22
_TRAILER_WINDOW_BYTES = 65_536
_MAX_TRAILER_PICTURES = 4
_PADDING = re.compile(rb"[\0\s\xff]*")
_JPEG_START = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")

_ZIP_END, _ZIP_ENTRY = b"PK\x05\x06", b"PK\x03\x04"
_ZIP_METHODS = frozenset({0, 8, 9, 12, 14, 93, 95, 98, 99})
_ZIP_NEWEST_VERSION = 63

_SIGNATURES = (
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xfd7zXZ\0", "an XZ archive"),
    (b"%PDF-1.", "a PDF document"),
    (b"%PDF-2.", "a PDF document"),
    (b"<?php", "a PHP script"),
    (b"<script", "HTML with a script"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"\x7fELF\x01\x01\x01", "a program"),
    (b"\x7fELF\x02\x01\x01", "a program"),
    (b"!<arch>\n", "an archive"),
)
"""Found anywhere in text and trailers; letters in lower case."""

_STARTS = {
    "application/zip": "a ZIP archive",
    "application/vnd.rar": "a RAR archive",
    "application/x-7z-compressed": "a 7z archive",
    "application/gzip": "a gzip archive",
    "application/zstd": "a Zstandard archive",
    "application/pdf": "a PDF document",
    "application/postscript": "a PostScript program",
    "application/x-elf": "a program",
    "application/x-msdownload": "a program",
    "text/html": "HTML",
    "image/svg+xml": "an SVG picture",
}
"""What a trailer may begin with."""

_HARMLESS_STARTS = frozenset({"video/mp4", "video/quicktime", "video/3gpp"})
"""Motion photos: the camera's short clip of the moment."""

_PICTURES = frozenset(
    {"image/avif", "image/bmp", "image/gif", "image/heic", "image/heif", "image/png", "image/tiff"}
) | {"image/webp"}
"""Told from noise by a long signature, and decoded here."""

_SHEBANG = b"#!/"
_SAMSUNG_END = b"SEFT"
_OPENERS = (b"/*", b"//", b"<!", b'="', b"='", b"=`", b"=/")


def find_intruders(data: memoryview, media_type: str, structure: Structure, tally: Tally) -> None:
    """Add to ``structure`` what else the file is (as troubles) and the pictures behind it (as embedded ones).

    Raises :class:`~uploadguard.media.base.TooComplexError` as the readers of structures do.
    """
    kind = _second_face(data, media_type)
    if kind is not None:
        structure.trouble(FailureCode.POLYGLOT, f"the file is {kind} as well")
    for start, stop in structure.metadata:
        kind = _in_metadata(bytes(data[start:stop]))
        if kind is not None:
            structure.trouble(FailureCode.POLYGLOT, f"{kind} lies in the metadata")
            break
    zip_at = _zip_start(data)
    end = structure.end
    if zip_at is not None and (end is None or zip_at < end):
        structure.trouble(FailureCode.POLYGLOT, "the file is a ZIP archive as well")
    elif zip_at is not None:
        structure.trouble(FailureCode.APPENDED_CONTENT, "a ZIP archive follows the picture")
    if end is not None and end < len(data):
        _read_trailer(data, end, structure, tally)


def _second_face(data: memoryview, media_type: str) -> str | None:
    """What another program could take the file's beginning for."""
    head = bytes(data[: max(_PDF_WINDOW_BYTES, 512)])
    if b"%PDF-" in head:
        return "a PDF document"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[128:132] == b"DICM" and media_type == "image/tiff":
        return "a DICOM picture"
    # A script can begin with GIF89a or BM as a name; what follows must then open a comment or a text.
    after = {"image/gif": 6, "image/bmp": 2, "image/jpeg": 4, "image/webp": 4}.get(media_type)
    if after is not None and head[after : after + 2] in _OPENERS:
        declared = {"image/bmp": head[2:6], "image/webp": head[4:8]}.get(media_type)
        expected = len(data) if media_type == "image/bmp" else len(data) - 8
        if declared is None or int.from_bytes(declared, "little") != expected:
            return "a script"
    return None


def _in_metadata(block: bytes) -> str | None:
    kind = _signature(block)
    if kind is not None:
        return kind
    at = block.find(_ZIP_ENTRY)
    return "a ZIP archive" if at >= 0 and _is_zip_entry(block, at) else None


def _signature(block: bytes) -> str | None:
    lower = block.lower()
    for signature, kind in _SIGNATURES:
        if (lower if signature[:1] == b"<" else block).find(signature) >= 0:
            return kind
    return None


def _is_zip_entry(block: bytes, at: int) -> bool:
    version, method = block[at + 4 : at + 5], block[at + 8 : at + 10]
    return len(method) == 2 and version[0] <= _ZIP_NEWEST_VERSION and int.from_bytes(method, "little") in _ZIP_METHODS


def _zip_start(data: memoryview) -> int | None:
    """Where the ZIP archive that the file ends with begins, by its end record; None where there is none."""
    base = max(0, len(data) - _ZIP_WINDOW_BYTES)
    window = bytes(data[base:])
    at = window.rfind(_ZIP_END)
    if at < 0 or at + 22 > len(window):
        return None
    record = window[at : at + 22]
    entries, directory_bytes = int.from_bytes(record[10:12], "little"), int.from_bytes(record[12:16], "little")
    directory_at = base + at - directory_bytes
    if directory_at < 0 or (entries and bytes(data[directory_at : directory_at + 4]) != b"PK\x01\x02"):
        return None
    if not entries:
        return base + at
    # The archive's own offsets count from its first entry, which some writers put at the start of the whole file.
    offset = int.from_bytes(record[16:20], "little")
    return max(0, directory_at - offset) if offset != directory_at else _first_entry(data, directory_at)


def _first_entry(data: memoryview, directory_at: int) -> int:
    return int.from_bytes(data[directory_at + 42 : directory_at + 46], "little")


def _read_trailer(data: memoryview, at: int, structure: Structure, tally: Tally) -> None:
    """What stands behind the picture: further JPEGs one after another, then perhaps something else."""
    pictures = 0
    while at < len(data):
        match = _PADDING.match(data, at)
        start, at = at, match.end() if match is not None else at
        # What counts as padding is also how a JPEG begins, and the length of a first box.
        if bytes(data[at - 1 : at + 1]) == b"\xff\xd8":
            at -= 1
        elif (ftyp_at := bytes(data[at : at + 5]).find(b"ftyp")) >= 0:
            at = max(start, at + ftyp_at - 4)
        if at >= len(data):
            return
        head = bytes(data[at : at + HEAD_BYTES])
        if not head.startswith(b"\xff\xd8\xff"):
            _judge_trailer(data, at, head, structure)
            match = _JPEG_START.search(data, at, min(len(data), at + _TRAILER_WINDOW_BYTES))
            if match is None:
                return
            at = match.start()
        stop = jpeg_end(data, at, tally)
        if pictures == _MAX_TRAILER_PICTURES:
            structure.trouble(FailureCode.PICTURES_UNHASHED, "more pictures follow than are hashed")
            return
        pictures += 1
        structure.embedded.append(Embedded("appended", at, stop if stop is not None else len(data)))
        if stop is None:
            return
        at = stop


def _judge_trailer(data: memoryview, at: int, head: bytes, structure: Structure) -> None:
    media_type = sniff(head)
    if media_type in _HARMLESS_STARTS:
        return
    kind = _STARTS.get(media_type or "") or ("a script" if head.startswith(_SHEBANG) else None)
    if kind == "a program" and head[:2] == b"MZ" and not _is_windows_program(head):
        kind = None
    if kind is None and media_type in _PICTURES:
        structure.embedded.append(Embedded("appended", at, len(data)))
        return
    if kind is None and bytes(data[-4:]) != _SAMSUNG_END:
        kind = _signature(bytes(data[at : at + _TRAILER_WINDOW_BYTES])) or _signature(
            bytes(data[max(at, len(data) - _TRAILER_WINDOW_BYTES) :])
        )
    if kind is not None:
        structure.trouble(FailureCode.APPENDED_CONTENT, f"{kind} follows the picture")


def _is_windows_program(head: bytes) -> bool:
    at = int.from_bytes(head[60:64], "little")
    return head[at : at + 4] == b"PE\0\0"
