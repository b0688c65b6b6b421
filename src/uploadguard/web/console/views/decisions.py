"""Decisions that were recorded: all but plain allows."""

from __future__ import annotations

from starlette.responses import Response

from uploadguard.models import Verdict
from uploadguard.web.console import queries, words
from uploadguard.web.console.site import PageError, Visit
from uploadguard.web.console.views.case import timing_rows

__all__ = ["decision", "decisions"]

_LIMIT = 50


def decisions(visit: Visit) -> Response:
    """Decisions, latest first."""
    verdict, text, before = visit.query("verdict"), visit.query("text"), visit.query("before")
    wrong = before and not (before.isascii() and before.isdigit() and len(before) < 19)
    if verdict not in ("", *(one.label for one in Verdict)) or wrong:
        raise PageError(400, "No such filter", "The page's address asks for what there is not.")
    rows, next_before = queries.decisions(
        visit.parts.ledger.database,
        verdict=verdict or None,
        text=text or None,
        before=int(before) if before else None,
        limit=_LIMIT,
    )
    return visit.page(
        "decisions.html",
        rows=rows,
        next_before=next_before,
        before=before,
        chosen={"verdict": verdict, "text": text},
        verdict_choices={"": "all", **{one.label: words.VERDICTS[one.label] for one in reversed(Verdict)}},
    )


def decision(visit: Visit) -> Response:
    """One decision."""
    decision_id, recorded, case_id, held = queries.decision(
        visit.parts.ledger.database, visit.request.path_params["reference"].replace("\0", "")
    )
    return visit.page(
        "decision.html",
        decision_id=decision_id,
        recorded=recorded,
        case_id=case_id,
        held=held,
        tasks=visit.parts.ledger.outbox.list(decision_id=decision_id),
        timings=timing_rows,
    )
