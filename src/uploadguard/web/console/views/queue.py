"""The queue: cases that wait, with filters; and what may be done to many at once."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from uploadguard.errors import UploadguardError
from uploadguard.ledger.cases import CaseStatus
from uploadguard.ledger.people import Role
from uploadguard.web.console import queries, words
from uploadguard.web.console.site import PageError, Visit
from uploadguard.web.console.views.case import outcome_of

__all__ = ["decide_many", "home", "list_names", "queue", "set_theme"]

_SHOWN = {
    "": (CaseStatus.OPEN, CaseStatus.PROPOSED),
    "open": (CaseStatus.OPEN,),
    "proposed": (CaseStatus.PROPOSED,),
    "confirmed": (CaseStatus.CONFIRMED,),
    "dismissed": (CaseStatus.DISMISSED,),
    "all": tuple(CaseStatus),
}
_FILTERS = ("status", "reason", "tenant", "list", "claimed", "escalated", "text")
_MOST_AT_ONCE = 100


def home(visit: Visit) -> Response:
    """To the first page that is for this person."""
    if visit.who.may(Role.REVIEW):
        return visit.go("queue")
    if visit.who.may(Role.LEAD):
        return visit.go("reports")
    if visit.who.may(Role.AUDIT):
        return visit.go("audit")
    raise PageError(
        403,
        "Nothing here for you yet",
        "Your account has no role that opens a page. Who runs the console can give one.",
    )


def set_theme(visit: Visit) -> Response:
    """Light, dark, or as the system has it."""
    theme = visit.value("theme")
    if theme not in ("auto", "light", "dark"):
        raise PageError(400, "No such theme", "Choose auto, light or dark.")
    back = visit.value("back")
    known = back.startswith("/") and not back.startswith("//") and "\\" not in back and back.isprintable()
    response = RedirectResponse(visit.root + back if known else visit.url("home"), 303)
    response.set_cookie(
        "uploadguard_theme",
        theme,
        max_age=365 * 86400,
        path=visit.root or "/",
        secure=visit.site.secure,
        httponly=True,
        samesite="strict",
    )
    return response


def queue(visit: Visit) -> Response:
    """Cases, oldest first."""
    chosen = {name: visit.query(name) for name in _FILTERS}
    cases = visit.parts.ledger.cases
    try:
        page = cases.list(
            statuses=_SHOWN[chosen["status"]],
            reason=chosen["reason"] or None,
            tenant=chosen["tenant"] or None,
            list_name=chosen["list"] or None,
            claimed_by={"": None, "me": visit.who.name, "nobody": ""}[chosen["claimed"]],
            escalated=True if chosen["escalated"] else None,
            text=chosen["text"] or None,
            after=visit.query("after") or None,
            limit=50,
        )
    except (KeyError, ValueError):
        raise PageError(400, "No such filter", "The page's address asks for what there is not.") from None
    return visit.page(
        "queue.html",
        page=page,
        counts=cases.counts(),
        chosen=chosen,
        filtered=any(chosen.values()),
        after=visit.query("after"),
        tenants=queries.tenants(visit.parts.ledger.database),
        lists=list_names(visit),
        reasons=words.REASONS,
        status_choices={"": "undecided", **{key: words.STATUSES.get(key, key) for key in _SHOWN if key}},
    )


def decide_many(visit: Visit) -> Response:
    """Decide all the chosen cases alike; where some could not be, say which and why."""
    ids = [int(text) for text in visit.form.get("case", []) if text.isascii() and text.isdigit() and len(text) < 19]
    if not ids:
        raise PageError(400, "No case is chosen", "Nothing was done: tick the cases to decide first.")
    if len(ids) > _MOST_AT_ONCE:
        raise PageError(
            400, "Too many at once", f"Nothing was done: at most {_MOST_AT_ONCE} cases can be decided at once."
        )
    outcome = outcome_of(visit)
    if visit.value("sure") != "yes":
        raise PageError(400, "Not certain yet", "Nothing was done: tick that you are certain, too.")
    visit.who.require(Role.LEAD)
    results = visit.parts.ledger.cases.decide(ids, outcome, visit.who, note=visit.value("note"))
    visit.parts.decided()
    if all(one.error is None for one in results):
        return visit.go("queue", {"done": "bulk"})
    return visit.page("bulk.html", status=409, results=results)


def list_names(visit: Visit) -> list[str]:
    """The lists of this host's hash set, as far as it can be read."""
    try:
        found: list[Any] = [info.name for info in visit.parts.hashset().lists()]
    except UploadguardError:
        return []
    return sorted(found)
