"""A decision with its context as JSON, for the ledger and its spool, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media, Verdict

__all__ = ["Recorded", "decision_of", "from_record", "indexed_text", "to_record"]

_CONTEXT = tuple(item.name for item in fields(Context))
_MEDIA = tuple(item.name for item in fields(Media))
_MAX_TEXT = 4096
_MAX_EXTRA_CHARS = 256 * 1024
_VALUE_CHARS = 16
"""What a value counts for beside its text."""
_MAX_DEPTH = 32
_MAX_INT_BITS = 256
_MAX_INDEXED_BYTES = 1024
"""PostgreSQL's indexes take no row of more than 2,704 bytes."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision with what was known at the time. ``decided_at`` is UTC with zone."""

    decision: Decision
    context: Context
    decided_at: datetime


def to_record(decision: Decision, context: Context, decided_at: datetime) -> dict[str, Any]:
    """All of it as JSON types, hashes included. What the host put into the context, and lists and plugins into the
    fields of matches, is taken as far as JSON goes."""
    found = decision.to_dict(include_hashes=True)
    for match in found["matches"]:
        match["fields"] = _Plain().of(match["fields"])
    return {
        **found,
        "decided_at": decided_at.astimezone(UTC).isoformat(),
        "context": _context(context),
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
                source=m.get("source", ""),
                listed_at=_stored_time(m.get("listed_at")),
                updated_at=_stored_time(m.get("updated_at")),
            )
            for m in record["matches"]
        ),
        failures=tuple(
            Failure(FailureCode(f["code"]), f["detail"], f["frame"], f.get("matcher"))
            for f in record["failures"]
            if f["code"] in _CODES
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
        shadow=Verdict.from_label(record["shadow"]) if record.get("shadow") is not None else None,
        pending=tuple(record.get("pending", ())),
        revises=record.get("revises"),
    )


_CODES = frozenset(FailureCode)


def _stored_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def indexed_text(text: str) -> str:
    """Text as a column with an index can keep it: what is too long is cut off, and its digest put there instead."""
    data = text.replace("\0", "\ufffd").encode("utf-8", "replace")
    if len(data) > _MAX_INDEXED_BYTES:
        kept = data[: _MAX_INDEXED_BYTES // 2].decode("utf-8", "ignore")
        return f"{kept}\u2026{hashlib.sha256(data).hexdigest()}"
    return data.decode("utf-8")


def _context(context: Context) -> dict[str, Any]:
    """Each value as its type says, whatever a host put there: an upload must not fail because of a strange context."""
    found: dict[str, Any] = {}
    for name in _CONTEXT:
        value = getattr(context, name)
        if value is None:
            continue
        try:
            plain = _CONTEXT_TYPES.get(name, _text)(value)
        except Exception as error:  # noqa: BLE001 - the host's objects; what they hold is lost, the match is not
            plain = {"unreadable": type(error).__name__} if name == "extra" else None
        if plain:
            found[name] = plain
    return found


def _port(value: object) -> int | None:
    number = int(value)  # type: ignore[call-overload]
    return number if 0 < number < 1 << 16 else None


def _time(value: object) -> str:
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (at if at.tzinfo is not None else at.astimezone()).isoformat()


def _extra(value: object) -> dict[str, Any]:
    plain = _Plain().of(value if isinstance(value, Mapping) else {"extra": value} if value else {})
    assert isinstance(plain, dict)
    return plain


_CONTEXT_TYPES = {"port": _port, "uploaded_at": _time, "extra": _extra}
"""The others are text."""


def _text(value: object) -> str:
    """Text that both databases keep: neither takes a NUL, and UTF-8 knows no lone surrogates (undecodable file names
    have them)."""
    is_huge = isinstance(value, int) and value.bit_length() > _MAX_INT_BITS
    text = f"{value:#x}" if is_huge else str(value)  # Python writes no huge number in decimal
    return text[:_MAX_TEXT].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class _Plain:
    """JSON of whatever it is given, as far as there is room for it."""

    def __init__(self) -> None:
        self._left = _MAX_EXTRA_CHARS

    def of(self, value: object, depth: int = 0) -> Any:
        """The value, without what is too deep or too much."""
        self._left -= _VALUE_CHARS
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS:
            return int(value)
        if isinstance(value, float) and value == value and abs(value) != float("inf"):
            return float(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if depth == _MAX_DEPTH:
                return "\u2026"
            if isinstance(value, Mapping):
                return {self._said(key): self.of(item, depth + 1) for key, item in self._room(value.items())}
            return [self.of(item, depth + 1) for item in self._room(value)]
        return self._said(value)

    def _room(self, items: Iterable[Any]) -> Iterable[Any]:
        for item in items:
            if self._left <= 0:
                return
            yield item

    def _said(self, value: object) -> str:
        try:
            text = _time(value) if isinstance(value, datetime) else _text(value)
        except Exception as error:  # noqa: BLE001 - the host's object
            text = f"<{type(error).__name__}>"
        self._left -= len(text)
        return text
