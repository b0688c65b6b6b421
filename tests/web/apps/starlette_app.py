"""A small picture host in Starlette, under the middleware."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.web.apps.hold import hold
from tests.web.apps.probe import Probe, alive
from uploadguard import Guard
from uploadguard.web.starlette import UploadguardMiddleware

probe = Probe()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The Guard lives as long as the application."""
    with Guard.open() as guard:
        async with probe.running():
            yield {"guard": guard}


async def upload(request: Request) -> JSONResponse:
    """A form: each file's field, name, size, first bytes and verdict."""
    checked = iter(request.state.uploadguard)
    files = []
    async with request.form() as form:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile) and (value.filename or value.size):
                found = next(checked)
                assert (found.field, found.filename, found.size_bytes) == (field, value.filename, value.size)
                start = await value.read(8)
                files.append([field, value.filename, value.size, start.hex(), found.decision.verdict.label])
        return JSONResponse({"files": files, "text": form.get("text"), "pid": os.getpid()})


async def raw(request: Request) -> JSONResponse:
    """A body that is the file itself."""
    body = await request.body()
    verdict = request.state.uploadguard[0].decision.verdict
    return JSONResponse({"size": len(body), "verdict": verdict.label, "start": body[:4].hex()})


async def bare(request: Request) -> JSONResponse:
    """A form that is read and not checked, to compare with."""
    async with request.form() as form:
        return JSONResponse({"sizes": [file.size for file in form.values() if isinstance(file, UploadFile)]})


async def is_alive(request: Request) -> JSONResponse:
    """That it runs."""
    return JSONResponse(alive(request.state.guard))


async def late(_request: Request) -> JSONResponse:
    """How late the event loop is."""
    return JSONResponse(probe.report())


def guard_of(request: Request) -> Guard:
    """Where the lifespan put it."""
    guard: Guard = request.state.guard
    return guard


app = Starlette(
    routes=[
        Route("/upload", upload, methods=["POST"]),
        Route("/passed", upload, methods=["POST"]),
        Route("/raw", raw, methods=["POST", "PUT"]),
        Route("/bare", bare, methods=["POST"]),
        Route("/alive", is_alive),
        Route("/probe", late),
    ],
    middleware=[
        Middleware(UploadguardMiddleware, guard_of, paths=["/upload", "/raw"], raw=True, hold=hold),
        Middleware(UploadguardMiddleware, guard_of, paths=["/passed"], queue="pass"),
    ],
    lifespan=lifespan,
)
