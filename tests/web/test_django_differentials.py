"""Requests that come to a Django view's files past the middleware's own taking in."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParser
from django.test import Client, override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.web.apps import django_app
from tests.web.test_django import FINE, LISTED, MIRRORED, MULTIPART
from tests.web.wsgi import BOUNDARY, form, write_config
from uploadguard.web.admission import Admission
from uploadguard.web.django import check_uploads, close_guard, get_guard

Stored = dict[str, list[bytes]]
held: list[bytes] = []
stored: list[bytes] = []


def hold(_decision: object, file: Any) -> None:
    held.append(file.read())


def override_method(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware by which forms have other methods, as several packages offer it."""

    def answer(request: HttpRequest) -> HttpResponse:
        if "_method" in request.POST:
            request.method = str(request.POST["_method"])
        return get_response(request)

    return answer


def store(files: Any) -> HttpResponse:
    stored.extend(file.read() for _, found in files.lists() for file in found)
    return HttpResponse(status=201)


def take(request: HttpRequest) -> HttpResponse:
    return store(request.FILES)


def parse(request: HttpRequest) -> HttpResponse:
    """As REST framework does, whatever the method."""
    parser = MultiPartParser(request.META, request, request.upload_handlers)
    request._files = parser.parse()[1]
    return store(request._files)


def feed(request: HttpRequest) -> HttpResponse:
    """As REST framework does with a body that is the file: the handlers are called one after the other."""
    handlers = request.upload_handlers
    body = request.read()
    for handler in handlers:
        handler.handle_raw_input(None, request.META, len(body), None, "utf-8")
    for handler in handlers:
        handler.new_file("file", "a.jpg", "image/jpeg", len(body))
    for handler in handlers:
        handler.receive_data_chunk(body, 0)
    for handler in handlers:
        file = handler.file_complete(len(body))
        if file is not None:
            stored.append(file.read())
            file.close()
            return HttpResponse(status=201)
    raise AssertionError("nobody made a file")


def keep(request: HttpRequest) -> HttpResponse:
    """As views that ask for GET alone do, which HEAD is not."""
    if request.method == "GET":
        return HttpResponse("a page")
    stored.append(request.read())
    return HttpResponse(status=201)


keep_checked = check_uploads(raw=True)(keep)
urlpatterns = [
    path("raw", csrf_exempt(keep_checked)),
    path("take", csrf_exempt(take)),
    path("parse", csrf_exempt(parse)),
    path("feed", csrf_exempt(feed)),
    path("decorated", csrf_exempt(check_uploads(parse))),
    path("protected", take),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module", autouse=True)
def host(config: Path) -> Iterator[None]:
    middleware = [f"{__name__}.override_method", *django_app.MIDDLEWARE]
    with override_settings(UPLOADGUARD={"CONFIG": config, "HOLD": hold}, ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        yield
    close_guard()


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    held.clear()
    stored.clear()


def send(method: str, address: str, *parts: Any) -> int:
    return int(Client().generic(method, address, form(*parts), MULTIPART).status_code)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_form_of_another_method_than_it_came_with_is_checked(method: str) -> None:
    assert send("POST", "/take", ("_method", None, method.encode()), ("f", "a.jpg", LISTED)) == 422
    assert send("POST", "/take", ("_method", None, method.encode()), ("f", "a.jpg", FINE)) == 201
    assert stored == [FINE]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("address", ["/parse", "/decorated"])
def test_a_form_that_the_view_parses_itself_brings_nothing_listed(method: str, address: str) -> None:
    assert send(method, address, ("f", "a.jpg", FINE), ("f", "b.jpg", FINE)) == 201
    assert stored == [FINE, FINE]
    stored.clear()
    assert send(method, address, ("f", "b.jpg", LISTED), ("f", "a.jpg", FINE)) == 422
    assert send(method, address, ("f", "a.jpg", MIRRORED)) == 202
    assert (stored, held) == ([], [MIRRORED])


def test_a_body_that_the_view_hands_to_the_handlers_is_no_way_either() -> None:
    assert Client().put("/feed", FINE, content_type="image/jpeg").status_code == 201
    assert Client().put("/feed", LISTED, content_type="image/jpeg").status_code == 422
    assert stored == [FINE]


def test_forms_that_break_off_before_the_view_leave_no_place_taken() -> None:
    head = 'Content-Disposition: form-data; name="f"; filename="a"\r\nContent-Transfer-Encoding: base64'
    body = f"--{BOUNDARY}\r\n{head}\r\n\r\n!!!!!\r\n--{BOUNDARY}--\r\n"
    admission = Admission.of(get_guard())
    gc.collect()
    gc.disable()
    try:
        assert Client(enforce_csrf_checks=True).post("/protected", body, content_type=MULTIPART).status_code == 400
        assert Client().put("/parse", body, content_type=MULTIPART).status_code == 400
        assert admission.under_way == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
def test_a_raw_body_is_checked_whatever_the_method(method: str) -> None:
    assert Client().generic(method, "/raw", LISTED, "image/jpeg").status_code == 422
    assert not stored
    assert Client().get("/raw").content == b"a page"


@pytest.mark.parametrize(("body", "status"), [(LISTED, 422), (b"", 201)])
def test_a_raw_body_that_http2_does_not_announce_is_checked(body: bytes, status: int) -> None:
    scope = {"type": "http", "http_version": "2", "method": "HEAD", "path": "/raw", "query_string": b"", "headers": []}
    request = ASGIRequest(scope, io.BytesIO(body))
    assert keep_checked(request).status_code == status
    assert not any(stored)
