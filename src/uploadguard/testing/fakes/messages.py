"""What goes in and out of a fake server."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, unquote

from uploadguard.testing.fakes.misbehaviour import Misbehaviour

__all__ = ["Part", "Request", "Response"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a ``multipart/form-data`` body."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came. ``headers`` are looked up by lower-case name; ``misbehaved`` is what it met."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    misbehaved: Misbehaviour | None = None

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def is_from(self, username: str, password: str) -> bool:
        """Whether it has these credentials, by Basic authentication."""
        allowed = base64.b64encode(f"{username}:{password}".encode()).decode()
        return self.headers.get("authorization") == f"Basic {allowed}"

    def form(self) -> dict[str, str]:
        """The fields of a URL-encoded body; the last of each name."""
        fields = parse_qs(self.body.decode(), keep_blank_values=True)
        return {name: values[-1] for name, values in fields.items()}

    def parts(self) -> list[Part]:
        """The parts of a ``multipart/form-data`` body. Raises ``ValueError`` where it is none."""
        found = re.search(r'boundary="?([^";]+)"?', self.headers.get("content-type", ""))
        if self.media_type != "multipart/form-data" or found is None:
            raise ValueError("no multipart/form-data")
        boundary = b"--" + found[1].encode()
        if not self.body.startswith(boundary) or not self.body.rstrip(b"\r\n").endswith(boundary + b"--"):
            raise ValueError("multipart/form-data without its boundaries")
        pieces = (b"\r\n" + self.body).split(b"\r\n" + boundary)
        return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, separator, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("a part without headers")
    headers = {}
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    fields = dict(re.findall(r';\s*([a-z]+\*?)="([^"]*)"', headers.get("content-disposition", "")))
    if "name" not in fields:
        raise ValueError("a part without a name")
    filename = fields.get("filename")
    return Part(fields["name"], data, None if filename is None else unquote(filename), headers.get("content-type"))


@dataclass(frozen=True, slots=True)
class Response:
    """What a fake answers."""

    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
