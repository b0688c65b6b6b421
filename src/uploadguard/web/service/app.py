"""The application: what each request may do, and who answers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Request

from uploadguard.config import Settings
from uploadguard.errors import ConfigError, UploadguardError
from uploadguard.guard import Guard
from uploadguard.logs import log
from uploadguard.web.arriving import Refused
from uploadguard.web.service.closing import Answering
from uploadguard.web.service.endpoints import Call, Endpoints, Reply
from uploadguard.web.service.faults import Fault, fault_of
from uploadguard.web.service.metrics import ServiceMetrics
from uploadguard.web.service.reading import ClientGoneError
from uploadguard.web.service.tokens import Scope, Tokens

__all__ = ["Service", "create_service"]

Endpoint: TypeAlias = Callable[[Call], Awaitable[Reply]]

_DECISIONS = "/v1/decisions/"


class _Route(NamedTuple):
    """``scope`` None: no token is needed. ``path`` is what metrics call it."""

    path: str
    endpoint: Endpoint
    method: str
    scope: Scope | None


def create_service(
    guard_or_settings: Guard | Settings, *, tokens: Tokens | None = None, close_guard: bool = False
) -> Service:
    """The service as an ASGI application.

    From settings it opens a Guard when the server starts it (ASGI's lifespan), and closes it in the end. A Guard that
    is handed over stays the host's, unless ``close_guard``. ``tokens`` are those of the settings by default; where
    these name none, anybody who can connect may use it.

    Raises :class:`~uploadguard.errors.ConfigError`.
    """
    return Service(guard_or_settings, tokens=tokens, close_guard=close_guard)


class Service:
    """The service, as ASGI servers call it."""

    def __init__(self, source: Guard | Settings, *, tokens: Tokens | None = None, close_guard: bool = False) -> None:
        self.settings = source if isinstance(source, Settings) else source.settings
        self._guard = None if isinstance(source, Settings) else source
        self._closes = close_guard or self._guard is None
        self._tokens = Tokens.of(self.settings.serve) if tokens is None else tokens
        self._metrics = ServiceMetrics() if self.settings.telemetry.metrics else None
        self._endpoints: Endpoints | None = None
        self._routes: dict[str, _Route] = {}
        self._app: ASGIApp = Answering(self._respond)
        if self._guard is not None:
            self._begin(self._guard)

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            if self._guard is None:
                self._guard = await asyncio.to_thread(Guard, self.settings)
                self._begin(self._guard)
            await asyncio.to_thread(_warm, self._guard)
        except UploadguardError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._endpoints is not None:
            await asyncio.to_thread(self._endpoints.close)
        if self._closes:
            await asyncio.to_thread(self._guard.close)
        await send({"type": "lifespan.shutdown.complete"})

    def _begin(self, guard: Guard) -> None:
        made = self._endpoints = Endpoints(guard, self._metrics)
        routes = [
            _Route("/v1/check", made.check, "POST", Scope.ALL),
            _Route("/v1/check-hash", made.check_hash, "POST", Scope.ALL),
            _Route(_DECISIONS, made.decision, "GET", Scope.ALL),
            _Route("/v1/hooks/tusd", made.tusd, "POST", Scope.ALL),
            _Route("/metrics", made.metrics, "GET", Scope.METRICS),
            _Route("/livez", made.livez, "GET", None),
            _Route("/readyz", made.readyz, "GET", None),
            _Route("/openapi.json", made.openapi, "GET", None),
        ]
        self._routes = {route.path: route for route in routes}

    async def _respond(self, scope: Request, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = Headers(scope=scope)
        route = self._route(scope["path"])
        name = route.path if route is not None else "other"
        try:
            reply = await self._reply(route, scope, headers, receive)
        except ClientGoneError:
            if self._metrics is not None:
                self._metrics.gone(name)
            return
        if self._metrics is not None:
            self._metrics.count(name, reply.status, time.perf_counter() - started)
        await _send(reply, send)

    async def _reply(self, route: _Route | None, scope: Request, headers: Headers, receive: Receive) -> Reply:
        relayed = False
        try:
            if route is None:
                raise Fault(404, "not_found", "There is nothing here: /openapi.json says what there is.")
            await self._admit(route, scope, headers)
            query = parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
            relayed = dict(query).get("respond") in ("answer", "gate")
            return await route.endpoint(Call(scope["path"].removeprefix(_DECISIONS), query, headers, receive))
        except Refused as refused:
            fault = fault_of(refused.answer)
        except Fault as error:
            fault = error
        except ConfigError as error:
            log.error("a request could not be answered: %s", error)
            fault = Fault(500, "misconfigured", "The service's settings do not allow this. Its log says more.")
        if relayed and fault.answer is not None:
            answer = fault.answer
            return Reply(answer.status, answer.body, answer.media_type, dict(answer.headers))
        return Reply(fault.status, fault.body, headers=fault.headers)

    def _route(self, path: str) -> _Route | None:
        return self._routes.get(_DECISIONS if path.startswith(_DECISIONS) else path)

    async def _admit(self, route: _Route, scope: Request, headers: Headers) -> None:
        if route.scope is not None:
            granted = await self._tokens.scope_of(headers.get("authorization"))
            if granted is None:
                raise Fault(401, "unauthorized", "A valid token is needed.", headers={"WWW-Authenticate": "Bearer"})
            if granted is not Scope.ALL and granted is not route.scope:
                raise Fault(403, "forbidden", "This token is for metrics only.")
        if scope["method"] != route.method and not (scope["method"] == "HEAD" and route.method == "GET"):
            raise Fault(405, "method_not_allowed", f"This takes {route.method}.", headers={"Allow": route.method})


def _warm(guard: Guard) -> bool:
    """What would take the first upload's time."""
    guard.prewarm()
    return guard.ready


async def _send(reply: Reply, send: Send) -> None:
    headers = {"Content-Type": reply.media_type, "Content-Length": str(len(reply.body)), **reply.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body})
