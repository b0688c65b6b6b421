"""A receiver of XARF v4 reports as JSON, and the rules that it holds them to."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.server import FakeServer

__all__ = ["FakeXarfReceiver", "xarf_problems"]

_EMAIL = re.compile(r"[^@\s]+@[a-zA-Z0-9.-]+")
_ENUMS = {
    "category": {"content"},
    "type": {"csam"},
    "classification": {"baseline", "A1", "A2", "B1", "B2"},
    "detection_method": {"hash_match", "ai_detection", "manual_review", "user_report", "automated_scan"},
    "media_type": {"image", "video", "audio", "text", "mixed"},
}
_TEXTS = ("xarf_version", "report_id", "timestamp", "source_identifier", "url", "evidence_source")
_REQUIRED = (
    "xarf_version", "report_id", "timestamp", "reporter", "sender", "source_identifier", "category", "type", "url",
    "classification", "detection_method",
)  # fmt: skip
_DIGEST_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}


def xarf_problems(report: Any) -> list[str]:
    """What is wrong with a report of the type ``csam``, by the rules of the public schema of XARF v4."""
    if not isinstance(report, dict):
        return ["not an object"]
    problems = [f"{name} is missing" for name in _REQUIRED if name not in report]
    problems += [f"{name} is no text" for name in _TEXTS if not isinstance(report.get(name, ""), str)]
    if problems:
        return problems
    return list(_problems(report))


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"4\.[0-9]+\.[0-9]+", report["xarf_version"]):
        yield "not version 4"
    try:
        uuid.UUID(report["report_id"])
        if datetime.fromisoformat(report["timestamp"]).tzinfo is None:
            yield "timestamp has no zone"
    except ValueError:
        yield "report_id is no UUID, or timestamp no time"
    for side in ("reporter", "sender"):
        party = report[side]
        if not isinstance(party, dict) or set(party) != {"org", "contact", "domain"}:
            yield f"{side} has not just org, contact and domain"
        elif not _EMAIL.fullmatch(party["contact"]) or len(party["org"]) > 200:
            yield f"{side}'s contact is no address, or its org too long"
    for name, values in _ENUMS.items():
        if name in report and report[name] not in values:
            yield f"{name} has a value that is not in the schema"
    url = urlsplit(report["url"])
    if not url.scheme or not url.netloc or not report["url"].isascii() or re.search(r"[\s<>\"\\^`{|}]", report["url"]):
        yield "url is no absolute URI"
    if report["source_identifier"] != report["url"]:
        try:
            ipaddress.ip_address(report["source_identifier"])
        except ValueError:
            yield "source_identifier is neither an IP address nor the URL"
    port = report.get("source_port", 1)
    if type(port) is not int or not 1 <= port <= 65535:
        yield "source_port is out of range"
    for name, value in report.get("hash_values", {}).items():
        digits = _DIGEST_DIGITS.get(name)
        if digits is not None and not re.fullmatch(f"[a-fA-F0-9]{{{digits}}}", value):
            yield f"hash_values.{name} is no such hash"
    if report.get("evidence"):
        yield "a report of csam must not have evidence attached"
    for tag in report.get("tags", ()):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_+-]*:[a-z0-9][a-z0-9_+.-]*", tag):
            yield "a tag has no namespace"


class FakeXarfReceiver(FakeServer):
    """Takes reports in at any path: 201, or 200 for one that it has. 422 for a wrong one, 401 for a wrong ``token``.

    ``reports`` has the first of each ``report_id``, ``repeats`` how often each came again, ``problems`` what was wrong.
    ``changed`` has the ids that came again as another report, which a sender must not do.
    """

    def __init__(self, *, token: str | None = None, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.token = token
        self.reports: dict[str, dict[str, Any]] = {}
        self.repeats: Counter[str] = Counter()
        self.changed: set[str] = set()
        self.problems: list[str] = []

    def answer(self, request: Request) -> Response:
        """Take a report in, once."""
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(401)
        if request.method != "POST" or request.media_type != "application/json":
            return Response(405 if request.method != "POST" else 415)
        try:
            report = json.loads(request.body)
        except ValueError:
            return Response(400)
        problems = xarf_problems(report)
        if problems:
            self.problems += problems
            return Response(422, json.dumps({"errors": problems}).encode())
        key = report["report_id"]
        if key in self.reports:
            self.repeats[key] += 1
            if report != self.reports[key]:
                self.changed.add(key)
            return Response(200)
        self.reports[key] = report
        return Response(201)

    def snapshot(self) -> dict[str, Any]:
        """How often each report came."""
        return {"requests": len(self.requests), "received": {one: 1 + self.repeats[one] for one in self.reports}}


if __name__ == "__main__":
    from uploadguard.testing.fakes.process import run_fake

    run_fake(FakeXarfReceiver)
