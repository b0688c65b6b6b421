"""Requests that an application would read in another way than the check does: none of them brings a listed picture."""

from __future__ import annotations

import asyncio
import errno
import gzip
import tempfile
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import flask
import pytest
from django.utils.http import parse_header_parameters
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp
from werkzeug.formparser import parse_form_data
from werkzeug.test import EnvironBuilder

from tests.web.wsgi import BOUNDARY, FORM, form
from uploadguard import Guard
from uploadguard.testing.picture import picture_bytes, unrelated_picture
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answers
from uploadguard.web.arriving import Limits
from uploadguard.web.flask import Uploadguard
from uploadguard.web.multipart import FormParser, Part, ReceivedForm, is_form, receive_file
from uploadguard.web.replay import Replay
from uploadguard.web.starlette import UploadguardMiddleware

LISTED = picture_bytes()
Headers = list[tuple[str, str]]


class Stored:
    """An ASGI application that takes all that it gets, with whatever reads it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.headers = dict(request.headers)
        self.bodies.append(await request.body())
        await Response()(scope, receive, send)


def ask(app: ASGIApp, method: str, headers: Headers, body: bytes, **scope: Any) -> int:
    """The status of one request."""
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {
        "type": "http", "http_version": "1.1", "method": method, "path": "/", "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers], **scope,
    }  # fmt: skip
    asyncio.run(app(asked, receive, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


def length(body: bytes) -> tuple[str, str]:
    return "content-length", str(len(body))


RAW: dict[str, tuple[str, Headers]] = {
    "as a form of text": ("POST", [("content-type", "application/x-www-form-urlencoded"), length(LISTED)]),
    "chunked, with a length of 0": ("PUT", [("content-length", "0"), ("transfer-encoding", "chunked")]),
    "a method in small letters": ("put", [length(LISTED)]),
    "another method": ("QUERY", [length(LISTED)]),
    "a method that brings nothing": ("GET", [length(LISTED)]),
}


@pytest.mark.parametrize("case", RAW)
def test_a_raw_body_is_checked_however_it_is_sent(guard: Guard, case: str) -> None:
    stored = Stored()
    method, headers = RAW[case]
    assert ask(UploadguardMiddleware(stored, guard, raw=True), method, headers, LISTED) == 422
    assert not stored.bodies


def test_requests_that_bring_nothing_are_left_alone(guard: Guard) -> None:
    stored = Stored()
    app = UploadguardMiddleware(stored, guard, raw=True)
    assert ask(app, "GET", [], b"") == 200
    assert ask(app, "GET", [], b"", http_version="2") == 200
    assert ask(app, "POST", [("content-length", "0")], b"") == 200
    assert not guard.status().checks


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_body_that_http2_does_not_announce_reaches_nobody_unchecked(guard: Guard, method: str) -> None:
    stored = Stored()
    assert ask(UploadguardMiddleware(stored, guard, raw=True), method, [], LISTED, http_version="2") == 200
    assert stored.bodies == [b""]


@pytest.mark.parametrize("path", ["/upload/", "//upload", "/Upload", "/./upload", "/x/../upload//", "/api//upload"])
def test_a_path_is_checked_in_all_spellings_that_frameworks_take(guard: Guard, path: str) -> None:
    stored = Stored()
    app = UploadguardMiddleware(stored, guard, raw=True, paths=["/upload"])
    assert ask(app, "POST", [length(LISTED)], LISTED, path=path, root_path="/api") == 422
    assert not stored.bodies
    assert ask(app, "POST", [length(LISTED)], LISTED, path=path + "s") == 200


@pytest.mark.parametrize("method", ["post", "DELETE", "GET", "QUERY"])
def test_a_form_is_checked_whatever_the_method(guard: Guard, method: str) -> None:
    stored, body = Stored(), form(("file", "a.jpg", LISTED))
    headers = [("content-type", FORM["Content-Type"]), length(body)]
    assert ask(UploadguardMiddleware(stored, guard), method, headers, body) == 422
    assert not stored.bodies


@pytest.mark.parametrize(
    "types",
    [
        ["multipart/form-data\xa0; boundary=a-boundary"],
        ["multipart/form-data2; boundary=a-boundary"],
        ["text/plain", "multipart/form-data; boundary=a-boundary"],
        ["multipart/form-data; boundary=a-boundary", "text/plain"],
    ],
)
def test_a_type_that_some_would_read_as_a_form_is_refused(guard: Guard, types: list[str]) -> None:
    stored, body = Stored(), form(("file", "a.jpg", LISTED))
    headers = [*(("content-type", kind) for kind in types), length(body)]
    assert ask(UploadguardMiddleware(stored, guard), "POST", headers, body) == 400
    assert not stored.bodies


@pytest.mark.parametrize("coding", ["gzip", "br, identity"])
def test_an_encoded_body_is_refused(guard: Guard, coding: str) -> None:
    stored, body = Stored(), gzip.compress(LISTED)
    headers = [("content-encoding", coding), length(body)]
    assert ask(UploadguardMiddleware(stored, guard, raw=True), "PUT", headers, body) == 400
    assert not stored.bodies
    assert ask(UploadguardMiddleware(stored, guard, raw=True), "PUT", [("content-encoding", "identity")], b"x") == 200


DISPOSITIONS = [
    "form-data; name=\"a\"; filename*=utf-8''x.jpg",
    'form-data; name="a"; filename*0="x"; filename*1=".jpg"',
    'form-data; name="a\\\\"; filename="x"',
    'form-data; name="a"; filename = "x.jpg"',
    'form-data; name="a"; filename="x"; filename=""',
    'form-data; name="a\\"; filename="x.jpg"',
    'form-data; name="a"; filename="x\\"; x="y"',
    'form-data; name="a"; filename="x\\"',
    "attachment; NAME=a; FileName=b",
]


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_all_applications_find_the_files_that_were_checked(guard: Guard, disposition: str) -> None:
    stored, picture = Stored(), unrelated_picture()
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\nContent-Length: 3\r\n\r\n"
    body = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = [("content-type", FORM["Content-Type"]), length(body)]
    if ask(UploadguardMiddleware(stored, guard), "POST", headers, body) == 400:
        return
    written = stored.bodies[0]
    environ = EnvironBuilder(
        method="POST", input_stream=BytesIO(written), content_type=stored.headers["content-type"]
    ).get_environ()
    environ["CONTENT_LENGTH"] = str(len(written))
    _, fields, files = parse_form_data(environ)
    for file in files.values():
        file.close()
    assert len(files) + len(fields) == 1
    assert len(files) == guard.status().checks.get("allow", 0)
    line = written.split(b"\r\n")[1].decode().partition(": ")[2]
    assert ("filename" in parse_header_parameters(line)[1]) is bool(files)
    assert b"content-length" not in written.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize("name", ["a\n\nGIF89a", "a\r\n\r\nGIF89a", "a\r\rGIF89a", 'a"\0b'])
def test_a_name_does_not_run_into_the_file(name: str) -> None:
    part = Part(name="f", filename=name, value=bytearray(b"listed"))
    replay = Replay(ReceivedForm([part]), [])
    receive = replay.receive_before(anything_after)

    async def read() -> bytes:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        return body

    head, _, content = asyncio.run(read()).partition(b"\r\n\r\n")
    assert content.startswith(b"listed\r\n--")
    assert not set(b"\r\n\0") & set(head.partition(b"filename=")[2])


async def anything_after() -> Any:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize("kind", ["image/\u65e5", "image/\udcff", "multipart/form-data; boundary=\udcff", ""])
def test_any_type_is_read(guard: Guard, kind: str) -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield LISTED

    async def read() -> str:
        limits, answers = Limits.of(guard.settings.web), Answers(guard.settings)
        form = await receive_file(whole(), kind, guard, answers, limits, None)
        form.close()
        return form.files[0].decision.verdict.label

    assert is_form(kind) is kind.startswith("multipart")
    assert FormParser("multipart/form-data; boundary=\udcff", Limits(1, 1))
    assert asyncio.run(read()) == "block"


def full(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_lets_nothing_pass(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, large = Stored(), LISTED + bytes(1 << 20)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    app = UploadguardMiddleware(stored, guard, raw=True)
    for body, headers in ((large, []), (form(("f", "a", large)), [("content-type", FORM["Content-Type"])])):
        with pytest.raises(OSError, match="No space"):
            ask(app, "POST", [*headers, length(body)], body)
    assert not stored.bodies
    assert Admission.of(guard).under_way == 0


def test_a_shape_that_gives_nothing_lets_nothing_pass(guard: Guard) -> None:
    answers = Answers(guard.settings, shape=lambda _decision, _answer: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="shape"):
        answers.of(guard.check(LISTED))


@pytest.fixture
def host(config: Path) -> Iterator[tuple[flask.Flask, list[bytes]]]:
    """A host in Flask that looks at the body before the view, as one that verifies signatures does."""
    app = flask.Flask(__name__)
    app.config["UPLOADGUARD_CONFIG"] = config
    uploads = Uploadguard(app)
    stored: list[bytes] = []

    @app.before_request
    def look() -> None:
        flask.request.get_data()

    @app.route("/raw", methods=["GET", "PUT"])
    @uploads.check_uploads(raw=True)
    def raw() -> bytes:
        if flask.request.method == "GET":
            return b"a page"
        stored.append(flask.request.get_data())
        return bytes(flask.g.uploadguard.body.read())

    @app.post("/form")
    @uploads.check_uploads
    def take() -> str:
        stored.extend(file.read() for file in flask.request.files.values())
        return ""

    yield app, stored
    uploads.close(app)


@pytest.mark.parametrize("chunked", [False, True])
def test_flask_checks_a_body_that_was_read_before(host: tuple[flask.Flask, list[bytes]], chunked: bool) -> None:
    app, stored = host
    options: dict[str, Any] = {"data": LISTED}
    if chunked:
        options = {"input_stream": BytesIO(LISTED), "environ_overrides": {"wsgi.input_terminated": True}}
    assert app.test_client().put("/raw", **options).status_code == 422
    assert app.test_client().put("/raw", data=b"text").data == b"text"
    assert stored == [b"text"]
    assert app.test_client().post("/form", data=form(("f", "a", LISTED)), headers=FORM).status_code == 422


def test_flask_checks_a_body_that_comes_with_head(host: tuple[flask.Flask, list[bytes]]) -> None:
    app, stored = host
    assert app.test_client().head("/raw", data=LISTED).status_code == 422
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    assert app.test_client().head("/raw", input_stream=BytesIO(LISTED), environ_overrides=chunked).status_code == 422
    assert not stored
    assert app.test_client().get("/raw").data == b"a page"


def test_flask_refuses_what_is_encoded(host: tuple[flask.Flask, list[bytes]]) -> None:
    app, stored = host
    packed = gzip.compress(LISTED)
    assert app.test_client().put("/raw", data=packed, headers={"Content-Encoding": "gzip"}).status_code == 400
    head = 'Content-Disposition: form-data; name="f"; filename="a"\r\nContent-Transfer-Encoding: base64'
    body = f"--{BOUNDARY}\r\n{head}\r\n\r\naGVsbG8=\r\n--{BOUNDARY}--\r\n".encode()
    assert app.test_client().post("/form", data=body, headers=FORM).status_code == 400
    assert not stored
