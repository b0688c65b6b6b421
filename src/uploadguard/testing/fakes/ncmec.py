"""A fake of NCMEC's CyberTipline reporting API: reports are opened, given files, and finished, retracted or forgotten.

It keeps to what is public of the API: paths, codes, the forms of its answers, and that an unfinished report is deleted
24 hours after it was opened or one hour after its last change, whichever is later. ``python -m`` runs it as a process.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.misbehaviour import Status
from uploadguard.testing.fakes.ncmec_schema import Malformed, parse, problem_in, xsd
from uploadguard.testing.fakes.process import run_fake
from uploadguard.testing.fakes.server import FakeServer

__all__ = ["DESCRIPTIONS", "FakeNcmec", "FakeReport", "ReportedFile", "answering"]

DESCRIPTIONS = {
    0: "Success",
    1000: "Server error",
    1100: "Save failed",
    1110: "File save failed",
    1111: "File upload failed",
    2000: "Authentication required",
    3000: "Not authorized",
    3100: "No submission authorization",
    3300: "No report authorization",
    4000: "Invalid request",
    4100: "Validation failed",
    4110: "Malformed XML",
    4200: "Invalid value",
    5001: "Report does not exist",
    5002: "File does not exist",
    5101: "Report already retracted",
    5102: "Report already finished",
}
"""The codes, with words of this fake's own."""

_AFTER_OPENING = timedelta(hours=24)
_AFTER_CHANGE = timedelta(hours=1)
_REFERENCE = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(slots=True)
class ReportedFile:
    """A file of a report. ``details`` is the last ``fileDetails`` for it, or None; ``described`` counts them."""

    name: str | None
    data: bytes = field(repr=False)
    md5: str = field(repr=False)
    details: ET.Element | None = None
    described: int = 0


