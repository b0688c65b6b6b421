"""The hash lists in force, and how old they are."""

from __future__ import annotations

from starlette.responses import Response

from uploadguard.errors import UploadguardError
from uploadguard.freshness import Freshness
from uploadguard.web.console.site import Visit

__all__ = ["lists"]


def lists(visit: Visit) -> Response:
    """This host's hash set."""
    settings = visit.parts.settings.hashset
    freshness = Freshness(warn_after_h=settings.warn_after_h, stale_after_h=settings.stale_after_h)
    try:
        hashset = visit.parts.hashset()
        infos, generation, problem = hashset.lists(), hashset.generation, None
    except UploadguardError as error:
        infos, generation, problem = (), None, str(error)
    updated_at = max((info.updated_at for info in infos), default=None)
    return visit.page(
        "lists.html",
        infos=sorted(infos, key=lambda info: (info.role, info.name)),
        generation=generation,
        problem=problem,
        updated_at=updated_at,
        stale=freshness.is_stale(updated_at),
        settings=settings,
        guard=visit.parts.guard.status() if visit.parts.guard is not None else None,
    )
