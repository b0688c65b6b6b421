"""A small picture host in aiohttp. ``python -m tests.web.apps.aiohttp_app PORT`` serves it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.web.apps.hold import hold
from tests.web.apps.probe import Probe, alive
from uploadguard import Guard
from uploadguard.web.aiohttp import CheckedUpload, check_form, check_part

GUARD = web.AppKey("guard", Guard)
probe = Probe()


async def guard_of(app: web.Application) -> AsyncIterator[None]:
    """The Guard lives as long as the application."""
    with Guard.open() as guard:
        app[GUARD] = guard
        async with probe.running():
            yield


async def told(upload: CheckedUpload) -> list[Any]:
    """A file's field, name, size, first bytes and verdict."""
    start = await asyncio.to_thread(upload.file.read, 8)
    return [upload.field, upload.filename, upload.size_bytes, start.hex(), upload.decision.verdict.label]


async def upload(request: web.Request) -> web.Response:
    """A whole form."""
    async with check_form(request, request.app[GUARD], hold=hold) as form:
        files, text = [await told(file) for file in form.files], dict(form.fields).get("text")
    return web.json_response({"files": files, "text": text, "pid": os.getpid()})


async def passed(request: web.Request) -> web.Response:
    """A whole form, of which uploads may be queued."""
    async with check_form(request, request.app[GUARD], queue="pass") as form:
        return web.json_response({"files": [await told(file) for file in form.files], "text": None, "pid": os.getpid()})


async def parts(request: web.Request) -> web.Response:
    """A form, part by part."""
    files: list[Any] = []
    text: str | None = None
    async for part in await request.multipart():
        if part is not None and part.name == "text":
            text = await part.text()
        elif part is not None:
            async with check_part(part, request.app[GUARD], request, hold=hold) as file:
                if file is not None:
                    files.append(await told(file))
    return web.json_response({"files": files, "text": text, "pid": os.getpid()})


async def raw(request: web.Request) -> web.Response:
    """A body that is the file itself."""
    async with check_form(request, request.app[GUARD], hold=hold) as form:
        (file,) = form.files
        start = (await asyncio.to_thread(file.file.read, 4)).hex()
        return web.json_response({"size": file.size_bytes, "verdict": file.decision.verdict.label, "start": start})


async def bare(request: web.Request) -> web.Response:
    """A form that is read and not checked, to compare with."""
    form = await request.post()
    return web.json_response({"files": len(form)})


async def is_alive(request: web.Request) -> web.Response:
    """That it runs."""
    return web.json_response(alive(request.app[GUARD]))


async def late(_request: web.Request) -> web.Response:
    """How late the event loop is."""
    return web.json_response(probe.report())


def make_app() -> web.Application:
    """The application."""
    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(guard_of)
    app.router.add_post("/upload", upload)
    app.router.add_post("/passed", passed)
    app.router.add_post("/parts", parts)
    app.router.add_route("*", "/raw", raw)
    app.router.add_post("/bare", bare)
    app.router.add_get("/alive", is_alive)
    app.router.add_get("/probe", late)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
