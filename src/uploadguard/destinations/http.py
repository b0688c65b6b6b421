"""The one way in which actions and matchers speak HTTP: bounded in time and size, no redirects, failures classified.

Errors name a status and what it means, never an address, a header or a body: those may hold secrets and hashes.
"""

from __future__ import annotations

import ipaddress
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from uploadguard.destinations.deadline import Deadline, deadline
from uploadguard.errors import ActionError, ConfigError, PostponedError, RefusedError
from uploadguard.forks import renew_after_fork

if TYPE_CHECKING:
    import httpx

    from uploadguard.destinations.kept import KeptConnections

__all__ = ["Answer", "HttpClient", "check_base_url", "check_url", "error_of", "retry_after_s"]

_POSTPONED = frozenset({401, 403, 407, 408, 409, 421, 425, 429})
_OUTAGES = frozenset({401, 403, 407, 429, 502, 503, 504})
_LONGEST_WAIT_S = 86_400.0
_MAX_WAIT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``body`` is as sent; ``complete`` is False where it was cut short, by the sender or our bound."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool

    def __repr__(self) -> str:
        return f"Answer({self.status}, <{len(self.body)} bytes>)"

    def whole_body(self) -> bytes:
        """The body. Raises :class:`~uploadguard.errors.PostponedError` where it is not complete."""
        if not self.complete:
            raise PostponedError("its answer broke off, or was too long")
        return self.body


