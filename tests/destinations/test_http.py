"""The HTTP that actions speak: bounded in time and size, every failure with a meaning, nothing quoted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.destinations.http import Answer, HttpClient, check_url, error_of, retry_after_s
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.testing.fakes import (
    Drip,
    FakeServer,
    Garbage,
    HalfClosed,
    Huge,
    LostResponse,
    Redirect,
    Request,
    Reset,
    Response,
    Slow,
    Truncated,
)

SECRET = b"body-that-must-not-be-quoted"


class Echo(FakeServer):
    def answer(self, request: Request) -> Response:
        return Response(200, request.body)


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as running:
        yield running


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(total_s=2.0, max_answer_bytes=1000)
    yield made
    made.close()


@contextmanager
def raw_server(wire: bytes, *, every_s: float = 0.0, keep_open: bool = False) -> Iterator[str]:
    """A server that reads a request's first bytes and answers these, whatever was asked; gives its URL."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(20)
                connection.recv(65536)
                try:
                    for at in range(0, len(wire), 1 if every_s else len(wire)):
                        connection.sendall(wire[at : at + 1] if every_s else wire)
                        if stop.wait(every_s):
                            return
                    if keep_open:
                        stop.wait(20)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


class TestAnswers:
    def test_a_request_and_its_answer(self, server: Echo, client: HttpClient) -> None:
        answer = client.send("POST", server.url + "/a?b=c", content=b"abc", headers={"X-A": "b"}, basic=("me", "pw"))
        assert (answer.status, answer.body, answer.complete) == (200, b"abc", True)
        (request,) = server.requests
        assert (request.method, request.path, request.query) == ("POST", "/a", {"b": ["c"]})
        assert request.headers["x-a"] == "b"
        assert request.headers["authorization"].startswith("Basic ")
        assert request.headers["accept-encoding"] == "identity"
        assert "abc" not in repr(answer)

    def test_redirects_are_not_followed(self, server: Echo, client: HttpClient) -> None:
        server.misbehave(Redirect(server.url + "/other"))
        answer = client.send("POST", server.url + "/", content=SECRET)
        assert len(server.requests) == 1
        with pytest.raises(RefusedError, match=r"307.*redirects are not followed"):
            raise error_of(answer) or AssertionError

    @pytest.mark.parametrize("kind", [Huge(), Huge(500)])
    def test_an_endless_answer_is_read_in_part(self, server: Echo, client: HttpClient, kind: Huge) -> None:
        server.misbehave(kind)
        answer = client.send("GET", server.url)
        assert (answer.status, len(answer.body), answer.complete) == (kind.code, 1000, False)
        with pytest.raises(PostponedError):
            answer.whole_body()

    def test_an_answer_that_breaks_off_has_a_status_all_the_same(self, server: Echo, client: HttpClient) -> None:
        server.misbehave(Truncated())
        answer = client.send("POST", server.url, content=b"abcdef")
        assert (answer.status, answer.complete) == (200, False)

    def test_an_answer_of_just_as_many_bytes_as_are_read(self, server: Echo, client: HttpClient) -> None:
        assert client.send("POST", server.url, content=b"a" * 1000).complete
        assert not client.send("POST", server.url, content=b"a" * 1001).complete

    def test_each_request_has_a_connection_of_its_own(self, server: Echo, client: HttpClient) -> None:
        client.send("GET", server.url)
        server.restart()
        assert client.send("GET", server.url).status == 200


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (HalfClosed(), "without an answer"),
            (LostResponse(), "broke"),
            (Reset(), "broke|without an answer"),
            (Slow(60), "took longer"),
        ],
        ids=repr,
    )
    def test_what_breaks_is_postponed(self, server: Echo, client: HttpClient, kind: HalfClosed, text: str) -> None:
        server.misbehave(kind)
        with pytest.raises(PostponedError, match=text) as caught:
            client.send("POST", server.url, content=SECRET)
        assert not caught.value.outage

    def test_nobody_listens(self, server: Echo, client: HttpClient) -> None:
        server.stop()
        with pytest.raises(PostponedError, match="no connection") as caught:
            client.send("POST", server.url, content=SECRET)
        assert caught.value.outage

    def test_a_name_that_does_not_resolve(self, client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", nothing)
        with pytest.raises(PostponedError, match="no connection") as caught:
            client.send("POST", "https://nowhere.invalid/", content=SECRET)
        assert caught.value.outage

    def test_no_tls_where_tls_is_wanted(self, server: Echo, client: HttpClient) -> None:
        with pytest.raises(PostponedError, match="TLS") as caught:
            client.send("POST", server.url.replace("http://", "https://"), content=SECRET)
        assert caught.value.outage

    @pytest.mark.parametrize(
        "wire",
        [b"\x00\xff\xfe", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 banana\r\n\r\n", b"\r\n" * 99, b"HTTP/1.1 " + b"x" * 9999],
        ids=["binary", "ssh", "no-status", "blank-lines", "endless-line"],
    )  # fmt: skip
    def test_what_is_not_http(self, client: HttpClient, wire: bytes) -> None:
        with raw_server(wire) as url, pytest.raises(PostponedError) as caught:
            client.send("GET", url)
        assert not caught.value.outage

    def test_headers_that_drip(self) -> None:
        """Each byte comes well before the timeout of a read, and all of them take a minute."""
        wire = b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 50
        with raw_server(wire, every_s=0.2) as url, pytest.raises(PostponedError, match=r"took longer than 0\.5 s"):
            HttpClient(total_s=0.5).send("GET", url)

    def test_a_body_that_drips(self, server: Echo) -> None:
        server.misbehave(Drip(0.2))
        answer = HttpClient(total_s=0.5).send("POST", server.url, content=b"a" * 300)
        assert (answer.status, answer.complete) == (200, False)

    @pytest.mark.parametrize("kind", [HalfClosed(), LostResponse(), Garbage(), Slow(60)], ids=repr)
    def test_errors_quote_nothing(self, server: Echo, kind: HalfClosed) -> None:
        server.misbehave(kind)
        client = HttpClient(total_s=0.3)
        try:
            error: object = error_of(client.send("POST", server.url + "/token-in-path", content=SECRET))
        except PostponedError as caught:
            error = caught
        for text in (str(error), repr(error)):
            assert "127.0.0.1" not in text
            assert "token" not in text
            assert SECRET.decode() not in text


class TestMeaning:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
    def test_success(self, status: int) -> None:
        assert error_of(Answer(status, {}, b"", True)) is None

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 404, 405, 410, 413, 422, 451, 499])
    def test_refusals(self, status: int) -> None:
        error = error_of(Answer(status, {"retry-after": "5"}, SECRET, True))
        assert isinstance(error, RefusedError)
        assert str(status) in str(error)
        assert SECRET.decode() not in str(error)

    @pytest.mark.parametrize(
        "status", [401, 403, 407, 408, 409, 421, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599, 600, 999, 100]
    )
    def test_later(self, status: int) -> None:
        error = error_of(Answer(status, {"retry-after": "5"}, SECRET, True))
        assert isinstance(error, PostponedError)
        assert error.after_s == 5
        assert error.outage == (status in (401, 403, 407, 429, 502, 503, 504))
        assert SECRET.decode() not in str(error)


