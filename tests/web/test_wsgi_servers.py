"""Django and Flask under the servers that hosts run: gunicorn with processes and with threads, Django's own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.web.registry import gunicorn
from tests.web.wsgi import BOUNDARY, FORM, MAX_BODY_BYTES, Part, Server, ask, form, serving, write_config
from uploadguard.testing import media, picture, testlist

FINE = picture.unrelated_picture()
LISTED = picture.picture_bytes()
MIRRORED = picture.variant_bytes("mirrored")
TEXT = media.text_named_jpg()
DJANGO = "tests.web.apps.django_app:application"
FLASK = "tests.web.apps.flask_app:app"
THREADS = ("--worker-class=gthread", "--threads=4", "--preload")
COMMANDS = {
    "django-sync": gunicorn(DJANGO),
    "django-threads": gunicorn(DJANGO, *THREADS),
    "django-runserver": ["-m", "tests.web.apps.django_app", "runserver", "--noreload", "{port}"],
    "flask-sync": gunicorn(FLASK),
    "flask-threads": gunicorn(FLASK, *THREADS),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """All of them, started side by side."""
    directory: Path = tmp_path_factory.mktemp("wsgi")
    config = write_config(directory)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:

        def start(name: str) -> Server:
            context = serving(COMMANDS[name], config, directory / name)
            server = context.__enter__()
            stack.push(context)
            server.name = name
            return server

        started = dict(zip(COMMANDS, pool.map(start, COMMANDS), strict=True))
        yield started
        for server in started.values():
            assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


@pytest.fixture(autouse=True)
def nothing_held(server: Server) -> Iterator[None]:
    yield
    for file in server.held.iterdir():
        file.unlink()


def picture_part(data: bytes, field: str = "picture") -> Part:
    return field, "cat.jpg", data


def test_an_upload_that_may_go_on_reaches_the_view_whole_and_from_its_start(server: Server) -> None:
    reply = server.post(("text", None, b"a caption"), picture_part(FINE))
    assert reply.status == 200
    assert reply.json["files"] == [["picture", "cat.jpg", len(FINE), FINE[:8].hex(), "allow"]]
    assert reply.json["text"] == "a caption"


def test_what_could_not_be_scanned_passes_by_default_and_says_so(server: Server) -> None:
    assert server.post(picture_part(TEXT)).json["files"][0][-1] == "not_scanned"


def test_a_blocked_upload_is_refused_without_a_word_of_why(server: Server) -> None:
    reply = server.post(picture_part(LISTED))
    assert reply.status == 422
    assert reply.headers["content-type"].startswith("application/json")
    assert set(reply.json) == {"detail", "reference"}
    assert reply.json["detail"] == "This upload was not accepted."
    assert not list(server.held.iterdir())


def test_a_queued_upload_is_held_before_it_is_answered(server: Server) -> None:
    reply = server.post(picture_part(MIRRORED))
    assert reply.status == 202
    assert set(reply.json) == {"detail", "reference"}
    assert (server.held / reply.json["reference"]).read_bytes() == MIRRORED


def test_of_several_files_the_worst_decides(server: Server) -> None:
    both_fine = server.post(picture_part(FINE), picture_part(TEXT, "second"))
    assert [file[0] for file in both_fine.json["files"]] == ["picture", "second"]
    queued = server.post(picture_part(FINE), picture_part(MIRRORED), picture_part(MIRRORED))
    assert queued.status == 202
    assert [file.read_bytes() for file in server.held.iterdir()] == [MIRRORED, MIRRORED]
    for file in server.held.iterdir():
        file.unlink()
    assert server.post(picture_part(MIRRORED), picture_part(LISTED), picture_part(FINE)).status == 422
    assert not list(server.held.iterdir())


def test_a_file_field_left_empty_is_no_upload(server: Server) -> None:
    reply = server.post(("text", None, b"words"), ("picture", "", b""))
    assert (reply.status, reply.json["files"], reply.json["text"]) == (200, [], "words")


def test_more_files_than_allowed_are_refused(server: Server) -> None:
    assert server.post(*[picture_part(TEXT, f"file{number}") for number in range(4)]).status == 413


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with server.open("/upload", MAX_BODY_BYTES + 1, b"") as connection:
        assert received(connection).split()[1] == b"413"


def checks_made(server: Server) -> int:
    return int(server.send("GET", "/alive").json["checks"])


def test_a_body_of_unknown_length_is_refused_over_the_limit_or_not_read(server: Server) -> None:
    before = checks_made(server)
    body = form(picture_part(LISTED + bytes(MAX_BODY_BYTES)))
    connection = server.connect()
    try:
        connection.request("POST", "/upload", iter([body[:1_500_000], body[1_500_000:]]), FORM, encode_chunked=True)
        response = connection.getresponse()
        if "django" in server.name:  # which takes no form without a Content-Length in
            assert (response.status, response.read()[:12]) == (200, b'{"files": []')
        else:
            assert response.status == 413
    except ConnectionError:
        pass  # the answer was lost, since the server closed without reading the rest
    finally:
        connection.close()
    assert checks_made(server) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(picture_part(FINE))[:-20], FORM["Content-Type"]),
        (form(picture_part(FINE))[: len(FINE) // 2], FORM["Content-Type"]),
        (form(picture_part(FINE)), "multipart/form-data"),
    ],
    ids=["no end", "half a file", "no boundary"],
)
def test_a_broken_form_is_refused(server: Server, body: bytes, kind: str) -> None:
    assert server.send("POST", "/upload", body, {"Content-Type": kind}).status == 400


def test_a_client_that_goes_away_leaves_nothing_behind(server: Server) -> None:
    body = form(picture_part(MIRRORED))
    with server.open("/upload", len(body), body[: len(body) // 2]):
        pass
    with server.open("/upload", len(body), body[:40]):
        pass
    assert server.post(picture_part(LISTED)).status == 422
    temporary = server.held.parent / "tmp"
    ends = time.monotonic() + 10
    while left := list(temporary.iterdir()):
        assert time.monotonic() < ends, left
        time.sleep(0.05)
    assert not list(server.held.iterdir())


def test_the_connection_goes_on_after_every_answer(server: Server) -> None:
    connection = server.connect()
    try:
        for data, status in ((FINE, 200), (LISTED, 422), (MIRRORED, 202), (FINE, 200)):
            assert ask(connection, "POST", "/upload", form(picture_part(data)), FORM).status == status
    finally:
        connection.close()


def test_a_raw_body_is_checked(server: Server) -> None:
    kind = {"Content-Type": "image/jpeg"}
    reply = server.send("PUT", "/raw", FINE, kind)
    assert reply.json == {"size": len(FINE), "verdict": "allow", "start": FINE[:4].hex()}
    assert server.send("PUT", "/raw", LISTED, kind).status == 422
    assert server.send("PUT", "/raw", MIRRORED, kind).status == 202
    assert [file.read_bytes() for file in server.held.iterdir()] == [MIRRORED]
    with server.open("/raw", MAX_BODY_BYTES + 1, b"") as connection:
        assert received(connection).split()[1] == b"413"


def test_an_asynchronous_view_is_guarded_too(server: Server) -> None:
    assert server.post(picture_part(FINE), path="/async").json["files"][0][-1] == "allow"
    assert server.post(picture_part(LISTED), path="/async").status == 422


def test_a_slow_upload_holds_nobody_up(server: Server) -> None:
    if "sync" in server.name:
        return  # one request at a time is what that server does
    body = form(picture_part(FINE))
    slow = [server.open("/upload", len(body), body[: len(body) // 2]) for _ in range(2)]
    try:
        replies: list[int] = []
        threads = [
            threading.Thread(target=lambda: replies.append(server.post(picture_part(LISTED)).status)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert replies == [422] * 4
        for connection in slow:
            connection.sendall(body[len(body) // 2 :])
            assert received(connection).split()[1] == b"200"
    finally:
        for connection in slow:
            connection.close()


def test_no_log_tells_a_reason(server: Server) -> None:
    server.post(picture_part(LISTED))
    server.post(picture_part(MIRRORED))
    told = server.log.read_text()
    hashes = [value.hex() for entry in testlist.entries() for _, value in entry.hashes]
    for secret in ("made-up", "perceptual", "digest_match", *hashes):
        assert secret not in told


def received(connection: socket.socket) -> bytes:
    return connection.recv(4096)


assert BOUNDARY.encode() not in FINE + LISTED + MIRRORED + TEXT
