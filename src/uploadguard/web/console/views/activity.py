"""Counts over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from uploadguard.web.console import queries, words
from uploadguard.web.console.plots import Series, bars
from uploadguard.web.console.site import PageError, Visit

__all__ = ["activity"]

_SPANS = {"24h": (24, timedelta(hours=1), "%H:%M"), "30d": (30, timedelta(days=1), "%d %b")}
_VERDICTS = ("block", "queue", "not_scanned", "allow")
_OUTCOMES = ("confirmed", "dismissed")
_WIDTHS = {"wide": 1120, "narrow": 340}


def activity(visit: Visit) -> Response:
    """Checks by verdict, and cases by what became of them, by hour or by day."""
    span = visit.query("span") or "24h"
    if span not in _SPANS:
        raise PageError(400, "No such span", "Choose 24 hours or 30 days.")
    count, step, form = _SPANS[span]
    starts = queries.buckets(datetime.now(UTC), count=count, step=step)
    database = visit.parts.ledger.database
    checks, outcomes = queries.checks_by_hour(database, starts[0]), queries.outcomes_by_hour(database, starts[0])
    labels = [f"{start:{form}}" for start in starts]

    def series(names: tuple[str, ...], found: Mapping[str, Mapping[datetime, int]]) -> list[Series]:
        return [
            Series(words.VERDICTS.get(name, name), name, queries.collected(found.get(name, {}), starts, step))
            for name in names
        ]

    everything = series(_VERDICTS, checks)
    groups = [
        ("checks", "Uploads checked", everything),
        ("found", "Uploads not simply allowed", everything[:-1]),
        ("opened", "Cases opened", series(("opened",), outcomes)),
        ("decided", "Cases decided", series(_OUTCOMES, outcomes)),
    ]
    return visit.page(
        "activity.html",
        span=span,
        labels=labels,
        groups=[
            (
                key,
                title,
                found,
                {
                    name: bars(found, labels, f"{title} by {'hour' if span == '24h' else 'day'}", width=width)
                    for name, width in _WIDTHS.items()
                },
            )
            for key, title, found in groups
        ],
    )
