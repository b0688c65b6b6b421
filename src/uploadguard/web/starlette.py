"""Starlette, and other ASGI frameworks: a middleware that checks uploads before the application sees them, and the
same for a single endpoint. (extra: starlette)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from uploadguard.errors import ConfigError
from uploadguard.models import Context, Decision
from uploadguard.web.answers import Answer, Shape
from uploadguard.web.arriving import CheckedFile, Hold, Queue, Refused
from uploadguard.web.checking import GuardSource, RequestCheck, RequestContext
from uploadguard.web.intake import SAFE_METHODS
from uploadguard.web.multipart import ReceivedForm, is_form
from uploadguard.web.replay import Replay

try:
    from starlette.datastructures import Headers
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import compile_path
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise ConfigError("Starlette is not installed: install uploadguard[starlette]") from error

__all__ = ["CheckedUpload", "UploadguardMiddleware"]


@dataclass(frozen=True, slots=True)
class CheckedUpload:
    """One upload of a request, in ``request.state.uploadguard``; the application reads the file from the request.

    ``field`` is the form field's name, empty where the body is the file. ``filename`` is what the client says.
    """

    decision: Decision
    field: str
    filename: str | None
    size_bytes: int


class UploadguardMiddleware:
    """Reads the bodies of uploads once, checks every file, and then hands them to the application, or answers itself.

    What the application gets is written anew from what was checked, so that the two cannot read it differently. The
    decisions are in ``request.state.uploadguard``, a tuple of :class:`CheckedUpload` in the order of the form.

    ``guard`` is a Guard, or a function that gets the request and gives one. ``paths`` are in Starlette's notation
    (``/users/{user_id}/picture``), in any spelling that a framework could take for them (case, slashes, dots);
    ``methods`` are those of HTTP; None is all. Forms are checked, and with ``raw`` bodies
    of any other type too, each as one file. ``hold`` gets the decision and the file of each queued upload before it is
    answered; with ``queue="pass"`` the application gets it instead, and must look at the decision. ``context`` gets the
    request and the file's name; ``shape`` makes the answers the host's own. ``body_timeout_s`` is for a whole body.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: GuardSource[Request],
        *,
        paths: Iterable[str] | None = None,
        methods: Collection[str] | None = None,
        raw: bool = False,
        hold: Hold | None = None,
        queue: Queue = "answer",
        context: RequestContext[Request] | None = None,
        shape: Shape | None = None,
        body_timeout_s: float | None = 600.0,
    ) -> None:
        if isinstance(paths, str):
            raise TypeError("paths must be a list of paths, not one string")
        self.app = app
        self._check = RequestCheck(
            guard,
            peer_context,
            context=context,
            hold=hold,
            queue=queue,
            shape=shape,
            body_timeout_s=body_timeout_s,
        )
        self._paths = None if paths is None else [_pattern(path) for path in paths]
        self._methods = None if methods is None else frozenset(method.upper() for method in methods)
        self._raw = raw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not self._is_meant(scope):
            await self.app(scope, receive, send)
            return
        if not self._brings_uploads(scope):
            await self.app(scope, _nothing_before(receive) if self._raw else receive, send)
            return
        request = Request(scope, receive)
        try:
            received = await receive_request(self._check, request)
        except Refused as refused:
            await response_of(refused.answer)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        try:
            replay = Replay(received, scope["headers"])
            scope["headers"] = replay.headers
            scope.setdefault("state", {})["uploadguard"] = tuple(map(_without_file, received.files))
            await self.app(scope, replay.receive_before(receive), send)
        finally:
            received.close()

    def _is_meant(self, scope: Scope) -> bool:
        # Some applications take a method in small letters, too.
        return (self._methods is None or scope["method"].upper() in self._methods) and self._is_path(scope)

    def _brings_uploads(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if any(map(is_form, headers.getlist("content-type"))):
            return True
        return self._raw and _has_body(scope, headers)

    def _is_path(self, scope: Scope) -> bool:
        if self._paths is None:
            return True
        inside = scope["path"].removeprefix(scope.get("root_path", ""))
        spellings = {*_spellings(scope["path"]), *_spellings(inside)}
        return any(pattern.match(path) for pattern in self._paths for path in spellings)


def _has_body(scope: Scope, headers: Headers) -> bool:
    if "transfer-encoding" in headers:  # before any length
        return True
    length = headers.get("content-length")
    if length is None:
        return not scope["http_version"].startswith("1") and scope["method"].upper() not in SAFE_METHODS
    return length != "0"


def _nothing_before(receive: Receive) -> Receive:
    """The application's ``receive`` where no body is announced: with HTTP/2 one may come nevertheless."""
    ended = False

    async def receive_nothing() -> Message:
        nonlocal ended
        if not ended:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_nothing


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(compile_path(path)[0].pattern, re.IGNORECASE)


def _spellings(path: str) -> Iterator[str]:
    """A path, and what frameworks that are less strict than Starlette read it as."""
    plain = "/" + posixpath.normpath(path or "/").strip("/")
    yield from (path, plain, plain.rstrip("/") + "/")


def _without_file(file: CheckedFile) -> CheckedUpload:
    return CheckedUpload(file.decision, file.field, file.filename, file.size_bytes)


def peer_context(request: Request, filename: str | None) -> Context:
    """The context where the host gives none: the file's name and the peer's address."""
    client = request.client
    return Context(filename=filename, ip=client.host if client else None, port=client.port if client else None)


def response_of(answer: Answer) -> Response:
    """The answer as Starlette sends it."""
    return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)


async def receive_request(check: RequestCheck[Request], request: Request) -> ReceivedForm:
    """Read and check a request's body. Raises ``Refused`` and ``ClientDisconnect``; the caller closes what it gets."""
    headers = request.headers
    if len(headers.getlist("content-type")) > 1:
        raise Refused(check.answers(check.guard_of(request)).broken())
    async with aclosing(request.stream()) as chunks:
        return await check.receive(
            request,
            chunks,
            headers.get("content-type"),
            headers.get("content-length"),
            ", ".join(headers.getlist("content-encoding")),
        )
