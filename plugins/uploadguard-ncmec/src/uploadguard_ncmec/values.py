"""Values of elements: text that XML can hold, and the checks of formats."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime

__all__ = [
    "address_of",
    "clean",
    "is_address",
    "is_email",
    "is_flag",
    "is_id",
    "is_port",
    "is_time",
    "time_text",
    "utc",
]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPACES = re.compile(r"\s+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def clean(text: str, max_chars: int, *, lines: bool = False) -> str:
    """The text with what XML cannot hold replaced, on one line unless ``lines``, and cut to ``max_chars``."""
    found = _NOT_XML.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n")
    found = (found if lines else _SPACES.sub(" ", found)).strip()
    return found if len(found) <= max_chars else found[: max_chars - 1].rstrip() + "…"


def utc(time: datetime) -> datetime | None:
    """The time in UTC, to the second; None at the ends of the calendar. One without zone is the machine's own."""
    try:
        return time.astimezone(UTC).replace(microsecond=0)
    except (OverflowError, OSError, ValueError):
        return None


def time_text(time: datetime) -> str:
    """A time in UTC as the schema has it."""
    return time.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def address_of(text: str) -> str | None:
    """The IP address in its usual form, without a scope; None where it is none."""
    try:
        return str(ipaddress.ip_address(text.strip().partition("%")[0]))
    except ValueError:
        return None


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    return address_of(text) == text


def is_time(text: str) -> bool:
    """Whether it is a time as :func:`time_text` writes it."""
    return _TIME.fullmatch(text) is not None


def is_email(text: str) -> bool:
    """Whether it can be an email address."""
    return len(text) <= 254 and text.isprintable() and _EMAIL.fullmatch(text) is not None


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536


def is_id(text: str) -> bool:
    """Whether it can be the id of a report."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def is_flag(text: str) -> bool:
    """Whether it is a truth value."""
    return text in ("true", "false")
