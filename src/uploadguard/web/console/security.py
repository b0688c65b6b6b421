"""What every answer carries, and what every request that changes something must."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SecurityHeaders", "csrf_token", "headers", "is_csrf_token", "is_own_form"]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_OFF = ("camera", "display-capture", "fullscreen", "geolocation", "microphone", "payment", "usb")


def headers(*, over_https: bool) -> dict[str, str]:
    """The headers of every answer.

    Browsers say where a form came from by ``Sec-Fetch-Site``, but only over HTTPS and to localhost. Elsewhere there is
    ``Origin``, which they withhold where the page asks for no referrer at all; so there, and only there, the console's
    own pages get one.
    """
    return {
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "no-referrer" if over_https else "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": ", ".join(f"{name}=()" for name in _OFF),
    }


class SecurityHeaders:
    """ASGI middleware that puts :func:`headers` on every answer that does not set its own."""

    def __init__(self, app: ASGIApp, values: Mapping[str, str]) -> None:
        self._app = app
        self._values = dict(values)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in self._values.items():
                    found.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with)


def is_own_form(request: Request) -> bool:
    """Whether the browser says that a form of the console's own pages sent this.

    One that says nothing at all is refused: every browser of the last years says one or the other.
    """
    return _is_own(request.headers)


def _is_own(found: Headers) -> bool:
    site = found.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    host = found.get("host", "").lower()
    return found.get("origin", "").lower() in (f"https://{host}", f"http://{host}")


def csrf_token(secret: str, person: str) -> str:
    """The token for a person's forms. ``secret`` belongs to the session, or to a cookie where the host has sessions."""
    return hmac.new(secret.encode(), b"form:" + person.encode(), hashlib.sha256).hexdigest()


def is_csrf_token(given: str, secret: str, person: str) -> bool:
    """Whether that is the token, compared in constant time."""
    return hmac.compare_digest(given.encode(), csrf_token(secret, person).encode())
