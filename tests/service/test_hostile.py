"""Clients that are slow, rude or broken: the service answers what can be answered, and goes on."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.conftest import AUTHORIZED, Running, reply_of
from tests.web.wsgi import FORM
from uploadguard.errors import LedgerDownError
from uploadguard.testing.picture import unrelated_picture
from uploadguard.web import arriving
from uploadguard.web.service import protocol

PICTURE = unrelated_picture()
TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=60)
NAMES = st.one_of(
    TOKENS,
    st.sampled_from(
        ["X-Uploadguard-Extra", "X-Uploadguard-Port", "Content-Type", "Content-Length", "Transfer-Encoding", "Expect",
         "Authorization", "Connection", "Host", "Upgrade"]
    ),
)  # fmt: skip


@given(
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=6), target=st.text(max_size=20), body=st.binary(max_size=200)
)
@settings(max_examples=60)
def test_whatever_the_head_is_it_is_answered_or_the_connection_closed(
    service: Running, headers: list[tuple[str, str]], target: str, body: bytes
) -> None:
    lines = [f"POST /v1/check?{target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        assert not answer or 100 <= int(answer.split()[1]) < 500
    assert service.send("GET", "/livez").status == 200


@given(body=st.binary(max_size=400))
@settings(max_examples=60)
def test_whatever_the_form_is_it_is_answered(service: Running, body: bytes) -> None:
    reply = service.send("POST", "/v1/check", b"--a-boundary\r\n" + body, FORM)
    assert reply.status in (200, 400, 413)


@given(body=st.binary(max_size=300))
@settings(max_examples=40)
def test_whatever_the_bytes_are_they_are_checked(service: Running, body: bytes) -> None:
    assert service.check(body or b"x").status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/check HT", b"POST /v1/check HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    service: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "_HEAD_S", 0.1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(sent)
        assert connection.recv(1000) == b""


def test_a_kept_connection_waits_for_its_next_request_longer_than_for_a_head(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_HEAD_S", 0.1)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"alive": true}'
        time.sleep(0.2)
    connection.close()


def test_a_head_that_is_too_long_is_refused(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 400_000 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_an_answer_before_the_bodys_end_is_seen_by_a_client_that_sends_it_all(service: Running) -> None:
    connection = service.raw("POST /v1/nothing HTTP/1.1", "Content-Length: 8000000")
    connection.sendall(b"x" * 8_000_000)
    assert reply_of(connection).code == "not_found"


def test_an_upload_that_does_not_come_makes_room_for_the_next(
    make_service: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(ledger=False, serve={"max_uploads": 1})
    monkeypatch.setattr(arriving, "_CROWDED_GRACE_S", 20.0)
    with service.raw("POST /v1/check HTTP/1.1", "Content-Length: 100") as idle:
        service.wait(lambda: service.under_way == 1)
        assert service.check(PICTURE).code == "busy"
        monkeypatch.setattr(arriving, "_CROWDED_GRACE_S", 0.0)
        assert service.check(PICTURE).status == 200
        assert reply_of(idle).code == "body_timeout"


def test_what_fails_inside_is_an_error_without_a_word_of_it(
    service: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("d41d8cd98f00b204e9800998ecf8427e")

    monkeypatch.setattr(service.guard, "inspect", fail)
    reply = service.check(PICTURE)
    assert (reply.status, reply.code) == (500, "internal")
    assert b"d41d8" not in reply.body
    assert b"Traceback" not in reply.body
    assert "d41d8" not in caplog.text
    assert service.under_way == 0


def test_a_ledger_that_cannot_be_read_is_said(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> None:
        raise LedgerDownError("the ledger's database cannot be used")

    monkeypatch.setattr(service.service._endpoints._recorded, "find", down)
    reply = service.send("GET", "/v1/decisions/abcdefgh")
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "ledger_down", "2")


def test_a_client_that_leaves_while_its_upload_is_checked_stops_the_check(
    make_service: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(ledger=False)
    begun: list[Any] = []
    run = service.guard._runner.run

    def slow(upload: Any, context: Any, generation: Any, timings: Any, order: Any) -> Any:
        begun.append(order)
        service.wait(order.cancelled)
        return run(upload, context, generation, timings, order)

    monkeypatch.setattr(service.guard._runner, "run", slow)
    with service.raw("POST /v1/check HTTP/1.1", f"Content-Length: {len(PICTURE)}", body=PICTURE):
        service.wait(lambda: bool(begun))
    service.wait(lambda: service.under_way == 0)
    assert begun[0].cancelled()
    monkeypatch.undo()
    assert service.send("POST", "/v1/check", PICTURE, AUTHORIZED).status == 200
