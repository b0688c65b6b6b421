"""A small host for each server that the sandbox is tested under. Opens one Guard, as the documentation says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from uploadguard import Guard

guard = Guard.open(hashset=os.environ["HASHSET"])
"""Opened on import: before a preforking server forks, if it imports the application first."""


def _answer(decision: Any) -> bytes:
    failures = [failure.code.value for failure in decision.failures]
    return json.dumps({"verdict": decision.verdict.label, "failures": failures, "pid": os.getpid()}).encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """For gunicorn."""
    data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = _answer(guard.check(data))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """For uvicorn."""
    if scope["type"] != "http":
        return
    data, more = b"", True
    while more:
        message = await receive()
        data, more = data + message.get("body", b""), message.get("more_body", False)
    body = _answer(await guard.acheck(data))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """For a function that is called again and again in one process, and frozen in between."""
    with Path(event["path"]).open("rb") as file:
        return dict(json.loads(_answer(guard.check(file))))


if __name__ == "__main__":
    print(asyncio.run(guard.acheck(b"")).verdict.label)
