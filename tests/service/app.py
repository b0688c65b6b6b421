"""The service with a probe beside it, for ``python -m tests.web.load --framework service``. No token is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.web.apps.probe import Probe, alive
from uploadguard import Guard
from uploadguard.web.service import Service, create_service

probe = Probe()


class Late:
    """The service of the Guard that the lifespan opens."""

    service: Service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on; what is mounted sees the whole path, as the service alone would."""
        await self.service(scope, receive, send)


late = Late()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The Guard lives as long as the application."""
    with Guard.open() as guard:
        late.service = create_service(guard)
        async with probe.running():
            yield {"guard": guard}


async def is_alive(request: Request) -> JSONResponse:
    """That it runs."""
    return JSONResponse(alive(request.state.guard))


async def lateness(_request: Request) -> JSONResponse:
    """How late the event loop is."""
    return JSONResponse(probe.report())


app = Starlette(
    routes=[Route("/alive", is_alive), Route("/probe", lateness), Mount("/", app=late)],
    lifespan=lifespan,
)
