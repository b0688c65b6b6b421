"""A small picture host in Django, for the servers that it is tested under. A program too: Django's own commands."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.web.apps.hold import hold
from tests.web.apps.probe import alive

HANDLERS = [
    "uploadguard.web.django.UploadguardUploadHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "uploadguard.web.django.UploadguardMiddleware",
]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="not one",
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        INSTALLED_APPS=["uploadguard.web.django"],
        MIDDLEWARE=MIDDLEWARE,
        FILE_UPLOAD_HANDLERS=HANDLERS,
        FILE_UPLOAD_MAX_MEMORY_SIZE=50_000,
        UPLOADGUARD={"CONFIG": os.environ.get("UPLOADGUARD_CONFIG"), "HOLD": hold},
        WSGI_APPLICATION=f"{__name__}.application",
        LOGGING_CONFIG=None,
    )
    django.setup()

from uploadguard.web.django import check_uploads, get_guard, uploads_exempt  # noqa: E402 - as in a host, after its settings


def told(request: HttpRequest) -> JsonResponse:
    """What arrived at the view: each file's field, size and first bytes, and its verdict."""
    files = [
        [field, file.name, file.size, file.read()[:8].hex(), getattr(file, "uploadguard").verdict.label]  # noqa: B009
        for field, found in request.FILES.lists()
        for file in found
    ]
    return JsonResponse({"files": files, "text": request.POST.get("text"), "pid": os.getpid()})


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """Under the middleware."""
    return told(request)


def form(request: HttpRequest) -> JsonResponse:
    """Under the middleware, and guarded against forged requests."""
    return told(request)


@csrf_exempt
@uploads_exempt
@check_uploads(raw=True)
def raw(request: Any) -> JsonResponse:
    """A body that is the file itself."""
    body = request.uploadguard.body
    return JsonResponse({"size": body.size, "verdict": body.uploadguard.verdict.label, "start": body.read(4).hex()})


@csrf_exempt
@uploads_exempt
@check_uploads
async def slow(request: HttpRequest) -> JsonResponse:
    """Asynchronous."""
    await asyncio.sleep(0)
    return told(request)


@csrf_exempt
@uploads_exempt
def bare(request: HttpRequest) -> JsonResponse:
    """Nothing is checked here, by the host's own wish."""
    return JsonResponse({"sizes": [file.size for file in request.FILES.values()]})


def is_alive(request: HttpRequest) -> JsonResponse:
    """That it runs."""
    return JsonResponse(alive(get_guard()))


urlpatterns = [
    path("upload", upload),
    path("form", form),
    path("raw", raw),
    path("async", slow),
    path("bare", bare),
    path("alive", is_alive),
]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
