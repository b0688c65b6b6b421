"""The application: its routes, and how it is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from uploadguard.config import Settings
from uploadguard.guard import Guard
from uploadguard.ledger.people import Role
from uploadguard.web.console.auth import Authenticate, HostAuthentication, LocalAccounts
from uploadguard.web.console.gate import Gate
from uploadguard.web.console.parts import open_parts
from uploadguard.web.console.security import SecurityHeaders, headers
from uploadguard.web.console.site import PageError, Site, Visit
from uploadguard.web.console.views.activity import activity
from uploadguard.web.console.views.audit import audit, verify_audit
from uploadguard.web.console.views.case import case, claim, comment, decide, escalate, requeue, unclaim
from uploadguard.web.console.views.decisions import decision, decisions
from uploadguard.web.console.views.lists import lists
from uploadguard.web.console.views.preview import ask_preview, preview
from uploadguard.web.console.views.queue import decide_many, home, queue, set_theme
from uploadguard.web.console.views.reports import cancel_task, reports, retry_task

__all__ = ["create_console"]


def create_console(guard_or_settings: Guard | Settings, *, authenticate: Authenticate | None = None) -> Starlette:
    """The review console as an ASGI application, to be mounted anywhere: every address is under its ``root_path``.

    ``authenticate`` is the host's own: it gets each request and says who makes it, or None; it may be asynchronous,
    and is called on a thread where it is not. Without it people sign in with accounts of the console's own.

    A Guard that is handed over stays the host's to close. What is opened from settings is closed when the application
    shuts down; where it is mounted, whose shutdown is the host's, ``app.state.close()`` does it.

    Raises :class:`~uploadguard.errors.ConfigError` where there is no ledger, ``LedgerError`` where it cannot be opened.
    """
    parts = open_parts(guard_or_settings)
    site = Site(parts, local_accounts=authenticate is None)
    authentication: HostAuthentication | LocalAccounts
    routes: list[BaseRoute] = [Route("/static/{name}", _static(site), name="static")]
    if authenticate is None:
        local = authentication = LocalAccounts(site)
        gate = Gate(site, authentication)
        routes += [
            gate.open("/sign-in", local.sign_in, "GET", name="sign_in"),
            gate.open("/sign-in", local.do_sign_in, "POST", name="do_sign_in"),
            gate.act("/sign-out", local.sign_out, name="sign_out"),
        ]
    else:
        authentication = HostAuthentication(site, authenticate)
        gate = Gate(site, authentication)
    routes += _routes(gate)
    routes.append(gate.page("/{path:path}", _nowhere, name="nowhere"))
    common = headers(over_https=site.secure)

    async def on_fault(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("This failed. The console's log says more.\n", 500, headers=common)

    async def on_http_error(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        allowed = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return PlainTextResponse(f"This cannot be answered ({status}).\n", status, headers=allowed)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        parts.close()

    app = Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders, values=common)],
        exception_handlers={HTTPException: on_http_error, Exception: on_fault},
        lifespan=lifespan,
    )
    site.app = app
    app.state.parts, app.state.close = parts, parts.close
    return app


class _RecordNumber(IntegerConvertor):
    """The number of a record, no longer than any can be: Python refuses to read one of thousands of digits."""

    regex = "[0-9]{1,19}"


register_url_convertor("record", _RecordNumber())


def _routes(gate: Gate) -> list[BaseRoute]:
    return [
        gate.page("/", home),
        gate.act("/theme", set_theme),
        gate.page("/queue", queue, Role.REVIEW),
        gate.act("/queue", decide_many, Role.LEAD),
        gate.page("/cases/{id:record}", case, Role.REVIEW),
        gate.act("/cases/{id:record}/claim", claim, Role.REVIEW),
        gate.act("/cases/{id:record}/unclaim", unclaim, Role.REVIEW),
        gate.act("/cases/{id:record}/decide", decide, Role.REVIEW),
        gate.act("/cases/{id:record}/escalate", escalate, Role.REVIEW),
        gate.act("/cases/{id:record}/comment", comment, Role.REVIEW),
        gate.act("/cases/{id:record}/requeue", requeue, Role.REVIEW),
        gate.act("/cases/{id:record}/preview", ask_preview, Role.REVEAL),
        gate.page("/previews/{token}", preview, Role.REVEAL),
        gate.page("/reports", reports, Role.REVIEW, Role.LEAD),
        gate.act("/reports/{id:record}/retry", retry_task, Role.LEAD),
        gate.act("/reports/{id:record}/cancel", cancel_task, Role.LEAD),
        gate.page("/decisions", decisions, Role.REVIEW),
        gate.page("/decisions/{reference}", decision, Role.REVIEW),
        gate.page("/lists", lists, Role.REVIEW, Role.AUDIT),
        gate.page("/activity", activity, Role.REVIEW, Role.AUDIT),
        gate.page("/audit", audit, Role.AUDIT),
        gate.act("/audit", verify_audit, Role.AUDIT),
    ]


def _nowhere(_visit: Visit) -> Response:
    raise PageError(404, "Not found", "There is no such page.")


def _static(site: Site) -> Callable[[Request], Awaitable[Response]]:
    async def static(request: Request) -> Response:
        found = site.static.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("There is no such file.\n", 404)
        data, media_type = found
        # Their address changes with them, and there is nothing of anybody's in them.
        return Response(data, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})

    return static
