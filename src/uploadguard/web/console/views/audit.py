"""The audit log, for those who watch the watchers."""

from __future__ import annotations

from starlette.responses import Response

from uploadguard.ledger.audit_verify import AuditReport, verify
from uploadguard.web.console import queries
from uploadguard.web.console.site import PageError, Visit

__all__ = ["audit", "verify_audit"]

_LIMIT = 100


def audit(visit: Visit) -> Response:
    """Entries, latest first."""
    before = visit.query("before")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise PageError(400, "No such page", "The page's address asks for what there is not.")
    return _page(visit, int(before) if before else None, None)


def verify_audit(visit: Visit) -> Response:
    """Read the whole log, and say whether it is as it was written."""
    return _page(visit, None, verify(visit.parts.ledger.database))


def _page(visit: Visit, before: int | None, verified: AuditReport | None) -> Response:
    entries, next_before = queries.audit_entries(visit.parts.ledger.database, before=before, limit=_LIMIT)
    return visit.page("audit.html", entries=entries, next_before=next_before, before=before, verified=verified)
