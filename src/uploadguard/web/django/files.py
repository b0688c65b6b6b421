"""Decisions on Django's file objects: kept as the file's ``uploadguard``, so that no file is checked twice."""

from __future__ import annotations

import io
from typing import Any

from uploadguard.models import Context, Decision
from uploadguard.web.django.host import get_guard

__all__ = ["check_file", "decision_of", "keep_decision", "was_held"]

_DECISION = "uploadguard"
_HELD = "_uploadguard_held"


def decision_of(file: Any) -> Decision | None:
    """The decision on a file, if there is one and the file is still as long as it was then."""
    decision = getattr(file, _DECISION, None)
    if not isinstance(decision, Decision) or decision.media.size_bytes != getattr(file, "size", None):
        return None
    return decision


def keep_decision(file: Any, decision: Decision) -> None:
    """Let the file tell it: ``request.FILES["picture"].uploadguard``."""
    setattr(file, _DECISION, decision)


def was_held(file: Any) -> bool:
    """Whether the host was given this file to hold already; from now on it was."""
    held = getattr(file, _HELD, False)
    setattr(file, _HELD, True)
    return bool(held)


def check_file(file: Any, context: Context) -> Decision:
    """Check a Django file from its start, keep the decision with it, and rewind it.

    Raises as :meth:`uploadguard.Guard.check` does.
    """
    file.seek(0)
    text = isinstance(getattr(file, "file", file), io.TextIOBase)
    decision = get_guard().check(file.read().encode() if text else file, context=context)
    file.seek(0)
    keep_decision(file, decision)
    return decision
