"""Times, as commands print them: UTC for people, ISO 8601 in JSON. None is no time."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["day_text", "iso_time", "time_text"]


def time_text(at: datetime | None, *, seconds: bool = False) -> str:
    """A time to the minute, or the second; empty for None."""
    if at is None:
        return ""
    return f"{at.astimezone(UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}} UTC"


def day_text(at: datetime | None) -> str:
    """A day; empty for None."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d}"


def iso_time(at: datetime | None) -> str | None:
    """A time for JSON."""
    return None if at is None else at.isoformat()
