"""The outbox: reports and callbacks, and how far each is."""

from __future__ import annotations

from starlette.responses import Response

from uploadguard.actions import State
from uploadguard.web.console import words
from uploadguard.web.console.site import PageError, Visit

__all__ = ["cancel_task", "reports", "retry_task"]

_SHOWN = {
    "": (State.PENDING, State.OPENED, State.FINISHING, State.REFUSED),
    **{state.value: (state,) for state in State},
    "all": tuple(State),
}
_LIMIT = 100


def reports(visit: Visit) -> Response:
    """Tasks in the order in which they were made."""
    state, action, late = visit.query("state"), visit.query("action"), bool(visit.query("late"))
    after = visit.query("after")
    if state not in _SHOWN or (after and not (after.isascii() and after.isdigit() and len(after) < 19)):
        raise PageError(400, "No such filter", "The page's address asks for what there is not.")
    outbox = visit.parts.ledger.outbox
    found = outbox.list(
        states=_SHOWN[state],
        action=action or None,
        late=True if late else None,
        after=int(after) if after else None,
        limit=_LIMIT + 1,
    )
    return visit.page(
        "reports.html",
        status=200,
        tasks=found[:_LIMIT],
        next_after=found[_LIMIT - 1].id if len(found) > _LIMIT else None,
        outbox=outbox.status(),
        chosen={"state": state, "action": action, "late": "yes" if late else ""},
        state_choices={"": "not done yet", **{key: words.STATES.get(key, key) for key in _SHOWN if key}},
        after=after,
    )


def retry_task(visit: Visit) -> Response:
    """Try a refused task again."""
    visit.parts.ledger.outbox.retry(visit.path_id(), visit.who)
    return _back(visit, "retried")


def cancel_task(visit: Visit) -> Response:
    """Take a task back."""
    visit.parts.ledger.outbox.cancel(visit.path_id(), visit.who, visit.value("note"))
    return _back(visit, "cancelled")


def _back(visit: Visit, done: str) -> Response:
    case_id = visit.value("case")
    if case_id.isascii() and case_id.isdigit() and len(case_id) < 19:
        return visit.go("case", {"done": done}, id=int(case_id), to="reports")
    return visit.go("reports", {"done": done})
