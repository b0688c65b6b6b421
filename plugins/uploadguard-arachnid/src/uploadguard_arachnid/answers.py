"""Reading Arachnid Shield's answers, strictly: what is not certainly "no known match" is a match or no answer at all.

Its classifications may grow. As its own clients do, all but ``no-known-match`` is taken for a match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

__all__ = ["Finding", "Scanned", "read_media", "read_pdq"]

_NO_MATCH = "no-known-match"
_CLASSIFICATION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_CLASSIFICATION_CHARS = 64
_SHA1_BASE32 = re.compile(r"[A-Z2-7]{32}")
_MAX_FINDINGS = 16


class Finding(NamedTuple):
    """One file that the service knows. ``entry_id`` is its SHA-1 in base32, or ``near`` where that is not told."""

    entry_id: str
    classification: str
    exact: bool


class Scanned(NamedTuple):
    """What an answer about media must be about."""

    size_bytes: int
    sha1_base32: str
    sha256_hex: str


def read_pdq(body: bytes, sent: Collection[str]) -> Mapping[str, tuple[Finding, ...]]:
    """What is known of each hash that was sent. Raises ``ValueError`` that quotes nothing."""
    scanned = _object(_json(body).get("scanned_hashes"))
    if scanned.keys() != set(sent):
        raise ValueError("is not about the hashes that were sent")
    # By its documentation, a hash without a match may have null.
    return {text: () if found is None else _findings(_object(found), None) for text, found in scanned.items()}


def read_media(body: bytes, scanned: Scanned) -> tuple[Finding, ...]:
    """What is known of a file that was sent. Raises ``ValueError`` that quotes nothing."""
    answer = _json(body)
    sha256 = answer.get("sha256_hex")
    about = (answer.get("size_bytes"), answer.get("sha1_base32"), str(sha256).lower())
    if about != tuple(scanned):
        raise ValueError("is not about the file that was sent")
    return _findings(answer, scanned.sha1_base32)


def _findings(answer: Mapping[str, Any], sha1_base32: str | None) -> tuple[Finding, ...]:
    """``sha1_base32`` is of the file that was sent, where one was: an exact match is that file itself."""
    classification = _classification(answer.get("classification"))
    if classification is None:
        raise ValueError("has no classification")
    match_type = answer.get("match_type")
    details = _details(answer.get("near_match_details"))
    if classification == _NO_MATCH:
        if match_type is not None or details:
            raise ValueError("contradicts itself")
        return ()
    if match_type == "exact" and sha1_base32 is not None:
        return (Finding(sha1_base32, classification, exact=True),)
    # Whatever the service may call it: it is a match, and not of these very bytes.
    return tuple(_near(one, classification) for one in details[:_MAX_FINDINGS]) or (_near({}, classification),)


def _near(detail: Mapping[str, Any], classification: str) -> Finding:
    entry_id, own = detail.get("sha1_base32"), _classification(detail.get("classification"))
    known = isinstance(entry_id, str) and _SHA1_BASE32.fullmatch(entry_id) is not None
    return Finding(
        str(entry_id) if known else "near", classification if own in (None, _NO_MATCH) else str(own), exact=False
    )


def _classification(value: object) -> str | None:
    fits = isinstance(value, str) and len(value) <= _MAX_CLASSIFICATION_CHARS and _CLASSIFICATION.fullmatch(value)
    return str(value) if fits else None


def _details(value: object) -> list[Mapping[str, Any]]:
    """Near matches: a list of them, or a single one. What is no object stays as one without facts."""
    if value is None:
        return []
    found = value if isinstance(value, list) else [value]
    return [one if isinstance(one, dict) else {} for one in found]


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("has not the expected form")
    return value


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON, or says one thing twice") from None
    return _object(found)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("twice")
    return found


def _no_constant(_: str) -> None:
    raise ValueError("no number")
