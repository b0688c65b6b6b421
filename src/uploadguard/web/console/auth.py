"""The two ways to know who is there: the console's own accounts, or the host's own authentication."""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from uploadguard.ledger.people import Person, is_machine
from uploadguard.logs import log
from uploadguard.web.console.gate import Known, error_page
from uploadguard.web.console.site import PageError, Site, Visit
from uploadguard.web.console.throttle import Throttle, network_of

__all__ = ["Authenticate", "HostAuthentication", "LocalAccounts"]

Authenticate = Callable[[Request], Awaitable[Person | None] | Person | None]
"""The host's own: who makes this request, with which roles; None for nobody that may come in."""

_SESSION = "uploadguard_session"
_FORMS = "uploadguard_forms"
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")
_NEXT = re.compile(r"/[A-Za-z0-9/_-]{0,200}")


class _Cookies:
    """The console's cookies: for this host alone where they go over HTTPS, out of scripts' reach, never sent along by
    other sites."""

    def __init__(self, site: Site) -> None:
        self._secure = site.secure

    def name(self, name: str) -> str:
        return f"__Host-{name}" if self._secure else name

    def get(self, request: Request, name: str) -> str | None:
        return request.cookies.get(self.name(name))

    def set_cookies(self, visit: Visit, response: Response) -> None:
        """Put the visit's cookies on the answer."""
        for name, value in visit.cookies.items():
            settings: dict[str, Any] = {
                "path": "/" if self._secure else visit.root or "/",
                "secure": self._secure,
                "httponly": True,
                "samesite": "strict",
            }
            if value is None:
                response.delete_cookie(self.name(name), **settings)
            else:
                response.set_cookie(self.name(name), value, **settings)

    def form_secret(self, request: Request) -> tuple[str, dict[str, str | None]]:
        """The secret of forms where there is no session, from its cookie; with the cookie, if it must be set first."""
        found = self.get(request, _FORMS)
        if found is not None and _SECRET.fullmatch(found):
            return found, {}
        made = secrets.token_urlsafe(32)
        return made, {_FORMS: made}


class HostAuthentication(_Cookies):
    """People as the host knows them. A form's token is tied to a cookie of the console's and to the person."""

    def __init__(self, site: Site, authenticate: Authenticate) -> None:
        super().__init__(site)
        self._authenticate = authenticate

    async def known(self, request: Request) -> Known:
        """Ask the host; a callable that is not asynchronous is called on a thread."""
        if inspect.iscoroutinefunction(self._authenticate):
            answer: Any = await self._authenticate(request)
        else:
            answer = await run_in_threadpool(self._authenticate, request)
            if inspect.isawaitable(answer):
                answer = await answer
        if answer is not None and not isinstance(answer, Person):
            raise TypeError(f"authenticate must give an uploadguard Person or None, not {type(answer).__name__}")
        if answer is not None and (not answer.name.strip() or not answer.name.isprintable() or is_machine(answer.name)):
            raise ValueError("authenticate gave a person without a name, or with one that is no person's")
        secret, cookies = self.form_secret(request)
        return Known(answer, secret, cookies)

    def refuse(self, visit: Visit) -> Response:
        """Signing in is the host's matter."""
        text = "Sign in where you do it for this site, then come back."
        return error_page(visit, PageError(401, "Not signed in", text))


class LocalAccounts(_Cookies):
    """People with accounts of the console's own."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._accounts = site.parts.accounts
        # Not by name: who knows a reviewer's could keep them out, and generated passwords are not to be guessed anyhow.
        self._by_address = Throttle(free=10, longest_s=900.0, forget_s=3600.0)

    async def known(self, request: Request) -> Known:
        """By the session's cookie."""
        token = self.get(request, _SESSION)
        session = await run_in_threadpool(self._accounts.session, token[:128]) if token else None
        if session is not None:
            return Known(session.person, session.csrf, {})
        secret, cookies = self.form_secret(request)
        return Known(None, secret, cookies)

    def refuse(self, visit: Visit) -> Response:
        """To the page for signing in, and from there back to where they wanted to go."""
        wanted = visit.request.scope["path"].removeprefix(visit.root)
        keep = visit.request.method == "GET" and _NEXT.fullmatch(wanted) is not None and wanted != "/"
        return visit.go("sign_in", {"next": wanted if keep else None})

    def sign_in(self, visit: Visit) -> Response:
        """The page for signing in."""
        if visit.person is not None:
            return self._onward(visit, visit.query("next"))
        # Cookies are not sent along where another site leads here, though the session may be alive.
        led = visit.request.headers.get("sec-fetch-site") == "cross-site"
        return visit.page("sign_in.html", next=_next(visit.query("next")), led=led, problem=None, name="")

    def do_sign_in(self, visit: Visit) -> Response:
        """Sign somebody in, with a new session."""
        name, password = visit.value("name")[:64], visit.form.get("password", [""])[0].strip()
        address = network_of(visit.request.client.host if visit.request.client is not None else "")
        wait_s = self._by_address.wait_s(address)
        if wait_s > 0:
            response = self._again(visit, 429, f"Too many failed attempts: try again in {wait_s:.0f} seconds.")
            response.headers["Retry-After"] = f"{wait_s + 0.5:.0f}"
            return response
        # Counted before it is known, so that many attempts at once count as many.
        self._by_address.failed(address)
        token = self._accounts.sign_in(name, password)
        if token is None:
            log.warning("a sign-in to the console failed")
            return self._again(visit, 403, "That name and password do not go together.")
        self._by_address.took_back(address)
        old = self.get(visit.request, _SESSION)
        if old:
            self._accounts.sign_out(old[:128])
        visit.cookies = {_SESSION: token, _FORMS: None}
        return self._onward(visit, visit.value("next"))

    def sign_out(self, visit: Visit) -> Response:
        """End the session."""
        token = self.get(visit.request, _SESSION)
        if token:
            self._accounts.sign_out(token[:128])
        visit.cookies = {_SESSION: None}
        return visit.go("sign_in", {"done": "signed-out"})

    def _again(self, visit: Visit, status: int, problem: str) -> Response:
        return visit.page(
            "sign_in.html",
            status=status,
            next=_next(visit.value("next")),
            led=False,
            problem=problem,
            name=visit.value("name")[:64],
        )

    def _onward(self, visit: Visit, wanted: str) -> Response:
        return RedirectResponse(visit.root + _next(wanted), 303) if _next(wanted) else visit.go("home")


def _next(wanted: str) -> str:
    """A page of this application, or nothing: never an address elsewhere."""
    return wanted if _NEXT.fullmatch(wanted) and not wanted.startswith("//") else ""
