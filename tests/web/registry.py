"""The small picture hosts, and the command that serves each under a real server. ``{port}`` is filled in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HOSTS", "Host", "aiohttp_server", "gunicorn", "uvicorn"]


@dataclass(frozen=True)
class Host:
    """How one is started: the interpreter's arguments.

    ``path`` takes forms with the field ``file``, ``bare`` takes them unchecked, ``alive`` answers 200 when it serves.
    """

    command: list[str]
    path: str = "/upload"
    bare: str | None = "/bare"
    alive: str = "/alive"


def uvicorn(app: str, *options: str) -> list[str]:
    """An ASGI application."""
    return [
        "-m",
        "uvicorn",
        "--host=127.0.0.1",
        "--port={port}",
        "--no-access-log",
        "--timeout-graceful-shutdown=2",
        *options,
        app,
    ]


def aiohttp_server(module: str) -> list[str]:
    """An application of aiohttp's, which serves itself."""
    return ["-m", module, "{port}"]


def gunicorn(app: str, *options: str) -> list[str]:
    """A WSGI application."""
    return ["-m", "gunicorn", "--no-control-socket", "--bind=127.0.0.1:{port}", "--graceful-timeout=2", *options, app]


HOSTS: dict[str, Host] = {
    "starlette": Host(uvicorn("tests.web.apps.starlette_app:app")),
    "fastapi": Host(uvicorn("tests.web.apps.fastapi_app:app")),
    "fastapi, its own reader": Host(uvicorn("tests.web.apps.fastapi_app:app"), "/plain/upload"),
    "aiohttp": Host(aiohttp_server("tests.web.apps.aiohttp_app")),
    "aiohttp, part by part": Host(aiohttp_server("tests.web.apps.aiohttp_app"), "/parts"),
    "flask": Host(gunicorn("tests.web.apps.flask_app:app", "--threads=32")),
    "django": Host(gunicorn("tests.web.apps.django_app:application", "--threads=32")),
    "service": Host(
        uvicorn("tests.service.app:app", "--http=uploadguard.web.service.protocol:BoundedH11Protocol"),
        "/v1/check?respond=answer",
        None,
    ),
}
