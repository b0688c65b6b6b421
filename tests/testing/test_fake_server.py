"""The base of the fake servers: it answers, misbehaves as told, and closes cleanly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.testing import fakes


class Counter(fakes.FakeServer):
    """Counts, and says how often."""

    count = 0

    def answer(self, request: fakes.Request) -> fakes.Response:
        if request.path == "/broken":
            raise KeyError("made up")
        self.count += 1
        return fakes.Response(body=b"%08d" % self.count, headers={"X-Count": str(self.count)})

    def snapshot(self) -> dict[str, Any]:
        return {"count": self.count}


@pytest.fixture
def fake() -> Iterator[Counter]:
    with Counter() as server:
        yield server


@pytest.fixture
def client(fake: Counter) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake.url, timeout=10, trust_env=False) as client:
        yield client


def test_it_answers_and_keeps_what_came(fake: Counter, client: httpx.Client) -> None:
    answer = client.post("/a?b=c&b=d", content=b"\x00\xff", headers={"X-Mine": "1", "Content-Type": "Text/Plain; q=1"})
    assert (answer.status_code, answer.content, answer.headers["x-count"]) == (200, b"00000001", "1")
    [request] = fake.requests
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a", {"b": ["c", "d"]}, b"\x00\xff")
    assert (request.headers["x-mine"], request.media_type, request.misbehaved) == ("1", "text/plain", None)
    assert abs((request.at - datetime.now(UTC)).total_seconds()) < 60


def test_a_connection_serves_many_requests_and_chunked_bodies(fake: Counter, client: httpx.Client) -> None:
    for _ in range(3):
        client.put("/x", content=iter([b"ab", b"", b"cde"]))
    assert [request.body for request in fake.requests] == [b"abcde"] * 3


def test_forms_and_files_are_read(fake: Counter, client: httpx.Client) -> None:
    client.post("/", data={"id": "7", "text": "ü & more"})
    assert fake.requests[-1].form() == {"id": "7", "text": "ü & more"}
    data = b"\r\n--x\r\n\r\n\x00\xff\r\n"
    client.post("/", data={"id": "7"}, files={"file": ('pi"ä.jpg', data, "image/jpeg")})
    parts = {part.name: part for part in fake.requests[-1].parts()}
    assert (parts["id"].data, parts["file"].data, parts["file"].content_type) == (b"7", data, "image/jpeg")
    assert parts["file"].filename is not None
    assert parts["id"].filename is None
    client.post("/", content=b"nothing of the kind")
    with pytest.raises(ValueError, match="no multipart"):
        fake.requests[-1].parts()


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=60), min_size=1))
def test_any_file_is_read_as_it_was_sent(files: dict[str, bytes]) -> None:
    sent = httpx.Request("POST", "http://127.0.0.1/", files={name: ("f", data) for name, data in files.items()})
    headers = dict(sent.headers)
    request = fakes.Request("POST", "/", {}, headers, sent.read(), datetime.now(UTC))
    assert {part.name: part.data for part in request.parts()} == files


def test_state_and_port_outlive_a_restart(fake: Counter, client: httpx.Client) -> None:
    client.get("/")
    url = fake.url
    fake.restart()
    with httpx.Client(base_url=url, trust_env=False) as another:
        assert another.get("/").content == b"00000002"
    fake.stop()
    with pytest.raises(httpx.ConnectError), httpx.Client(base_url=url, trust_env=False) as another:
        another.get("/")


def test_closing_ends_every_thread_and_idle_connection() -> None:
    before = set(threading.enumerate())
    with Counter() as server, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as idle:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            client.get("/")
            server.misbehave(fakes.Slow(3600))
            errors: list[httpx.TransportError] = []

            def wait() -> None:
                try:
                    client.get("/slow")
                except httpx.TransportError as error:
                    errors.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            while len(server.requests) < 2:
                time.sleep(0.01)
            server.stop()
            waiting.join()
        assert errors
        assert idle.recv(1) == b""
    assert not set(threading.enumerate()) - before
    assert server.count == 1, "what was slow when the server stopped took no effect"


def test_a_fault_of_the_fake_is_no_misbehaviour() -> None:
    server = Counter()
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get("/broken")
    with pytest.raises(RuntimeError, match="fake server itself") as caught:
        server.__exit__(None)
    assert isinstance(caught.value.__cause__, KeyError)


def test_statuses_and_garbage(fake: Counter, client: httpx.Client) -> None:
    fake.misbehave(fakes.Status(401))
    fake.misbehave(fakes.throttled(7))
    fake.misbehave(fakes.throttled(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), 503))
    fake.misbehave(fakes.Garbage())
    fake.misbehave(fakes.Garbage(b"odd", effect=True))
    fake.misbehave(fakes.Redirect("http://127.0.0.1:9/elsewhere"))
    answers = [client.get("/") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [401, 429, 503, 200, 200, 307, 200]
    assert answers[0].content == b""
    assert answers[1].headers["retry-after"] == "7"
    assert answers[2].headers["retry-after"] == "Wed, 02 Jan 2030 03:04:05 GMT"
    assert answers[4].content == b"odd"
    assert answers[5].headers["location"] == "http://127.0.0.1:9/elsewhere"
    assert answers[6].content == b"00000002", "only the second garbage took effect"


@pytest.mark.parametrize(
    ("kind", "error", "effect"),
    [
        (fakes.LostResponse(), httpx.ReadError, True),
        (fakes.LostResponse(after_bytes=30), httpx.TransportError, True),
        (fakes.Truncated(), httpx.RemoteProtocolError, True),
        (fakes.Truncated(effect=False), httpx.RemoteProtocolError, False),
        (fakes.HalfClosed(), httpx.RemoteProtocolError, False),
        (fakes.Reset(), httpx.TransportError, False),
    ],
)
def test_broken_connections(
    fake: Counter, client: httpx.Client, kind: fakes.Misbehaviour, error: type[Exception], effect: bool
) -> None:
    fake.misbehave(kind)
    with pytest.raises(error):
        client.post("/", content=b"x" * 100_000)
    assert fake.count == int(effect)
    assert fake.requests[0].misbehaved == kind
    assert client.get("/").content == b"%08d" % (1 + int(effect))


def test_a_dripping_and_an_endless_body(fake: Counter, client: httpx.Client) -> None:
    fake.misbehave(fakes.Drip(0.001, 3))
    assert client.get("/").content == b"00000001"
    fake.misbehave(fakes.Huge())
    with client.stream("GET", "/") as answer:
        read = 0
        for chunk in answer.iter_raw():
            read += len(chunk)
            if read > 1_000_000:
                break
    assert read > 1_000_000
    assert client.get("/").content == b"00000002"


def test_rules_by_path_method_count_and_number(fake: Counter, client: httpx.Client) -> None:
    fake.misbehave(fakes.Status(500), path="/a/*", method="POST", nth=2, times=2)
    fake.misbehave(fakes.Status(503), path="/b", times=None)
    codes = [client.post(f"/a/{n}").status_code for n in range(5)]
    assert codes == [200, 500, 500, 200, 200]
    assert client.get("/a/1").status_code == 200
    assert [client.get("/b").status_code for _ in range(3)] == [503] * 3
    fake.behave()
    assert client.get("/b").status_code == 200
    with pytest.raises(ValueError, match="which"):
        fake.misbehave()


def test_random_misbehaviour_follows_its_seed() -> None:
    def codes(seed: int) -> list[int]:
        with Counter(seed=seed) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
            server.misbehave(fakes.Status(500), fakes.Status(503), times=None, probability=0.5)
            return [client.get("/").status_code for _ in range(40)]

    first = codes(1)
    assert codes(1) == first
    assert codes(2) != first
    assert set(first) == {200, 500, 503}


def test_the_clock_moves(fake: Counter) -> None:
    before = fake.clock.now()
    fake.clock.advance(3600)
    assert (fake.clock.now() - before).total_seconds() >= 3600


def test_what_it_says_of_itself_is_no_request(fake: Counter, client: httpx.Client) -> None:
    fake.misbehave(fakes.Status(500), times=None)
    assert client.get("/__fake__/state").json() == {"count": 0}
    assert json.loads(client.post("/__fake__/calm").content) == {"count": 0}
    assert client.get("/").status_code == 200
    assert len(fake.requests) == 1