class HttpClient:
    """Sends requests. Thread-safe, and fit to be used on both sides of a fork: a child makes its own connections.

    ``total_s`` bounds the whole conversation, whatever the other side does. Of an answer's body, ``max_answer_bytes``
    are read. The proxy settings in the environment are honoured. ``basic`` is a user name and a password. Raises
    :class:`~uploadguard.errors.ConfigError` if httpx is not installed.

    Each request has a connection of its own, unless ``keep`` says how many to keep for others: only for requests that
    may arrive twice, and not through a proxy.
    """

    def __init__(
        self,
        *,
        connect_s: float = 10.0,
        total_s: float = 60.0,
        max_answer_bytes: int = 1 << 20,
        verify: ssl.SSLContext | None = None,
        keep: int = 0,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError("to speak HTTP needs the httpx package: pip install 'uploadguard[reports]'") from error
        self._httpx = httpx
        self._connect_s = connect_s
        self._total_s = total_s
        self._max_answer_bytes = max_answer_bytes
        self._verify = verify if verify is not None else _default_tls()
        self._keep = keep
        self._making = threading.Lock()
        self._clients: _Clients | None = None
        renew_after_fork(self)

    def close(self) -> None:
        """Free what it holds. It can be used again."""
        with self._making:
            clients, self._clients = self._clients, None
        if clients is not None:
            clients.single.close()
            if clients.keeping is not None:
                clients.keeping.close()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections to the parent."""
        clients, self._clients = self._clients, None
        self._making = threading.Lock()
        if clients is not None and clients.kept is not None:
            clients.kept.abandon()

    def send(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, Any] | None = None,
        total_s: float | None = None,
    ) -> Answer:
        """Send one request; the answer, whatever its status. ``data`` and ``files`` are as httpx takes them.

        ``total_s`` is this request's own bound. Raises :class:`~uploadguard.errors.PostponedError` where there was no
        answer. An answer whose status arrived counts as one, even if its body broke off.
        """
        clients = self._made()
        body: dict[str, Any] = {"content": content, "data": data, "files": files}
        bound_s = self._total_s if total_s is None else total_s
        if clients.keeping is None or _is_proxied(url):
            with deadline(bound_s) as limit:
                traced = {"trace": _Tracer(limit)}
                request = clients.single.build_request(method, url, headers=headers, extensions=traced, **body)
                return self._exchange(clients.single, request, basic, limit, bound_s)
        now = time.monotonic()
        bounds = {"until": now + bound_s, "connect_until": now + self._connect_s}
        request = clients.keeping.build_request(method, url, headers=headers, extensions=bounds, **body)
        return self._exchange(clients.keeping, request, basic, Deadline(), bound_s)

    def _exchange(
        self,
        client: httpx.Client,
        request: httpx.Request,
        basic: tuple[str, str] | None,
        limit: Deadline,
        bound_s: float,
    ) -> Answer:
        try:
            response = client.send(request, auth=basic, stream=True)
        except (self._httpx.TransportError, OSError, ValueError) as error:
            raise self._no_answer(error, limit, bound_s) from None
        try:
            found, complete = self._read(response)
        finally:
            response.close()
        return Answer(response.status_code, response.headers, found, complete)

    def _made(self) -> _Clients:
        """The clients, made when first used, and again in a child."""
        clients = self._clients
        if clients is None:
            with self._making:
                clients = self._clients = self._clients or self._make()
        return clients

    def _make(self) -> _Clients:
        httpx = self._httpx
        options: dict[str, Any] = {
            "follow_redirects": False,
            # What is packed could unpack to any size.
            "headers": {"User-Agent": "uploadguard", "Accept-Encoding": "identity"},
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        }
        single = httpx.Client(
            verify=self._verify,
            timeout=httpx.Timeout(self._total_s, connect=min(self._connect_s, self._total_s)),
            limits=httpx.Limits(max_keepalive_connections=0),
            **options,
        )
        if not self._keep:
            return _Clients(single)
        from uploadguard.destinations.kept import KeptConnections

        kept = KeptConnections(self._verify, most=self._keep)
        return _Clients(single, httpx.Client(transport=kept, **options), kept)

    def _read(self, response: httpx.Response) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        left = self._max_answer_bytes
        try:
            for part in response.iter_raw():
                parts.append(part[:left])
                left -= len(part)
                if left < 0:
                    return b"".join(parts), False
        except (self._httpx.TransportError, OSError):
            return b"".join(parts), False
        return b"".join(parts), True

    def _no_answer(self, error: Exception, limit: Deadline, bound_s: float) -> PostponedError:
        httpx = self._httpx
        if limit.passed:
            return PostponedError(f"it took longer than {bound_s:g} s")
        if isinstance(error, httpx.ConnectError) and isinstance(_root(error), ssl.SSLError):
            return PostponedError("no trustworthy connection could be made (TLS)", outage=True)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            return PostponedError("no connection could be made", outage=True)
        if isinstance(error, httpx.TimeoutException):
            return PostponedError(f"it took longer than {bound_s:g} s")
        if isinstance(error, httpx.RemoteProtocolError):
            return PostponedError("it closed the connection without an answer, or its answer was not HTTP")
        return PostponedError(f"the connection broke ({type(error).__name__})")


@dataclass(frozen=True, slots=True)
class _Clients:
    """httpx's clients of one process: with a connection for each request, and, if asked for, with kept ones."""

    single: httpx.Client
    keeping: httpx.Client | None = None
    kept: KeptConnections | None = None


class _Tracer:
    """Learns from httpx's trace events which socket a request is on, so that it can be shut down."""

    def __init__(self, limit: Deadline) -> None:
        self._limit = limit

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info.get("return_value")
            connection = stream.get_extra_info("socket") if stream is not None else None
            if isinstance(connection, socket.socket):
                self._limit.connection = lambda: connection
                if self._limit.passed:
                    self._limit.expire()


def _default_tls() -> ssl.SSLContext:
    """The machine's own certificates. Reading them takes tens of milliseconds, so all clients share them."""
    return _tls_of(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _tls_of(*_: str | None) -> ssl.SSLContext:
    return ssl.create_default_context()


def _is_proxied(url: str) -> bool:
    """Whether the environment has a proxy for it."""
    parts = urlsplit(url)
    proxies = getproxies()
    return (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.hostname or "")


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def error_of(answer: Answer) -> ActionError | None:
    """What an answer means that has no more to say than its status; None for a success.

    Redirects and most of 4xx are refusals; 408, 409, 421, 425, 429 and 5xx mean: later. So do 401, 403 and 407: no task
    is wrong, the credentials are, and when these are mended all goes on by itself.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    text = f"it answered {status}{_phrase(status)}"
    if status in _POSTPONED or status >= 500 or status < 200:
        return PostponedError(text, after_s=retry_after_s(answer.headers), outage=status in _OUTAGES)
    if 300 <= status < 400:
        text += ", and redirects are not followed: set the address that it redirects to"
    return RefusedError(text)


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """``Retry-After`` in seconds from now, a day at most; None where there is none, or none that makes sense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:_MAX_WAIT_DIGITS]), _LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(text)
        wait_s = (until.replace(tzinfo=until.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), _LONGEST_WAIT_S) if math.isfinite(wait_s) else None


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def check_url(url: str, *, plain_http: bool = False) -> str:
    """The URL, if reports may go there. Raises ``ValueError``, without it.

    It must be https, unless it leads to this machine or ``plain_http`` says otherwise, and hold no credentials.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an absolute URL that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials")
    if parts.fragment:
        raise ValueError("must not have a fragment")
    if parts.scheme == "http" and not plain_http and not _is_loopback(host):
        raise ValueError("must begin with https://, since what is sent is confidential; see plain_http")
    return url


def check_base_url(url: str) -> str:
    """The URL that paths are added to, without a slash at its end. Raises ``ValueError``, without it."""
    try:
        parts = urlsplit(check_url(url))
    except ValueError as error:
        raise ValueError(str(error).removesuffix("; see plain_http")) from None
    if parts.query:
        raise ValueError("must not have a query")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
