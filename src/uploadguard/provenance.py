"""Where a match comes from, in words for the operator. Names sources and entries: never for the uploader."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from uploadguard.models import Match

__all__ = ["provenance"]

_MAX_CHARS = 300


def provenance(match: Match) -> list[tuple[str, str]]:
    """What is known of the entry's origin, as (what, said) pairs; empty for a match service that says nothing.

    Where its list's part came from and when, when the list was last imported or updated, and the list's own fields.
    """
    found = [
        *([("source", match.source)] if match.source else []),
        *([("listed", _day(match.listed_at))] if match.listed_at is not None else []),
        *([("list updated", _day(match.updated_at))] if match.updated_at is not None else []),
        *((str(name), _said(value)) for name, value in match.fields.items()),
    ]
    return [(what, said if len(said) <= _MAX_CHARS else f"{said[:_MAX_CHARS]}\u2026") for what, said in found]


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
