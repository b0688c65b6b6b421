"""Being shown a file: asked for with a reason, logged, and served once.

The form's answer is the case's page with a picture in it, whose address is good for one request of the same person
within a minute. The picture is made, and the look at it logged, when that request comes.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from markupsafe import escape
from starlette.responses import Response

from uploadguard.errors import EvidenceError, LedgerError, NotPermittedError, UploadguardError
from uploadguard.ledger import schema
from uploadguard.ledger.people import Role
from uploadguard.logs import log
from uploadguard.web.console import queries
from uploadguard.web.console.site import PageError, Visit

__all__ = ["Granted", "ask_preview", "granted", "preview"]

_GRANTED = timedelta(seconds=60)
_MAX_REASON = 500
_MAX_FRAME = 1_000_000


@dataclass(frozen=True, slots=True)
class Granted:
    """A preview that was asked for and not shown yet."""

    token: str
    decision_id: int
    clear: bool


def ask_preview(visit: Visit) -> Response:
    """Note what is asked for and why, and show the page that the picture is in."""
    visit.who.require(Role.REVEAL)
    text = visit.value("decision")
    decision_id = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    case_id = visit.path_id()
    if queries.case_of_decision(visit.parts.ledger.database, decision_id) != case_id:
        raise PageError(404, "Not found", "That upload is not in this case.")
    reason = " - ".join(part for part in (visit.value("reason"), visit.value("reason_text")) if part)[:_MAX_REASON]
    if not reason:
        raise PageError(400, "A reason is needed", "Nothing was shown: say why you must see the file.")
    kept = visit.parts.ledger.evidence.info(decision_id)
    if kept is None or kept.destroyed_at is not None:
        raise PageError(410, "No file is kept", "There is nothing to show: no file of this upload is kept any more.")
    clear = visit.value("clear") == "yes"
    frame = visit.value("frame") or "1"
    if not (frame.isascii() and frame.isdigit() and len(frame) <= 7 and 1 <= int(frame) <= _MAX_FRAME):
        raise PageError(400, "No such frame", "Nothing was shown: frames are counted from 1.")
    token, now = secrets.token_urlsafe(32), datetime.now(UTC)
    grants = schema.preview_grants
    with visit.parts.ledger.database.changing() as connection:
        connection.execute(sa.delete(grants).where(grants.c.expires_at <= now))
        connection.execute(
            sa.insert(grants).values(
                token=_digest(token),
                actor=visit.who.name,
                decision_id=decision_id,
                reason=reason,
                clear=clear,
                frame=int(frame) - 1,
                expires_at=now + _GRANTED,
            )
        )
    return visit.go("case", {"grant": token}, id=case_id, to=f"upload-{decision_id}")


def granted(visit: Visit, token: str) -> Granted | None:
    """What that token still shows to this person; None once it was shown, and where it never was one."""
    if not token:
        return None
    with visit.parts.ledger.database.reading() as connection:
        row = connection.execute(sa.select(schema.preview_grants).where(_mine(visit, token))).one_or_none()
    if row is None or row.expires_at <= datetime.now(UTC):
        return None
    return Granted(token, row.decision_id, row.clear)


def preview(visit: Visit) -> Response:
    """The picture, once."""
    visit.who.require(Role.REVEAL)
    if visit.request.method != "GET":
        # Without a body nobody sees anything, so it must not count as viewed.
        return _said(405, "A preview is shown by GET.")
    mine = _mine(visit, visit.request.path_params["token"])
    with visit.parts.ledger.database.changing() as connection:
        row = connection.execute(sa.select(schema.preview_grants).where(mine).with_for_update()).one_or_none()
        # Of two who come at once, one deletes it.
        taken = connection.execute(sa.delete(schema.preview_grants).where(mine)).rowcount
    if row is None or taken != 1 or row.expires_at <= datetime.now(UTC):
        return _said(410, "This was shown already. Ask again to see it.")
    try:
        png = visit.parts.ledger.evidence.preview(
            row.decision_id, visit.who, row.reason, clear=row.clear, frame=row.frame
        )
    except NotPermittedError:
        return _said(403, "Your account may not see files.")
    except EvidenceError as error:
        return _said(410, f"The file cannot be shown: {error}.")
    except ValueError:
        return _said(400, "The reason says nothing. Ask again.")
    except LedgerError:
        return _said(503, "The audit log cannot be written, so nothing is shown.")
    except UploadguardError as error:
        log.warning("a preview could not be made: %s", type(error).__name__)
        return _said(500, "The preview could not be made.")
    return Response(png, media_type="image/png")


def _mine(visit: Visit, token: str) -> sa.ColumnElement[bool]:
    grants = schema.preview_grants.c
    return sa.and_(grants.token == _digest(token), grants.actor == visit.who.name)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _said(status: int, text: str) -> Response:
    """What is wrong, as a picture: it stands where the preview would. Browsers show it whatever the status."""
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 44:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    rows = "".join(f'<tspan x="20" dy="24">{escape(line)}</tspan>' for line in lines[:6])
    height = 44 + 24 * min(len(lines), 6)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 {height}" width="420" height="{height}">'
        f'<rect width="420" height="{height}" fill="#6b7480"/>'
        f'<text y="12" font-family="sans-serif" font-size="16" fill="#ffffff">{rows}</text></svg>'
    )
    return Response(svg, status, media_type="image/svg+xml")
