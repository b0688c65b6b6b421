"""What a request says of its upload: headers ``X-Uploadguard-*``, or fields of the same names in a form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from uploadguard.models import Context
from uploadguard.web.service.faults import Fault

__all__ = ["CONTEXT_FIELDS", "HEADER_PREFIX", "context_of", "context_of_json", "from_headers"]

HEADER_PREFIX = "x-uploadguard-"
CONTEXT_FIELDS = tuple(item.name for item in fields(Context))
_MAX_CHARS = 8192


def from_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields that headers give, percent-decoded. Raises :class:`Fault` for one that there is not, or twice."""
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if not lower.startswith(HEADER_PREFIX):
            continue
        key = lower.removeprefix(HEADER_PREFIX).replace("-", "_")
        if key not in CONTEXT_FIELDS:
            raise Fault(400, "unknown_field", f"There is no header X-Uploadguard-{key[:40].replace('_', '-').title()}.")
        if key in found:
            raise Fault(400, "bad_field", f"The field {key} is there twice.")
        try:
            found[key] = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            raise Fault(400, "bad_field", f"The field {key} is not percent-encoded UTF-8.") from None
    return found


def context_of(values: Mapping[str, str]) -> Context:
    """The context, from fields as text. Empty ones are left out. Raises :class:`Fault`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in CONTEXT_FIELDS:
            raise Fault(400, "unknown_field", f"There is no field {name[:40]!r}; a file's part needs a file name.")
        if not value:
            continue
        if name == "extra":
            try:
                found[name] = json.loads(value)
            except (ValueError, RecursionError):
                raise Fault(400, "bad_field", "The field extra is not JSON.") from None
        elif name == "port":
            if not (value.isascii() and value.isdigit()) or len(value) > 5:
                raise Fault(400, "bad_field", "The field port is not a port.")
            found[name] = int(value)
        else:
            found[name] = value
    return context_of_json(found)


def context_of_json(values: Any) -> Context:
    """The context, from a JSON object. Raises :class:`Fault`."""
    if not isinstance(values, dict):
        raise Fault(400, "bad_field", "The context is not a JSON object.")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in CONTEXT_FIELDS:
            raise Fault(400, "unknown_field", f"There is no field {name[:40]!r} in the context.")
        if value is not None:
            found[name] = _checked(name, value)
    return Context(**found)


def _checked(name: str, value: Any) -> Any:
    if name == "extra":
        if not isinstance(value, dict):
            raise Fault(400, "bad_field", "The field extra is not a JSON object.")
        return value
    if name == "port":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
            raise Fault(400, "bad_field", "The field port is not a port.")
        return value
    if not isinstance(value, str):
        raise Fault(400, "bad_field", f"The field {name} is not text.")
    if len(value) > _MAX_CHARS:
        raise Fault(400, "bad_field", f"The field {name} is longer than {_MAX_CHARS} characters.")
    if name == "uploaded_at":
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise Fault(400, "bad_field", "The field uploaded_at is not a time as ISO 8601 has it, with a zone.")
        return at
    return value