@dataclass(slots=True)
class FakeReport:
    """A report. ``reference`` is the first UUID in its ``additionalInfo``."""

    id: int
    document: ET.Element
    reference: str | None
    opened_at: datetime
    changed_at: datetime
    files: dict[str, ReportedFile] = field(default_factory=dict)
    finished_at: datetime | None = None
    retracted_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether it was deleted, since nobody finished it."""
        return self.finished_at is None and now > max(self.opened_at + _AFTER_OPENING, self.changed_at + _AFTER_CHANGE)


def _document(root: str, values: Iterable[tuple[str, object]], files: Iterable[str] | None = None) -> bytes:
    element = ET.Element(root)
    for name, value in values:
        ET.SubElement(element, name).text = str(value)
    if files is not None:
        listed = ET.SubElement(element, "files")
        for file_id in files:
            ET.SubElement(listed, "fileId").text = file_id
    document: bytes = ET.tostring(element, encoding="utf-8", xml_declaration=True)
    return document


def _answer(code: int, *values: tuple[str, object], description: str | None = None) -> Response:
    head = [("responseCode", code), ("responseDescription", description or DESCRIPTIONS.get(code, "Unknown"))]
    return Response(body=_document("reportResponse", [*head, *values]), headers=_headers())


def _headers() -> dict[str, str]:
    return {"Content-Type": "text/xml;charset=UTF-8", "Request-ID": secrets.token_hex(16)}


def answering(code: int, *, http: int = 200) -> Status:
    """A misbehaviour: answer this code, whatever was asked, and do nothing."""
    response = _answer(code)
    return Status(http, response.headers, response.body)


class FakeNcmec(FakeServer):
    """A CyberTipline that files nothing. ``username`` and ``password`` are what it lets in; change them at will."""

    def __init__(self, *, username: str = "esp", password: str = "made-up", **server: Any) -> None:  # noqa: S107
        super().__init__(**server)
        self.username = username
        self.password = password
        self.reports: dict[int, FakeReport] = {}
        """Every report ever opened, those that expired too."""
        self._next_id = 4_000_001

    @property
    def finished(self) -> list[FakeReport]:
        """The reports that were finished."""
        with self.lock:
            return [report for report in self.reports.values() if report.finished_at is not None]

    @property
    def finished_by_reference(self) -> Counter[str | None]:
        """How many reports were finished for each reference of the client's. More than one is a report doubled."""
        return Counter(report.reference for report in self.finished)

    def snapshot(self) -> dict[str, Any]:
        """Counts: ``finished`` is by reference."""
        with self.lock:
            return {
                **super().snapshot(),
                "reports": len(self.reports),
                "retracted": sum(report.retracted_at is not None for report in self.reports.values()),
                "finished": {str(reference): count for reference, count in self.finished_by_reference.items()},
                "files": {str(report.reference): len(report.files) for report in self.finished},
            }

    def answer(self, request: Request) -> Response:
        """One call of the API."""
        if not request.is_from(self.username, self.password):
            return Response(401, headers={"WWW-Authenticate": 'Basic realm="CyberTipline"'})
        match request.method, request.path:
            case "GET", "/status":
                return _answer(0, description=f"Remote User : {self.username}")
            case "GET", "/xsd":
                return Response(body=xsd(), headers=_headers())
            case "POST", "/submit":
                return self._submit(request)
            case "POST", "/upload":
                return self._upload(request)
            case "POST", "/fileinfo":
                return self._describe(request)
            case "POST", "/finish" | "/retract":
                return self._end(request)
            case _, "/status" | "/xsd" | "/submit" | "/upload" | "/fileinfo" | "/finish" | "/retract":
                return Response(405)
            case _:
                return Response(404)

    def _read(self, request: Request, root: str) -> ET.Element | Response:
        if request.media_type != "text/xml":
            return Response(415)
        try:
            document = parse(request.body)
        except Malformed:
            return _answer(4110)
        problem = problem_in(document, root)
        return document if problem is None else _answer(4100, description=problem)

    def _open_report(self, text: str | None) -> FakeReport | Response:
        """The report of that id, if it can still be changed."""
        try:
            report = self.reports.get(int(text or ""))
        except ValueError:
            return _answer(4200)
        if report is None or report.expired(self.clock.now()):
            return _answer(5001)
        if report.retracted_at is not None:
            return _answer(5101)
        return report if report.finished_at is None else _answer(5102)

    def _submit(self, request: Request) -> Response:
        document = self._read(request, "report")
        if isinstance(document, Response):
            return document
        found = _REFERENCE.search(document.findtext("additionalInfo") or "")
        now = self.clock.now()
        report = FakeReport(self._next_id, document, found[0] if found else None, now, now)
        self._next_id += 1
        self.reports[report.id] = report
        return _answer(0, ("reportId", report.id))

    def _upload(self, request: Request) -> Response:
        try:
            parts = {part.name: part for part in request.parts()}
        except ValueError:
            return _answer(4000)
        if set(parts) != {"id", "file"}:
            return _answer(4000)
        report = self._open_report(parts["id"].data.decode("ascii", "replace"))
        if isinstance(report, Response):
            return report
        data = parts["file"].data
        file_id = uuid.uuid4().hex
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        report.files[file_id] = ReportedFile(parts["file"].filename, data, md5)
        report.changed_at = self.clock.now()
        return _answer(0, ("reportId", report.id), ("fileId", file_id), ("hash", md5))

    def _describe(self, request: Request) -> Response:
        document = self._read(request, "fileDetails")
        if isinstance(document, Response):
            return document
        report = self._open_report(document.findtext("reportId"))
        if isinstance(report, Response):
            return report
        file = report.files.get(document.findtext("fileId") or "")
        if file is None:
            return _answer(5002)
        file.details = document
        file.described += 1
        report.changed_at = self.clock.now()
        return _answer(0, ("reportId", report.id))

    def _end(self, request: Request) -> Response:
        if request.media_type == "multipart/form-data":
            fields = {part.name: part.data.decode("ascii", "replace") for part in request.parts()}
        else:
            fields = request.form()
        report = self._open_report(fields.get("id"))
        if isinstance(report, Response):
            return report
        if request.path == "/retract":
            report.retracted_at = self.clock.now()
            return _answer(0, ("reportId", report.id))
        report.finished_at = self.clock.now()
        body = _document("reportDoneResponse", [("responseCode", 0), ("reportId", report.id)], report.files)
        return Response(body=body, headers=_headers())


if __name__ == "__main__":
    run_fake(FakeNcmec)
