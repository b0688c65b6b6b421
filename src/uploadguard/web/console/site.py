"""What one request works with, and how it becomes a page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from uploadguard.ledger.people import Person, Role
from uploadguard.provenance import provenance
from uploadguard.web.console import words
from uploadguard.web.console.security import csrf_token

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from uploadguard.web.console.parts import Parts

__all__ = ["Handler", "PageError", "Site", "Visit"]

THEMES = ("auto", "light", "dark")
_MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class PageError(Exception):
    """A page that says what is wrong, in place of the one that was asked for."""

    def __init__(self, status: int, title: str, text: str) -> None:
        self.status, self.title, self.text = status, title, text
        super().__init__(title)


class Site:
    """The application's fixed things: parts, templates, static files, addresses."""

    def __init__(self, parts: Parts, *, local_accounts: bool) -> None:
        self.parts = parts
        self.local_accounts = local_accounts
        self.app: Starlette
        self.static = {
            item.name: (item.read_bytes(), _MEDIA_TYPES[item.name.rpartition(".")[2]])
            for item in resources.files(__package__).joinpath("static").iterdir()
            if item.name.rpartition(".")[2] in _MEDIA_TYPES
        }
        self._version = hashlib.sha256(b"".join(data for data, _ in self.static.values())).hexdigest()[:12]
        self.templates = Environment(
            loader=PackageLoader("uploadguard.web.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalize,
        )
        self.templates.globals.update(words=words, Role=Role, themes=THEMES, provenance=provenance)
        self.templates.filters.update(when=_when, ago=_ago, count=_count, size=_size, plain=_plain)

    @property
    def secure(self) -> bool:
        """Whether cookies are for HTTPS only."""
        return self.parts.settings.console.secure_cookies

    def url(self, root: str, name: str, params: Mapping[str, Any], query: Mapping[str, Any]) -> str:
        """The address of a route, under the path that the application is mounted at."""
        given = {key: value for key, value in query.items() if value not in (None, "", False)}
        path = root.rstrip("/") + str(self.app.url_path_for(name, **params))
        return f"{path}?{urlencode(given)}" if given else path

    def static_url(self, root: str, name: str) -> str:
        """The address of a static file; it changes with the files, so that browsers may keep them."""
        return self.url(root, "static", {"name": name}, {"v": self._version})


@dataclass(slots=True)
class Visit:
    """One request, by a known person or (on the pages for signing in) by nobody yet.

    ``secret`` is what tokens of forms are derived from; ``cookies`` are set with the answer.
    """

    site: Site
    request: Request
    person: Person | None
    secret: str
    form: Mapping[str, list[str]] = field(default_factory=dict)
    cookies: dict[str, str | None] = field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        """The library."""
        return self.site.parts

    @property
    def who(self) -> Person:
        """The person, who is known."""
        assert self.person is not None
        return self.person

    @property
    def root(self) -> str:
        """The path that the application is mounted at."""
        return str(self.request.scope.get("root_path", ""))

    @property
    def here(self) -> str:
        """This page, under the root: without what was just done and what was just granted."""
        known = {key: value for key, value in self.request.query_params.items() if key not in _PASSING}
        path = self.request.scope["path"].removeprefix(self.root)
        return f"{path}?{urlencode(known)}" if known else str(path)

    def url(self, name: str, /, query: Mapping[str, Any] | None = None, **params: Any) -> str:
        """The address of a route."""
        return self.site.url(self.root, name, params, query or {})

    def query(self, name: str) -> str:
        """One value of the address, without white space around it; empty if it is not there."""
        return _stripped(self.request.query_params.get(name, ""))

    def value(self, name: str) -> str:
        """One value of the form, as :meth:`query`."""
        return _stripped(self.form.get(name, [""])[0])

    def path_id(self, name: str = "id") -> int:
        """A record's number from the path, as large as any can be."""
        number = int(self.request.path_params[name])
        if number >= 2**63:
            raise PageError(404, "Not found", "There is no such page.")
        return number

    def page(self, template: str, /, *, status: int = 200, **values: Any) -> Response:
        """A page."""
        theme = self.request.cookies.get("uploadguard_theme", "auto")
        html = self.site.templates.get_template(template).render(
            visit=self,
            url=self.url,
            static=lambda name: self.site.static_url(self.root, name),
            person=self.person,
            may=self.person.may if self.person is not None else lambda _role: False,
            token=Markup('<input type="hidden" name="csrf" value="{}">').format(
                csrf_token(self.secret, self.person.name if self.person is not None else "")
            ),
            theme=theme if theme in THEMES else "auto",
            done=words.DONE.get(self.query("done")),
            local_accounts=self.site.local_accounts,
            now=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(html, status)

    def go(self, name: str, /, query: Mapping[str, Any] | None = None, *, to: str = "", **params: Any) -> Response:
        """Send the browser to a page, as the answer to a form. ``to`` is a place on it."""
        return RedirectResponse(self.url(name, query, **params) + (f"#{to}" if to else ""), 303)


_PASSING = ("done", "grant")

Handler = Callable[[Visit], Response]


def _stripped(text: str) -> str:
    """Without white space around it, and without NUL, which no database takes."""
    return text.replace("\0", "").strip()


def _finalize(value: object) -> object:
    """What templates show: text of uploaders and lists comes without characters that change how a line is read."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in value)
    return value


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _when(value: datetime | None, fallback: str = "never") -> Markup | str:
    """A time, in UTC."""
    if value is None:
        return fallback
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), f"{value:%Y-%m-%d %H:%M} UTC")


def _ago(value: datetime | None, fallback: str = "never") -> Markup | str:
    """How long ago, or how long until; the time itself when pointed at."""
    if value is None:
        return fallback
    seconds = (datetime.now(UTC) - value).total_seconds()
    text = "just now" if abs(seconds) < 60 else f"{_span(seconds)} ago" if seconds >= 0 else f"in {_span(-seconds)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        value.isoformat(), f"{value:%Y-%m-%d %H:%M:%S} UTC", text
    )


def _span(seconds: float) -> str:
    """A span of a minute or more."""
    for limit, unit, name in ((3600, 60, "min"), (2 * 86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


def _count(value: float) -> str:
    return f"{value:,}"


def _size(value: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _plain(value: object) -> str:
    """A JSON value in words."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "-"
    return str(value)
