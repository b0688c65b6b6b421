"""The client: against the real service, and against one that misbehaves. No failure looks like an allow."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import LIST_NAME, TOKEN, Running
from uploadguard import Context, Hash, MediaReadError, UploadRefused, Verdict
from uploadguard.client import AsyncClient, CheckResult, Client, Readiness
from uploadguard.client_results import parse_result
from uploadguard.errors import ConfigError, ServiceError
from uploadguard.testing.fakes import misbehaviour as wrong
from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.server import FakeServer
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

GOOD = {
    "reference": "a-reference", "verdict": "allow", "treat_as": "allow", "answer": None, "reasons": [],
    "report_due": False, "generation": 1, "timings_ms": {"total": 1.5}, "shadow": None, "pending": False,
    "revises": None,
    "media": {
        "size_bytes": 1, "media_type": None, "width": None, "height": None, "orientation": 1, "scale": 1,
        "decoder": None, "frames_total": 0, "frames_hashed": 0,
    },
}  # fmt: skip


class FakeService(FakeServer):
    """A service that allows everything, if it is asked at all."""

    def answer(self, request: Request) -> Response:
        body = {"ready": True, "checks": {}} if request.path == "/readyz" else GOOD
        return Response(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def fake() -> Iterator[FakeService]:
    with FakeService() as server:
        yield server


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, token=TOKEN) as opened:
        yield opened


def test_bytes_paths_and_files_are_checked(client: Client, tmp_path: Path) -> None:
    picture = unrelated_picture()
    (tmp_path / "a.jpg").write_bytes(picture)
    file = io.BytesIO(b"before" + picture)
    file.seek(6)
    for data in (picture, bytearray(picture), memoryview(picture), tmp_path / "a.jpg", str(tmp_path / "a.jpg"), file):
        found = client.check(data)  # type: ignore[arg-type]
        assert found.allowed
        assert (found.treat_as, found.answer, found.media.size_bytes) == (Verdict.ALLOW, None, len(picture))
        found.raise_for_verdict()
    assert file.tell() == 6
    with open_pipe(picture) as pipe:
        assert client.check(pipe).allowed


def test_a_refusal_is_a_value_and_an_error_where_one_is_wanted(client: Client) -> None:
    found = client.check(picture_bytes())
    assert (found.verdict, found.treat_as, found.allowed) == (Verdict.BLOCK, Verdict.BLOCK, False)
    assert found.reasons == ("digest_match",)
    assert found.report_due
    assert found.answer is not None
    assert (found.answer.status, found.answer.body["reference"]) == (422, found.reference)
    with pytest.raises(UploadRefused):
        found.raise_for_verdict()
    assert repr(found) == f"CheckResult(block, reference={found.reference})"


def test_what_is_known_of_an_upload_arrives_and_can_be_asked_for(client: Client) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    context = Context("x", "sömebody %", "192.0.2.1", 4711, "t", "obj 1", "https://example.org/?a=1", at, {"a": [1]})
    made = client.check(variant_bytes("mirrored"), context=context, filename="ü ber.jpg", full=True)
    assert made.matches[0].list_name == LIST_NAME
    assert {one.signal_type for one in made.hashes} == {"md5", "sha1", "sha256", "pdq"}
    found = client.decision(made.reference)
    assert found is not None
    assert (found.verdict, found.object_id, found.tenant) == (Verdict.QUEUE, "obj 1", "t")
    assert found.case is not None
    assert (found.case.state, found.matches) == ("open", ())
    assert client.decision("unknown-reference") is None


def test_hashes_are_looked_up(client: Client) -> None:
    assert client.check_hashes([Hash("sha1", b"\x5a" * 20)]).verdict is Verdict.NOT_SCANNED
    assert client.check_hashes([Hash("pdq", b"\x5a" * 32, 90)], context=Context(tenant="t")).reasons == (
        "content_unseen",
    )
    with pytest.raises(ServiceError, match="bad_hash") as raised:
        client.check_hashes([Hash("pdq", b"\x5a" * 32)])
    assert raised.value.status == 400


def test_the_state_of_the_service(client: Client, make_service: Callable[..., Running]) -> None:
    assert client.ready()
    empty = make_service(empty=True, ledger=False)
    with Client(empty.url, token=TOKEN, retries=0) as other:
        assert other.ready() == Readiness(
            False, {"freshness": "ok", "hash_set": "empty", "recording": "off", "refresh": "ok"}
        )
        with pytest.raises(ServiceError, match="not_ready") as raised:
            other.check(picture_bytes())
    assert (raised.value.status, raised.value.retry_after_s) == (503, 1.0)


def test_a_wrong_token_is_an_error_without_it(service: Running) -> None:
    with Client(service.url, token="wrong" * 5) as client, pytest.raises(ServiceError, match="unauthorized") as raised:
        client.check(unrelated_picture())
    assert "wrong" not in str(raised.value)
    assert raised.value.status == 401


def test_what_cannot_be_read_is_not_sent(client: Client, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(MediaReadError):
            client.check(path)
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises((MediaReadError, ValueError)):
        client.check(closed)
    with pytest.raises(TypeError, match="binary"):
        client.check(io.StringIO("x"))  # type: ignore[arg-type]


def test_an_upload_that_is_too_large_is_an_error(client: Client) -> None:
    with pytest.raises(ServiceError, match="too_large"):
        client.check(b"x" * 9_000_000)


@pytest.mark.parametrize(
    "options", [{}, {"base_url": "http://x", "socket": "y"}, {"base_url": "ftp://x"}, {"base_url": "x"}]
)
def test_it_must_be_clear_where_the_service_is(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(**options)


@pytest.mark.parametrize(
    "kind",
    [
        wrong.Status(500), wrong.Status(200, body=b""), wrong.Status(204), wrong.Status(404), wrong.Garbage(),
        wrong.Truncated(), wrong.HalfClosed(), wrong.LostResponse(), wrong.LostResponse(20), wrong.Reset(),
        wrong.Redirect("http://127.0.0.1:9/"), wrong.Huge(), wrong.Huge(503), wrong.Slow(5.0), wrong.throttled(1),
        wrong.Status(503), wrong.Status(200, body=b"[" * 100_000), wrong.Status(503, {"Retry-After": "soon"}),
    ],
    ids=str,
)  # fmt: skip
def test_no_misbehaviour_is_an_answer_and_none_is_tried_again(fake: FakeService, kind: wrong.Misbehaviour) -> None:
    fake.misbehave(kind, times=None)
    with Client(fake.url, timeout_s=0.3) as client:
        for ask in (
            lambda: client.check(b"x"),
            lambda: client.check_hashes([Hash("md5", b"1" * 16)]),
            lambda: client.decision("abcdefgh"),
            client.ready,
        ):
            if isinstance(kind, wrong.Slow | wrong.Huge) and ask != client.ready:
                continue  # each takes its time
            with pytest.raises(ServiceError):
                ask()
    assert len(fake.requests) <= 4


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fine"}, {"verdict": None}, {"verdict": "block"}, {"verdict": "queue"}, {"treat_as": "not_scanned"},
        {"treat_as": "block"}, {"answer": {}}, {"answer": {"status": 422, "body": {}}}, {"reference": ""},
        {"reference": 1}, {"reference": "x" * 200}, {"reasons": None}, {"reasons": [1]}, {"report_due": 1},
        {"generation": "1"}, {"generation": True}, {"media": {}}, {"timings_ms": []}, {"shadow": "x"},
        {"matches": [{}]}, {"failures": [{}]}, {"hashes": [{"value": "z"}]},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_none(change: dict[str, Any]) -> None:
    assert parse_result(CheckResult, json.dumps(GOOD).encode()).allowed
    with pytest.raises(ServiceError):
        parse_result(CheckResult, json.dumps({**GOOD, **change}).encode())
    for name in change:
        if name not in ("matches", "failures", "hashes", "shadow"):
            with pytest.raises(ServiceError):
                parse_result(CheckResult, json.dumps({k: v for k, v in GOOD.items() if k != name}).encode())


def test_no_room_is_tried_again_with_the_whole_upload(fake: FakeService) -> None:
    fake.misbehave(wrong.throttled(0, 503), times=2)
    file = io.BytesIO(b"x" * 300_000)
    with Client(fake.url) as client:
        assert client.check(file).allowed
        assert [len(request.body) for request in fake.requests] == [300_000] * 3
        fake.misbehave(wrong.throttled(0, 503), times=3)
        with pytest.raises(ServiceError):
            client.check(file)
    assert len(fake.requests) == 6


def test_what_can_be_read_once_is_sent_once(fake: FakeService) -> None:
    fake.misbehave(wrong.throttled(0, 503), times=None)
    with open_pipe(b"x" * 1000) as pipe, Client(fake.url) as client, pytest.raises(ServiceError):
        client.check(pipe)
    assert len(fake.requests) == 1


def test_a_service_that_comes_back_is_found_again(fake: FakeService) -> None:
    fake.stop()
    with Client(fake.url, retries=0) as client, pytest.raises(ServiceError, match=r"cannot be reached: .*refused"):
        client.check(b"x")
    timer = threading.Timer(0.1, fake.start)
    timer.start()
    with Client(fake.url, retries=50) as client:
        assert client.check(b"x").allowed
    timer.join()


def test_credentials_go_nowhere_else(fake: FakeService) -> None:
    with FakeService() as other:
        fake.misbehave(wrong.Redirect(f"{other.url}/v1/check"), times=None)
        with Client(fake.url, token=TOKEN) as client, pytest.raises(ServiceError):
            client.check(b"x")
        assert other.requests == []


def test_for_asyncio_it_is_the_same(service: Running, fake: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(variant_bytes("mirrored"))

    async def use() -> None:
        async with AsyncClient(service.url, token=TOKEN) as client:
            assert await client.ready()
            made = await client.check(tmp_path / "a.jpg", filename="a.jpg")
            assert made.verdict is Verdict.QUEUE
            found = await client.decision(made.reference)
            assert found is not None
            assert found.verdict is Verdict.QUEUE
            assert await client.decision("unknown-reference") is None
            assert (await client.check_hashes([Hash("md5", b"1" * 16)])).verdict is Verdict.NOT_SCANNED
            results = await asyncio.gather(*(client.check(unrelated_picture()) for _ in range(10)))
            assert all(result.allowed for result in results)
        fake.misbehave(wrong.throttled(0, 503))
        async with AsyncClient(fake.url) as client:
            assert (await client.check(b"x")).allowed
            fake.misbehave(wrong.HalfClosed())
            with pytest.raises(ServiceError):
                await client.check(b"x")

    asyncio.run(use())


def test_it_imports_nothing_that_decodes_or_matches() -> None:
    code = (
        "import sys, uploadguard.client; "
        "heavy = {'numpy', 'PIL', 'pyvips', 'pydantic', 'sqlalchemy', 'starlette', 'uploadguard.guard'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_httpx_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uploadguard.client", "uploadguard.client_wire"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match=r"uploadguard\[client\]"):
        __import__("uploadguard.client")


def open_pipe(data: bytes) -> Any:
    """A file object that cannot be read twice."""
    reading, writing = os.pipe()
    os.write(writing, data[:60_000])
    rest = data[60_000:]

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(rest)

    threading.Thread(target=feed, daemon=True).start()
    return os.fdopen(reading, "rb", buffering=0)
