"""The way of every request to its page: who is it, may they, did our own form send it; then the work, on a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from uploadguard.errors import (
    AuditError,
    CaseStateError,
    EvidenceError,
    LedgerError,
    NotPermittedError,
    UnknownRecordError,
    UploadguardError,
)
from uploadguard.ledger.people import Person, Role
from uploadguard.logs import log
from uploadguard.web.console.security import is_csrf_token, is_own_form
from uploadguard.web.console.site import Handler, PageError, Site, Visit

__all__ = ["Authentication", "Gate", "Known", "error_page"]

_MAX_FORM_BYTES = 256 * 1024
_MAX_FIELDS = 2000


@dataclass(frozen=True, slots=True)
class Known:
    """Who makes a request. ``cookies`` are to be set with the answer; None takes one away."""

    person: Person | None
    secret: str
    cookies: Mapping[str, str | None]


class Authentication(Protocol):
    """How the console knows people."""

    async def known(self, request: Request) -> Known:
        """Who that is; a person of None: nobody that is known."""

    def refuse(self, visit: Visit) -> Response:
        """What somebody unknown gets."""

    def set_cookies(self, visit: Visit, response: Response) -> None:
        """Put the visit's cookies on the answer."""


class Gate:
    """Makes the routes."""

    def __init__(self, site: Site, authentication: Authentication) -> None:
        self._site = site
        self._authentication = authentication

    def page(self, path: str, handler: Handler, *roles: Role, name: str = "") -> Route:
        """A page that is only read, for people with one of the roles; for others it does not exist."""
        return self._route(path, handler, "GET", roles, name)

    def act(self, path: str, handler: Handler, *roles: Role, name: str = "") -> Route:
        """What a form does, for people with one of the roles."""
        return self._route(path, handler, "POST", roles, name)

    def open(self, path: str, handler: Handler, method: str, *, name: str = "") -> Route:
        """A page or form for those who are not known yet."""
        return self._route(path, handler, method, None, name)

    def _route(self, path: str, handler: Handler, method: str, roles: tuple[Role, ...] | None, name: str) -> Route:
        async def endpoint(request: Request) -> Response:
            known = await self._authentication.known(request)
            visit = Visit(self._site, request, known.person, known.secret, cookies=dict(known.cookies))
            form = await _read_form(request) if method == "POST" else {}
            response = await run_in_threadpool(self._answer, visit, handler, roles, form)
            self._authentication.set_cookies(visit, response)
            return response

        return Route(path, endpoint, methods=[method], name=name or handler.__name__)

    def _answer(
        self, visit: Visit, handler: Handler, roles: tuple[Role, ...] | None, form: dict[str, list[str]] | None
    ) -> Response:
        """The answer, by a thread. Whatever goes wrong becomes a page."""
        posted = visit.request.method == "POST"
        if roles is not None and visit.person is None:
            return self._authentication.refuse(visit)
        try:
            if posted:
                visit.form = _require_own(visit, form)
            if roles and not any(visit.who.may(role) for role in roles):
                if not posted:
                    raise PageError(404, "Not found", "There is no such page.")
                raise NotPermittedError(f"this needs the role {roles[0].value!r}")
            return handler(visit)
        except PageError as error:
            return error_page(visit, error)
        except UploadguardError as error:
            return error_page(visit, _page_of(error))


def error_page(visit: Visit, error: PageError) -> Response:
    """The page that says what is wrong."""
    in_case = "id" in visit.request.path_params and visit.request.scope["path"].removeprefix(visit.root).startswith(
        "/cases/"
    )
    back = visit.url("case", id=visit.request.path_params["id"]) if in_case and error.status != 404 else None
    return visit.page("error.html", status=error.status, title=error.title, text=error.text, back=back)


def _require_own(visit: Visit, form: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """The form, if the console's own page sent it."""
    if form is None:
        raise PageError(413, "Too much", "The form is larger than any of this console's.")
    if not is_own_form(visit.request):
        raise PageError(
            403, "Not from here", "This form did not come from the console's own pages, so nothing was done."
        )
    token = form.get("csrf", [""])[0]
    if not is_csrf_token(token, visit.secret, visit.person.name if visit.person is not None else ""):
        raise PageError(
            403,
            "The page is out of date",
            "You signed in again since you opened it, or it is not from the console. Nothing was done: go back, load "
            "the page again, and repeat.",
        )
    return form


def _page_of(error: UploadguardError) -> PageError:
    text = str(error)
    if isinstance(error, UnknownRecordError):
        return PageError(404, "Not found", f"There is no such record: {text}.")
    if isinstance(error, NotPermittedError):
        return PageError(403, "Not for you", f"Nothing was done: {text}.")
    if isinstance(error, CaseStateError):
        return PageError(409, "The case has moved on", f"Nothing was done: {text}.")
    if isinstance(error, EvidenceError):
        return PageError(410, "The file cannot be had", f"{text}.")
    if isinstance(error, AuditError):
        return PageError(503, "The audit log cannot be written", f"So nothing was done: {text}.")
    log.error("the console could not answer: %s", text)
    if isinstance(error, LedgerError):
        return PageError(503, "The ledger is not to be had", f"Nothing was done: {text}.")
    return PageError(500, "This failed", f"{text}.")


async def _read_form(request: Request) -> dict[str, list[str]] | None:
    """The form's fields; None where they are too many or too large, and nothing of another content type."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM_BYTES:
                return None
    except ClientDisconnect:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    try:
        text = body.decode("ascii")
        return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