class TestRetryAfter:
    NOW = datetime(2026, 3, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("86400", 86_400.0), ("86401", 86_400.0), ("9" * 5000, 86_400.0),
            ("", None), ("-1", None), ("1.5", None), ("soon", None), ("\u0661", None), ("Mon, 99 Foo 2026", None),
        ],
    )  # fmt: skip
    def test_seconds(self, text: str, seconds: float | None) -> None:
        assert retry_after_s({"retry-after": text}, now=self.NOW) == seconds

    @pytest.mark.parametrize(("ahead_s", "seconds"), [(90, 90.0), (-90, 0.0), (10**6, 86_400.0)])
    def test_dates(self, ahead_s: int, seconds: float) -> None:
        at = format_datetime(self.NOW + timedelta(seconds=ahead_s), usegmt=True)
        assert retry_after_s({"retry-after": at}, now=self.NOW) == seconds

    def test_none(self) -> None:
        assert retry_after_s({}) is None

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        found = retry_after_s({"retry-after": text})
        assert found is None or 0 <= found <= 86_400


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        ["https://a.example", "https://a.example:8443/b?c=d", "http://127.0.0.1:80/", "http://[::1]/", "http://localhost/a"],
    )  # fmt: skip
    def test_where_reports_may_go(self, url: str) -> None:
        assert check_url(url) == url

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("http://a.example/", "must begin with https"),
            ("http://127.0.0.1.a.example/", "must begin with https"),
            ("ftp://a.example/", "absolute URL"),
            ("a.example", "absolute URL"),
            ("https://", "absolute URL"),
            ("https://a.example/\r\nX: y", "absolute URL"),
            ("https://a.example/ b", "absolute URL"),
            ("https://\u00e4.example/", "absolute URL"),
            ("https://me:pw@a.example/", "credentials"),
            ("https://a.example:99999/", "not a URL"),
            ("https://[::1/", "not a URL"),
            ("https://a.example/#b", "fragment"),
            ("", "absolute URL"),
        ],
    )
    def test_where_they_may_not(self, url: str, text: str) -> None:
        with pytest.raises(ValueError, match=text) as caught:
            check_url(url)
        assert len(url) < 9 or url not in str(caught.value)

    def test_plain_http_when_asked_for(self) -> None:
        assert check_url("http://hooks.internal/", plain_http=True)
