"""An Arachnid Shield: it compares PDQ hashes, and files byte by byte, with what it was told to know."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from typing import Any

from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.server import FakeServer

__all__ = ["FakeArachnid"]

NO_MATCH = "no-known-match"
_PDQ_BYTES = 32
_MAX_DISTANCE_BITS = 31
_JSON = {"Content-Type": "application/json"}


class FakeArachnid(FakeServer):
    """Answers ``v1/pdq/`` by Hamming distance, and ``v1/media/`` for the very bytes that it was told of.

    ``username`` and ``password`` are what it lets in; change them at will. ``asked`` counts the questions it answered,
    ``hashes`` the PDQ hashes in them. Errors have a ``detail``.
    """

    MAX_HASHES = 64

    def __init__(self, *, username: str = "host", password: str = "made-up", **server: Any) -> None:  # noqa: S107
        super().__init__(**server)
        self.username = username
        self.password = password
        self.asked: Counter[str] = Counter()
        self.hashes = 0
        self._pdq: dict[bytes, tuple[str, bytes]] = {}
        self._media: dict[bytes, tuple[str, str]] = {}

    def add_pdq(self, value: bytes, *, of: bytes = b"a file", classification: str = "csam") -> None:
        """Have it know the hash of a file."""
        with self.lock:
            self._pdq[value] = (classification, of)

    def add_media(self, content: bytes, *, classification: str = "csam", match_type: str = "exact") -> None:
        """Have it answer so for these bytes."""
        with self.lock:
            self._media[hashlib.sha256(content).digest()] = (classification, match_type)

    def answer(self, request: Request) -> Response:
        """Scan what came."""
        if request.path not in ("/v1/pdq/", "/v1/media/"):
            return _refusal(404, "Not found.")
        if not request.is_from(self.username, self.password):
            return _refusal(401, "Invalid username/password.")
        if request.method != "POST":
            return _refusal(405, "Method not allowed.")
        return self._scan_hashes(request) if request.path == "/v1/pdq/" else self._scan_media(request)

    def snapshot(self) -> dict[str, Any]:
        """What was asked."""
        return {"requests": len(self.requests), "asked": dict(self.asked), "hashes": self.hashes}

    def _scan_hashes(self, request: Request) -> Response:
        if request.media_type != "application/json":
            return _refusal(415, "Unsupported media type.")
        try:
            texts = json.loads(request.body)["hashes"]
            values = {text: base64.b64decode(text, validate=True) for text in texts}
        except (ValueError, KeyError, TypeError, binascii.Error):
            return _refusal(400, "Malformed request.")
        if not 1 <= len(texts) <= self.MAX_HASHES or any(len(value) != _PDQ_BYTES for value in values.values()):
            return _refusal(400, "These are not PDQ hashes, or too many.")
        self.asked["pdq"] += 1
        self.hashes += len(values)
        return _json({"scanned_hashes": {text: self._scanned_hash(value) for text, value in values.items()}})

    def _scanned_hash(self, value: bytes) -> dict[str, Any]:
        number = int.from_bytes(value)
        for known, (classification, of) in self._pdq.items():
            if (int.from_bytes(known) ^ number).bit_count() <= _MAX_DISTANCE_BITS:
                details = _details(of, classification)
                return {"classification": classification, "match_type": "near", "near_match_details": details}
        return {"classification": NO_MATCH, "match_type": None, "near_match_details": None}

    def _scan_media(self, request: Request) -> Response:
        if not request.media_type.startswith(("image/", "video/")):
            return _refusal(415, "Unsupported media type.")
        self.asked["media"] += 1
        classification, match_type = self._media.get(hashlib.sha256(request.body).digest(), (NO_MATCH, None))
        near = [_details(b"another file", classification)] if match_type == "near" else []
        names = _details(request.body, classification)
        answer = {
            "size_bytes": len(request.body),
            "sha1_base32": names["sha1_base32"],
            "sha256_hex": names["sha256_hex"],
            "classification": classification,
            "match_type": match_type,
            "near_match_details": near,
        }
        return _json(answer)


def _details(of: bytes, classification: str) -> dict[str, Any]:
    return {
        "timestamp": 0.0,
        "sha1_base32": base64.b32encode(hashlib.sha1(of, usedforsecurity=False).digest()).decode(),
        "sha256_hex": hashlib.sha256(of).hexdigest().upper(),
        "classification": classification,
    }


def _json(answer: dict[str, Any], code: int = 200) -> Response:
    return Response(code, json.dumps(answer).encode(), _JSON)


def _refusal(code: int, detail: str) -> Response:
    return _json({"detail": detail}, code)


if __name__ == "__main__":
    from uploadguard.testing.fakes.process import run_fake

    run_fake(FakeArachnid)
