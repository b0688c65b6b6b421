"""Kept connections: used again, never past the deadline, never for another request's answer, never across a fork."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.destinations.certificates import make_certificate
from uploadguard.destinations.http import HttpClient
from uploadguard.errors import PostponedError
from uploadguard.testing.fakes import (
    Drip,
    FakeServer,
    HalfClosed,
    Huge,
    LostResponse,
    Misbehaviour,
    Request,
    Reset,
    Response,
    Slow,
    Status,
    Truncated,
)

TRUE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
FALSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse"
TLS = ssl.create_default_context()  # takes a while to make


class Echo(FakeServer):
    def answer(self, request: Request) -> Response:
        return Response(200, request.body)


@contextmanager
def serving(
    handle: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[int]]]:
    """A server whose every connection is handled on a thread; its URL, and the number of connections so far."""
    threads: list[threading.Thread] = []
    opened = [0]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def one(connection: socket.socket) -> None:
            try:
                with connection if tls is None else tls.wrap_socket(connection, server_side=True) as ready:
                    ready.settimeout(20)
                    handle(ready)
            except OSError:
                pass

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                opened[0] += 1
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}/", opened
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def saying(*answers: bytes) -> Callable[[socket.socket], None]:
    """Answers the requests of each connection, one recv each, with these; then closes."""

    def handle(connection: socket.socket) -> None:
        for answer in answers:
            if not connection.recv(65536):
                return
            connection.sendall(answer)

    return handle


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as running:
        yield running


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(total_s=20.0, max_answer_bytes=1000, keep=4)
    yield made
    made.close()


def kept(client: HttpClient) -> int:
    clients = client._clients
    assert clients is not None
    assert clients.kept is not None
    return len(clients.kept._idle)


class TestReuse:
    def test_requests_one_after_another_share_a_connection(self, client: HttpClient) -> None:
        with serving(saying(TRUE, FALSE, TRUE)) as (url, opened):
            assert [client.send("POST", url, content=b"a").body for _ in range(3)] == [b"true", b"false", b"true"]
            assert opened == [1]
            assert client.send("POST", url, content=b"a").body == b"true"  # the server closed the first one
            assert opened == [2]
            client.close()

    def test_over_tls(self, tmp_path: Path) -> None:
        path, context = make_certificate(tmp_path)
        trusting = ssl.create_default_context(cafile=str(path))
        with serving(saying(TRUE, FALSE), context) as (url, opened):
            client = HttpClient(total_s=20.0, verify=trusting, keep=1)
            assert [client.send("POST", url, content=b"a").body for _ in range(2)] == [b"true", b"false"]
            assert opened == [1]
            client.close()

    def test_who_it_is_is_checked_over_tls(self, tmp_path: Path, client: HttpClient) -> None:
        _, context = make_certificate(tmp_path)
        with serving(saying(TRUE), context) as (url, _), pytest.raises(PostponedError, match="TLS") as caught:
            client.send("POST", url, content=b"a")
        assert caught.value.outage

    def test_an_end_that_tls_does_not_confirm_is_no_end(self, tmp_path: Path) -> None:
        path, context = make_certificate(tmp_path)
        trusting = ssl.create_default_context(cafile=str(path))

        def cut(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfalse")
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

        with serving(cut, context) as (url, _):
            answer = HttpClient(total_s=20.0, verify=trusting, keep=1).send("POST", url)
        assert (answer.status, answer.complete) == (200, False)

    def test_no_more_are_kept_than_asked_for(self, server: Echo, client: HttpClient) -> None:
        server.misbehave(Slow(0.05), times=None)
        with ThreadPoolExecutor(12) as pool:
            bodies = [b"%d" % number for number in range(60)]
            answers = list(pool.map(lambda body: client.send("POST", server.url, content=body).body, bodies))
        assert answers == bodies
        assert 1 <= kept(client) <= 4

    def test_a_server_that_went_away_and_came_back(self, server: Echo, client: HttpClient) -> None:
        client.send("GET", server.url)
        server.restart()
        assert client.send("GET", server.url).status == 200

    @pytest.mark.parametrize("kind", [HalfClosed(), Reset()], ids=repr)
    def test_a_kept_connection_that_breaks_is_replaced_once(
        self, server: Echo, client: HttpClient, kind: Misbehaviour
    ) -> None:
        client.send("POST", server.url, content=b"a")
        server.misbehave(kind)
        assert client.send("POST", server.url, content=b"b").body == b"b"
        server.misbehave(kind, times=None)
        with pytest.raises(PostponedError):
            client.send("POST", server.url, content=b"c")

    def test_idle_ones_are_closed(self, server: Echo, client: HttpClient) -> None:
        client.send("GET", server.url)
        clients = client._clients
        assert clients is not None
        assert clients.kept is not None
        [old] = clients.kept._idle
        old.since -= 3600
        client.send("GET", server.url)
        assert clients.kept._idle != [old]
        assert old._socket.fileno() == -1

    def test_hosts_do_not_share_connections(self, client: HttpClient) -> None:
        with Echo() as one, Echo() as other:
            client.send("GET", one.url)
            client.send("GET", other.url)
            assert kept(client) == 2
            client.close()

    def test_it_goes_on_after_close(self, server: Echo, client: HttpClient) -> None:
        client.send("GET", server.url)
        client.close()
        assert client.send("POST", server.url, content=b"a").body == b"a"

    def test_cookies_are_not_kept(self, server: Echo, client: HttpClient) -> None:
        server.misbehave(Status(200, {"Set-Cookie": "a=b"}))
        client.send("GET", server.url)
        client.send("GET", server.url)
        assert "cookie" not in server.requests[1].headers

    def test_a_proxy_of_the_environment_is_used(
        self, server: Echo, client: HttpClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client.send("POST", "http://service.invalid/a", content=b"b").body == b"b"
        assert server.requests[0].headers["host"] == "service.invalid"


class TestOneAnswerEach:
    @pytest.mark.parametrize(
        "wire",
        [
            TRUE + FALSE,
            TRUE + b"\r\n",
            TRUE[:-4].replace(b"4", b"0") + b"true",
            b"HTTP/1.1 204 No Content\r\n\r\nfalse",
            TRUE + FALSE[:20],
        ],
        ids=["two-answers", "a-line-end", "a-body-beyond-its-length", "a-body-of-none", "half-an-answer-more"],
    )  # fmt: skip
    def test_what_is_left_over_answers_nothing(self, client: HttpClient, wire: bytes) -> None:
        def handle(connection: socket.socket) -> None:
            body = connection.recv(65536)
            connection.sendall(wire if body.endswith(b"first") else TRUE)
            connection.recv(65536)

        with serving(handle) as (url, opened):
            client.send("POST", url, content=b"first")
            assert client.send("POST", url, content=b"second").body == b"true"
            assert opened == [2]
            client.close()

    def test_what_comes_later_answers_nothing_either(self, client: HttpClient) -> None:
        more = threading.Event()
        sent = threading.Event()

        def handle(connection: socket.socket) -> None:
            first = connection.recv(65536).endswith(b"first")
            connection.sendall(TRUE)
            if first:
                more.wait(20)
                connection.sendall(FALSE)
                sent.set()
            connection.recv(65536)

        with serving(handle) as (url, opened):
            client.send("POST", url, content=b"first")
            more.set()
            sent.wait(20)
            assert client.send("POST", url, content=b"second").body == b"true"
            assert opened == [2]
            client.close()

    def test_an_answer_before_the_question_was_put_is_none(self, client: HttpClient) -> None:
        def handle(connection: socket.socket) -> None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(FALSE)
            connection.recv(10)

        with serving(handle) as (url, _), pytest.raises(PostponedError):
            client.send("POST", url, content=b"a" * 50_000_000)

    def test_an_error_before_the_question_was_put_counts(self, client: HttpClient) -> None:
        def handle(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_RDWR)

        with serving(handle) as (url, _):
            assert client.send("POST", url, content=b"a" * 50_000_000).status == 413
            assert kept(client) == 0

    def test_informational_answers_are_passed_over(self, client: HttpClient) -> None:
        with serving(saying(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + TRUE, FALSE)) as (url, opened):
            assert [client.send("POST", url).body for _ in range(2)] == [b"true", b"false"]
            assert opened == [1]
            client.close()

    @settings(max_examples=40)
    @given(wire=st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
    def test_any_bytes(self, wire: bytes) -> None:
        def handle(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(wire)

        client = HttpClient(total_s=20.0, verify=TLS, keep=2)
        with serving(handle) as (url, _):
            with suppress(PostponedError):
                client.send("POST", url, content=b"a")
            assert kept(client) == 0
        client.close()


class TestDeadlines:
    @pytest.mark.parametrize("reused", [False, True])
    def test_an_answer_that_does_not_come(self, server: Echo, client: HttpClient, reused: bool) -> None:
        if reused:
            client.send("GET", server.url)
        server.misbehave(Slow(60))
        with pytest.raises(PostponedError, match=r"took longer than 0\.3 s"):
            client.send("POST", server.url, content=b"a", total_s=0.3)
        assert kept(client) == 0

    @pytest.mark.parametrize("reused", [False, True])
    def test_a_body_that_drips(self, server: Echo, client: HttpClient, reused: bool) -> None:
        if reused:
            client.send("GET", server.url)
        server.misbehave(Drip(0.1))
        answer = client.send("POST", server.url, content=b"a" * 600, total_s=0.3)
        assert (answer.status, answer.complete) == (200, False)
        assert kept(client) == 0

    @pytest.mark.parametrize("wire", [b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 99, b"HTTP/1.1 100 Go\r\n\r\n" * 99])
    def test_heads_that_drip(self, client: HttpClient, wire: bytes) -> None:
        over = threading.Event()

        def handle(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(TRUE)
            connection.recv(65536)
            for at in range(len(wire)):
                connection.sendall(wire[at : at + 1])
                if over.wait(0.1):
                    return

        with serving(handle) as (url, _):
            client.send("POST", url)
            with pytest.raises(PostponedError, match=r"took longer than 0\.4 s"):
                client.send("POST", url, total_s=0.4)
            over.set()

    def test_a_server_that_does_not_read(self, client: HttpClient) -> None:
        over = threading.Event()
        with serving(lambda _: over.wait(20)) as (url, _):
            with pytest.raises(PostponedError, match="took longer"):
                client.send("POST", url, content=b"a" * 50_000_000, total_s=0.3)
            over.set()

    def test_a_handshake_that_does_not_come(self, client: HttpClient) -> None:
        over = threading.Event()
        with serving(lambda _: over.wait(20)) as (url, _):
            with pytest.raises(PostponedError, match="no connection") as caught:
                client.send("POST", url.replace("http", "https"), total_s=0.3)
            over.set()
        assert caught.value.outage

    def test_no_time_at_all(self, server: Echo, client: HttpClient) -> None:
        with pytest.raises(PostponedError):
            client.send("GET", server.url, total_s=0.0)
        assert server.requests == []

    @pytest.mark.parametrize("kind", [Huge(), Truncated(), LostResponse(20)], ids=repr)
    def test_what_ended_badly_is_not_kept(self, server: Echo, client: HttpClient, kind: Misbehaviour) -> None:
        server.misbehave(kind)
        with suppress(PostponedError):
            assert not client.send("POST", server.url, content=b"a" * 10).complete
        assert kept(client) == 0


def test_a_child_makes_its_own_connections(client: HttpClient) -> None:
    with serving(saying(*[TRUE] * 9)) as (url, opened):
        client.send("GET", url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if client.send("GET", url).body == b"true" else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert client.send("GET", url).body == b"true"
        assert opened == [2]
        client.close()


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_the_parent_held(server: Echo, client: HttpClient) -> None:
    clients = client._made()
    assert clients.kept is not None
    with client._making, clients.kept._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if client.send("GET", server.url).status == 200 else 2
            finally:
                os._exit(status)
    until = time.monotonic() + 20
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert ended == (pid, 0)
