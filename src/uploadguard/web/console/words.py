"""What the pages say: codes of the library in plain words."""

from __future__ import annotations

from uploadguard.models import FailureCode
from uploadguard.policy import ALLOW_LISTED, DIGEST_MATCH, LIST_TRIPPED, PERCEPTUAL_MATCH

__all__ = ["DONE", "EVENTS", "OCCASIONS", "PREVIEW_REASONS", "REASONS", "STATES", "STATUSES", "VERDICTS"]

REASONS = {
    DIGEST_MATCH: "the file itself is listed",
    PERCEPTUAL_MATCH: "looks like a listed picture",
    ALLOW_LISTED: "on an allow-list",
    LIST_TRIPPED: "by a list that matched too much to be believed",
    **{code.value: code.value.replace("_", " ") for code in FailureCode},
}
VERDICTS = {"allow": "allowed", "not_scanned": "not scanned", "queue": "queued", "block": "blocked"}
STATUSES = {
    "open": "open",
    "proposed": "needs a second person",
    "confirmed": "confirmed",
    "dismissed": "dismissed",
}
STATES = {
    "pending": "waiting",
    "opened": "begun",
    "finishing": "finishing",
    "filed": "filed",
    "refused": "refused",
    "cancelled": "cancelled",
}
OCCASIONS = {"report": "report", "release": "release", "delete": "removal", "ban": "ban of the uploader"}
EVENTS = {
    "claim": "claimed it",
    "unclaim": "gave it back",
    "confirm": "confirmed it",
    "dismiss": "dismissed it",
    "propose": "decided, as the first of two",
    "withdraw": "withdrew the decision",
    "disagree": "disagreed",
    "escalate": "escalated it",
    "requeue": "put it back into the queue",
    "comment": "noted",
    "reveal": "looked at the file",
    "export": "took the file out",
    "destroy": "had the file destroyed",
}
PREVIEW_REASONS = (
    "To decide this case",
    "To check what looks like a false match",
    "Second opinion for a colleague",
    "To answer an authority",
)
DONE = {
    "claimed": "The case is yours.",
    "unclaimed": "You gave the case back to the queue.",
    "confirmed": "Confirmed. Reports and removals are on their way; the state is shown below.",
    "dismissed": "Dismissed. The upload is released.",
    "proposed": "Noted. A second person must say the same before anything is done.",
    "disagreed": "You and the first person disagree: the case is escalated, and a lead decides it.",
    "escalated": "Escalated: a lead decides this case.",
    "commented": "Your note was added.",
    "requeued": "The case is open again.",
    "retried": "It is tried again at once.",
    "cancelled": "It was cancelled.",
    "bulk": "The chosen cases are decided.",
    "signed-out": "You are signed out.",
}
"""What was just done, by the code that stands in a page's address: nobody can put words of their own there."""
