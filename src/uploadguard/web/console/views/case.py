"""One case: what is known of it, and what may be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup
from starlette.responses import Response

from uploadguard.actions import Occasion
from uploadguard.ledger.cases import CLAIM_LASTS, Case, CaseStatus, Outcome
from uploadguard.ledger.people import Role, is_same
from uploadguard.web.console.plots import share_bar
from uploadguard.web.console.site import PageError, Visit
from uploadguard.web.console.views.preview import granted

__all__ = ["case", "claim", "comment", "decide", "escalate", "outcome_of", "requeue", "timing_rows", "unclaim"]


@dataclass(frozen=True, slots=True)
class Choices:
    """Which forms a person gets for a case, and what stands above them."""

    claim: bool
    unclaim: bool
    decide: bool
    escalate: bool
    requeue: bool
    told: str


def case(visit: Visit) -> Response:
    """The page of a case."""
    cases = visit.parts.ledger.cases
    detail = cases.show(visit.path_id())
    shown = detail.case
    others: tuple[Case, ...] = ()
    if shown.uploader is not None:
        page = cases.list(statuses=tuple(CaseStatus), uploader=shown.uploader, limit=21)
        others = tuple(one for one in page.cases if one.id != shown.id)[:20]
    return visit.page(
        "case.html",
        detail=detail,
        case=shown,
        others=others,
        next_case=_next_case(visit, shown),
        choices=_choices(visit, shown, datetime.now(UTC)),
        two_person=visit.parts.settings.ledger.two_person,
        keeps_files=visit.parts.keeps_files,
        grant=granted(visit, visit.query("grant")),
        timings=timing_rows,
        reporting=any(Occasion.REPORT in action.occasions for action in visit.parts.ledger.actions.values()),
    )


def claim(visit: Visit) -> Response:
    """Take the case."""
    visit.parts.ledger.cases.claim(visit.path_id(), visit.who)
    return _back(visit, "claimed")


def unclaim(visit: Visit) -> Response:
    """Give the case back."""
    visit.parts.ledger.cases.unclaim(visit.path_id(), visit.who)
    return _back(visit, "unclaimed")


def decide(visit: Visit) -> Response:
    """Confirm or dismiss."""
    outcome = outcome_of(visit)
    (decided,) = visit.parts.ledger.cases.decide(
        [visit.path_id()],
        outcome,
        visit.who,
        note=visit.value("note"),
        ban=outcome == "confirm" and visit.value("ban") == "yes",
        remember=visit.value("remember") == "yes",
    )
    if decided.proposed:
        return _back(visit, "proposed")
    if decided.status is None or not decided.status.is_decided:
        return _back(visit, "disagreed")
    visit.parts.decided()
    return _back(visit, decided.status.value)


def outcome_of(visit: Visit) -> Outcome:
    """What the form says."""
    if (given := visit.value("outcome")) == "confirm":
        return "confirm"
    if given == "dismiss":
        return "dismiss"
    raise PageError(400, "No decision", "Nothing was done: choose to confirm or to dismiss.")


def escalate(visit: Visit) -> Response:
    """Ask for somebody with more experience."""
    visit.parts.ledger.cases.escalate(visit.path_id(), visit.who, visit.value("note"))
    return _back(visit, "escalated")


def comment(visit: Visit) -> Response:
    """Add a note."""
    if not visit.value("note"):
        raise PageError(400, "An empty note", "Nothing was done: write something first.")
    visit.parts.ledger.cases.comment(visit.path_id(), visit.who, visit.value("note"))
    return _back(visit, "commented")


def requeue(visit: Visit) -> Response:
    """Open a case again."""
    visit.parts.ledger.cases.requeue(visit.path_id(), visit.who, visit.value("note"))
    visit.parts.decided()
    return _back(visit, "requeued")


def _back(visit: Visit, done: str) -> Response:
    return visit.go("case", {"done": done}, id=visit.path_id())


def _next_case(visit: Visit, shown: Case) -> Case | None:
    """The oldest open case that this person could take next."""
    page = visit.parts.ledger.cases.list(statuses=(CaseStatus.OPEN, CaseStatus.PROPOSED), limit=20)
    mine = (None, visit.who.name)
    return next((one for one in page.cases if one.id != shown.id and one.claimed_by in mine), None)


def _choices(visit: Visit, shown: Case, now: datetime) -> Choices:
    """What the forms offer, and why not more; the ledger itself decides what may be done."""
    who, lead = visit.who, visit.who.may(Role.LEAD)
    if shown.status.is_decided:
        return Choices(False, False, False, False, requeue=lead, told="")
    lasts = shown.claimed_by is not None and shown.claimed_at is not None and now - shown.claimed_at < CLAIM_LASTS
    anothers = lasts and shown.claimed_by != who.name
    proposed = shown.status is CaseStatus.PROPOSED
    mine = proposed and is_same(shown.proposed_by or "", who.name)
    told = ""
    if mine:
        told = f"You decided to {shown.proposed} this case. It waits for a second person, who must say the same."
    elif anothers:
        told = f"{shown.claimed_by} is working on this case."
    elif shown.escalated and not lead:
        told = "This case is escalated: a lead decides it."
    elif proposed:
        told = (
            f"{shown.proposed_by} decided to {shown.proposed} this case. Look for yourself: if you say the same, it is "
            "done; if you say otherwise, the case goes to a lead."
        )
    return Choices(
        claim=not lasts,
        unclaim=lasts and (not anothers or lead),
        decide=not mine and (lead or not (anothers or shown.escalated)),
        escalate=not shown.escalated and (not anothers or lead),
        requeue=(mine or lead) if proposed else shown.escalated and lead,
        told=told,
    )


def timing_rows(timings_ms: Mapping[str, float]) -> list[tuple[str, float, Markup]]:
    """The stages of a check with their times and a bar each, longest first, the whole check last."""
    total = timings_ms.get("total", 0.0) or max(timings_ms.values(), default=1.0)
    stages = sorted(((name, ms) for name, ms in timings_ms.items() if name != "total"), key=lambda one: -one[1])
    rows = [*stages, *([("total", timings_ms["total"])] if "total" in timings_ms else [])]
    return [(name.replace("_", " "), ms, share_bar(ms / total if total else 0)) for name, ms in rows]
