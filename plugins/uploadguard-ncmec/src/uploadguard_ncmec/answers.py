"""Reading the CyberTipline's answers: small, flat XML, and no more than that."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from uploadguard_ncmec.values import is_id

__all__ = ["ApiAnswer", "UnreadableError", "read_answer"]

_ROOTS = ("reportResponse", "reportDoneResponse")
_MAX_DEPTH = 4
_MAX_FILE_ID_CHARS = 200


class UnreadableError(Exception):
    """It is not an answer of the CyberTipline's. The text holds nothing of it."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer. ``code`` is 0 for success; ``description`` is the other side's, and may quote the report."""

    code: int
    report_id: str | None = None
    file_ids: tuple[str, ...] = ()
    md5: str | None = field(default=None, repr=False)
    description: str = field(default="", repr=False)


def read_answer(body: bytes) -> ApiAnswer:
    """Read an answer. Raises :class:`UnreadableError`; a document type or an entity in it makes it unreadable."""
    reader = _Reader()
    try:
        reader.parser.Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise UnreadableError("it is not well-formed XML") from error
    values = reader.values
    codes = values.get("responseCode", [])
    if len(codes) != 1 or not codes[0].isascii() or not codes[0].isdigit() or len(codes[0]) > 6:
        raise UnreadableError("it has no response code")
    ids = values.get("reportId", [])
    if len(ids) > 1 or not all(map(is_id, ids)):
        raise UnreadableError("it has no valid report id")
    files = values.get("fileId", [])
    if not all(0 < len(file) <= _MAX_FILE_ID_CHARS and file.isprintable() for file in files):
        raise UnreadableError("it has no valid file id")
    return ApiAnswer(
        int(codes[0]),
        ids[0] if ids else None,
        tuple(files),
        "".join(values.get("hash", [])).lower() or None,
        " ".join(values.get("responseDescription", [])),
    )


class _Reader:
    """The texts of all elements without children, by local name."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._text: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append

    def _doctype(self, *_: object) -> None:
        raise UnreadableError("it has a document type")

    def _start(self, name: str, _: object) -> None:
        name = name.rpartition(":")[2]
        if len(self._open) >= _MAX_DEPTH or (not self._open and name not in _ROOTS):
            raise UnreadableError("it is another document")
        self._open.append(name)
        self._text.clear()

    def _end(self, _: str) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        name = self._open.pop()
        if text:
            self.values.setdefault(name, []).append(text)
