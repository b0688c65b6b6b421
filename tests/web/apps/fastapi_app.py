"""A small picture host in FastAPI: with routes that read forms checked, and with FastAPI's own."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, Request, UploadFile

from tests.web.apps.hold import hold
from tests.web.apps.probe import Probe, alive
from uploadguard import Guard
from uploadguard.web.fastapi import CheckedRoute, CheckedUpload, upload_check

probe = Probe()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The Guard lives as long as the application."""
    with Guard.open() as guard:
        async with probe.running():
            yield {"guard": guard}


def guard_of(request: Request) -> Guard:
    """Where the lifespan put it."""
    guard: Guard = request.state.guard
    return guard


Files = Annotated[
    list[CheckedUpload], Depends(upload_check(guard_of, "file", multiple=True, required=False, hold=hold))
]
Passed = Annotated[CheckedUpload, Depends(upload_check(guard_of, "file", queue="pass"))]
Optional = Annotated[CheckedUpload | None, Depends(upload_check(guard_of, "file", required=False))]
Picture = Annotated[CheckedUpload, Depends(upload_check(guard_of, "file", description="The picture."))]


async def told(files: list[CheckedUpload], text: str | None) -> dict[str, Any]:
    """Each file's field, name, size, first bytes and verdict."""
    found = []
    for upload in files:
        start = await upload.file.read(8)
        found.append(["file", upload.filename, upload.file.size, start.hex(), upload.decision.verdict.label])
    return {"files": found, "text": text, "pid": os.getpid()}


async def several(files: Files, text: Annotated[str | None, Form()] = None) -> dict[str, Any]:
    """Any number of files, and a text."""
    return await told(files, text)


async def one(file: Picture) -> dict[str, Any]:
    """Exactly one."""
    return await told([file], None)


async def passed(file: Passed) -> dict[str, Any]:
    """One that may be queued."""
    return await told([file], None)


async def optional(file: Optional) -> dict[str, Any]:
    """One or none."""
    return await told([file] if file is not None else [], None)


async def later(file: Passed, tasks: BackgroundTasks) -> dict[str, Any]:
    """One that is stored when the answer is sent."""

    def store() -> None:
        Path(os.environ["HELD"], "later").write_bytes(file.file.file.read())

    tasks.add_task(store)
    return {"verdict": file.decision.verdict.label}


app = FastAPI(lifespan=lifespan)
checked = APIRouter(route_class=CheckedRoute)
plain = APIRouter(prefix="/plain")
for router in (checked, plain):
    for endpoint, path in ((several, "/upload"), (one, "/one"), (passed, "/passed"), (optional, "/optional")):
        router.post(path)(endpoint)
    router.post("/later")(later)
    app.include_router(router)


@app.post("/bare")
async def bare(file: UploadFile) -> dict[str, Any]:
    """A form that is read and not checked, to compare with."""
    return {"size": file.size}


@app.get("/alive")
async def is_alive(request: Request) -> dict[str, Any]:
    """That it runs."""
    return alive(guard_of(request))


@app.get("/probe")
async def late() -> dict[str, Any]:
    """How late the event loop is."""
    return probe.report()
