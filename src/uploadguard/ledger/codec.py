"""A decision with its context as JSON, for the ledger and its spool, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media, Verdict

__all__ = ["Recorded", "decision_of", "from_record", "to_record"]

_CONTEXT = tuple(item.name for item in fields(Context))
_MEDIA = tuple(item.name for item in fields(Media))
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision with what was known at the time. ``decided_at`` is UTC with zone."""

    decision: Decision
    context: Context
    decided_at: datetime


def to_record(decision: Decision, context: Context, decided_at: datetime) -> dict[str, Any]:
    """All of it as JSON types, hashes included. What the host put into the context is taken as far as JSON goes."""
    return {
        **decision.to_dict(include_hashes=True),
        "decided_at": decided_at.astimezone(UTC).isoformat(),
        "context": {name: _plain(getattr(context, name)) for name in _CONTEXT if getattr(context, name)},
    }


def from_record(record: Mapping[str, Any]) -> Recorded:
    """The opposite of :func:`to_record`. What a later version added is left out."""
    context = {name: value for name, value in record["context"].items() if name in _CONTEXT}
    if "uploaded_at" in context:
        context["uploaded_at"] = datetime.fromisoformat(context["uploaded_at"])
    return Recorded(decision_of(record), Context(**context), datetime.fromisoformat(record["decided_at"]))


def decision_of(record: Mapping[str, Any]) -> Decision:
    """The decision of a record."""
    return Decision(
        verdict=Verdict.from_label(record["verdict"]),
        reasons=tuple(record["reasons"]),
        matches=tuple(
            Match(
                list_name=m["list"],
                entry_id=m["entry_id"],
                category=m["category"],
                signal_type=m["signal_type"],
                distance_bits=m["distance_bits"],
                variant=m["variant"],
                frame=m["frame"],
                exact=m.get("exact", False),
                allow=m["allow"],
                fields=m["fields"],
            )
            for m in record["matches"]
        ),
        failures=tuple(
            Failure(FailureCode(f["code"]), f["detail"], f["frame"]) for f in record["failures"] if f["code"] in _CODES
        ),
        hashes=tuple(
            Hash(h["signal_type"], bytes.fromhex(h["value"]), h["quality"], h["variant"], h["frame"])
            for h in record.get("hashes", ())
        ),
        media=Media(**{name: record["media"][name] for name in _MEDIA if name in record["media"]}),
        generation=record["generation"],
        report_due=record["report_due"],
        timings_ms=record["timings_ms"],
        reference=record["reference"],
    )


_CODES = frozenset(FailureCode)


def _plain(value: object) -> Any:
    """JSON of whatever a host put there: an upload must not fail because of a strange context."""
    if isinstance(value, str):
        # Neither database keeps a NUL, and UTF-8 knows no lone surrogates (undecodable file names have them).
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")[:_MAX_TEXT]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.astimezone()).isoformat()
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return json.loads(json.dumps(value)) if value == value and abs(value) != float("inf") else str(value)
    return _plain(str(value))
