"""Reading forms: any cut of the bytes gives the same parts, limits hold, and nothing is left of what is given up."""

from __future__ import annotations

import asyncio
import gc
import io
import math
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.requests import Request

from tests.web.wsgi import BOUNDARY, FORM, form
from uploadguard import Context, Decision, Guard
from uploadguard.testing import media
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes
from uploadguard.web import arriving, multipart
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answers
from uploadguard.web.arriving import (
    IN_MEMORY_BYTES,
    ArrivingFile,
    CheckedFile,
    Limits,
    Refused,
    admit,
    conclude,
    limited,
)
from uploadguard.web.multipart import BrokenForm, FormParser, ReceivedForm, receive_file, receive_form
from uploadguard.web.replay import Replay

CONTENT_TYPE = FORM["Content-Type"]
LIMITS = Limits(4 << 20, 5)
T = TypeVar("T")

names = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n\0'), max_size=12)
parts = st.lists(st.tuples(names, st.none() | names, st.binary(max_size=300)), min_size=1, max_size=5)


def parse(body: bytes, cuts: list[int], limits: Limits = LIMITS) -> list[tuple[str, str | None, bytes]]:
    """The parts of a form that comes in pieces."""
    parser = FormParser(CONTENT_TYPE, limits)
    found: list[tuple[str, str | None, bytes]] = []
    data = b""
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        for part, piece in parser.feed(body[start:end]):
            if piece is None:
                found.append((part.name, part.filename, data))
                data = b""
            else:
                data += piece
    parser.finish()
    return found


async def pieces(body: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(guard: Guard, body: bytes, limits: Limits = LIMITS, size: int = 65536) -> ReceivedForm:
    answers = Answers(guard.settings)
    return await receive_form(pieces(body, size), CONTENT_TYPE, guard, answers, limits, lambda name: Context(name))


def refusal(work: Coroutine[Any, Any, object]) -> int:
    """The status that a request is refused with."""
    with pytest.raises(Refused) as refused:
        asyncio.run(work)
    return refused.value.answer.status


@contextmanager
def nothing_left() -> Iterator[None]:
    """No descriptor is open afterwards that was not before."""

    def descriptors() -> set[str]:
        return {link.name for link in Path("/proc/self/fd").iterdir()}

    gc.collect()
    before = descriptors()
    yield
    assert descriptors() <= before


@given(parts, st.data())
def test_however_the_bytes_are_cut_the_parts_are_the_same(
    wanted: list[tuple[str, str | None, bytes]], data: st.DataObject
) -> None:
    wanted = [(name, filename, content.replace(BOUNDARY.encode(), b"")) for name, filename, content in wanted]
    body = form(*wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    assert parse(body, cuts) == wanted


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_garbage_is_a_broken_form_and_nothing_else(garbage: bytes, cuts: list[int]) -> None:
    cuts = sorted(min(cut, len(garbage)) for cut in cuts)
    for body in (garbage, f"--{BOUNDARY}\r\n".encode() + garbage):
        with pytest.raises(BrokenForm):
            parse(body, cuts)


@pytest.mark.parametrize(
    "head",
    [
        'Content-Disposition: form-data; filename="a"',
        'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"',
        'Content-Disposition: form-data; name="a"\nContent-Disposition: form-data; name="b"',
        'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: Base64',
        "X: " + 9000 * "x",
        "\r\n".join(f"X-{number}: x" for number in range(20)),
    ],
    ids=["no name", "two names", "a bare line feed", "encoded", "a long header", "many headers"],
)
def test_headers_that_could_be_read_in_another_way_are_refused(head: str) -> None:
    with pytest.raises(BrokenForm):
        parse(f"--{BOUNDARY}\r\n{head}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(), [])


@pytest.mark.parametrize("content_type", [None, "", "image/jpeg", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_what_is_no_form_is_broken(content_type: str | None) -> None:
    with pytest.raises(BrokenForm):
        FormParser(content_type, LIMITS)


def test_the_form_is_written_anew_as_it_was(guard: Guard) -> None:
    wanted = [("text", None, b"x" * 10), ("file", "a ü.jpg", unrelated_picture()), ("empty", "", b""), ("n", None, b"")]

    async def both_ways() -> list[tuple[str, str | None, bytes]]:
        received = await read(guard, form(*wanted))
        replay = Replay(received, [(b"content-type", b"other"), (b"content-length", b"1"), (b"x", b"y")])

        async def nothing() -> dict[str, Any]:
            raise AssertionError("the body is complete")

        scope = {"type": "http", "headers": replay.headers}
        receive = replay.receive_before(nothing)
        request = Request(scope, receive)
        body = await request.body()
        headers = dict(replay.headers)
        assert headers[b"content-length"] == str(len(body)).encode()
        assert headers[b"x"] == b"y"
        found = []
        async with request.form() as items:
            for name, value in items.multi_items():
                if isinstance(value, UploadFile):
                    found.append((name, value.filename, await value.read()))
                else:
                    found.append((name, None, value.encode()))
        received.close()
        return found

    assert asyncio.run(both_ways()) == wanted


@pytest.mark.parametrize("size", [1 << 16, 1 << 24])
def test_files_arrive_whole_and_are_checked_whatever_their_size(guard: Guard, size: int) -> None:
    large = os.urandom(17 << 20)  # more than is kept in memory until it is checked
    wanted = {"a": picture_bytes(), "b": large, "c": picture_bytes() + bytes(IN_MEMORY_BYTES)}

    async def check() -> None:
        body = form(*(("file", name, data) for name, data in wanted.items()))
        received = await read(guard, body, Limits(1 << 30, 5), size)
        assert {file.filename: file.file.read() for file in received.files} == wanted
        assert {file.filename: file.decision.verdict.label for file in received.files} == {
            "a": "block", "b": "not_scanned", "c": "queue",
        }  # fmt: skip
        received.close()

    with nothing_left():
        asyncio.run(check())


def test_limits_are_inclusive(guard: Guard) -> None:
    file, body = ("f", "a", media.flat_png()), form(("f", "a", media.flat_png()), ("t", None, b"12345"))

    async def taken(body: bytes, limits: Limits) -> None:
        (await read(guard, body, limits)).close()

    asyncio.run(taken(body, Limits(len(body), 1, max_fields=1, max_field_bytes=5, max_fields_bytes=5)))
    assert refusal(read(guard, body, Limits(len(body) - 1, 1))) == 413
    assert refusal(read(guard, form(file, file), Limits(1 << 20, 1))) == 413
    assert refusal(read(guard, body, Limits(1 << 20, 1, max_field_bytes=4))) == 413
    assert refusal(read(guard, body, Limits(1 << 20, 1, max_fields_bytes=4))) == 413
    assert refusal(read(guard, form(*[("t", None, b"")] * 4), Limits(1 << 20, 1, max_fields=2))) == 413


def test_a_body_that_does_not_arrive_is_given_up(guard: Guard) -> None:
    async def never(body: bytes) -> AsyncIterator[bytes]:
        yield body
        await asyncio.Event().wait()

    async def wait() -> None:
        body = form(("f", "a", bytes(2 << 20)))[:-100]
        await receive_form(
            never(body), CONTENT_TYPE, guard, Answers(guard.settings), Limits(1 << 30, 1, timeout_s=0.2), lambda _: None
        )

    with nothing_left():
        assert refusal(wait()) == 408
    assert not guard.status().checks


def test_a_body_that_drips_is_given_up(guard: Guard) -> None:
    """A byte now and then is no stillness that a server's own time-out would see."""
    limits = replace(LIMITS, timeout_s=None, min_bytes_per_s=1 << 20, grace_s=0.1)

    async def drip() -> AsyncIterator[bytes]:
        for byte in iter(lambda: b"x", None):
            await asyncio.sleep(0.01)
            yield byte

    async def wait() -> None:
        await receive_file(drip(), "image/png", guard, Answers(guard.settings), limits, None)

    with nothing_left():
        assert refusal(wait()) == 408
    assert not guard.status().checks


def test_only_waiting_for_a_body_counts_as_its_slowness(guard: Guard) -> None:
    """What we do with its bytes takes time as well."""
    limits = replace(LIMITS, min_bytes_per_s=1 << 30, grace_s=0.05)

    async def receive() -> list[bytes]:
        received = []
        body = limited(pieces(bytes(100), 10), limits, Answers(guard.settings), Admission.of(guard))
        async with aclosing(body) as chunks:
            async for chunk in chunks:
                received.append(chunk)
                await asyncio.sleep(0.02)
        return received

    assert len(asyncio.run(receive())) == 10


def test_the_least_rate_is_of_what_arrived_after_the_grace() -> None:
    assert replace(LIMITS, min_bytes_per_s=1000, grace_s=20.0).patience_s(5000) == 25.0
    assert replace(LIMITS, min_bytes_per_s=1000, grace_s=20.0).patience_s(8000, crowded=True) == 2.0
    assert replace(LIMITS, min_bytes_per_s=0).patience_s(0) == math.inf
    assert replace(LIMITS, min_bytes_per_s=0).patience_s(0, crowded=True) == math.inf


@pytest.mark.parametrize("slow", [True, False])
def test_a_body_that_does_not_come_loses_its_place_to_the_next(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """Otherwise clients that send nothing would hold all places for as long as the grace is, again and again."""
    limits = replace(LIMITS, min_bytes_per_s=1, grace_s=3600.0)
    monkeypatch.setattr(arriving, "_CROWDED_GRACE_S", 0.0 if slow else 3600.0)
    answers, admission = Answers(guard.settings), Admission.of(guard)
    admission._limit = 1

    async def stalls(asked: asyncio.Event) -> AsyncIterator[bytes]:
        asked.set()
        await asyncio.Event().wait()
        yield b""

    async def wait(asked: asyncio.Event) -> None:
        with admit(guard, answers, limits, None):
            await receive_file(stalls(asked), "image/png", guard, answers, limits, None)

    async def crowd() -> tuple[int, int]:
        asked = asyncio.Event()
        task = asyncio.create_task(wait(asked))
        await asked.wait()
        admitted = 0
        with suppress(Refused), admit(guard, answers, limits, None):
            admitted = admission.under_way
            assert refusal_of(await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)) == 408
            with pytest.raises(Refused), admit(guard, answers, limits, None):
                raise AssertionError("there is nobody else who could make room")
        given_up = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return admitted, given_up

    with nothing_left():
        assert asyncio.run(crowd()) == ((2, True) if slow else (0, False))
    assert (admission.under_way, admission._waiting._bodies) == (0, set())


def refusal_of(results: list[Any]) -> int:
    (found,) = results
    assert isinstance(found, Refused)
    return found.answer.status


def test_cancelling_leaves_nothing_and_decides_nothing(guard: Guard) -> None:
    arrived = asyncio.Event()

    async def stalls(body: bytes) -> AsyncIterator[bytes]:
        async for piece in pieces(body):
            yield piece
        arrived.set()
        await asyncio.Event().wait()

    async def cancel() -> None:
        chunks = stalls(form(("f", "a", bytes(2 << 20)))[:-100])
        reading = receive_form(chunks, CONTENT_TYPE, guard, Answers(guard.settings), LIMITS, lambda _: None)
        task = asyncio.create_task(reading)
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with nothing_left():
        asyncio.run(cancel())
    assert not guard.status().checks


def test_a_host_error_while_reading_leaves_nothing(guard: Guard) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield form(("f", "a", bytes(2 << 20)))[:-100]
        raise ConnectionResetError

    async def fail() -> None:
        with pytest.raises(ConnectionResetError):
            await receive_form(fails(), CONTENT_TYPE, guard, Answers(guard.settings), LIMITS, lambda _: None)

    with nothing_left():
        asyncio.run(fail())


def test_many_files_take_no_more_memory_than_one(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty of nearly the most that a single one has would be a gigabyte for four requests that break off."""
    in_memory: list[int] = []
    check = arriving.ArrivingFile.check

    async def see(file: arriving.ArrivingFile) -> Decision:
        await file.rewind()
        in_memory.append(file.in_memory_bytes)
        return await check(file)

    monkeypatch.setattr(arriving.ArrivingFile, "check", see)
    fine, listed = unrelated_picture(), picture_bytes()
    monkeypatch.setattr(multipart, "DIGESTED_AS_THEY_ARRIVE_BYTES", len(fine) + 10)

    async def receive() -> list[str]:
        body = pieces(form(*(("f", f"{number}.jpg", data) for number, data in enumerate((fine, b"x", listed, fine)))))
        received = await receive_form(body, CONTENT_TYPE, guard, Answers(guard.settings), LIMITS, lambda _: None)
        received.close()
        return [file.decision.verdict.label for file in received.files]

    with nothing_left():
        assert asyncio.run(receive()) == ["allow", "not_scanned", "block", "allow"]
    assert in_memory == [len(fine), 1, 0, 0]


def test_a_body_that_is_one_file(guard: Guard) -> None:
    async def check() -> str:
        received = await receive_file(
            pieces(picture_bytes()), "image/png", guard, Answers(guard.settings), LIMITS, None
        )
        assert (received.files[0].content_type, received.files[0].filename) == ("image/png", None)
        received.close()
        return received.files[0].decision.verdict.label

    assert asyncio.run(check()) == "block"


def test_there_is_room_for_as_many_as_are_checked_at_once_and_none_when_not_ready(guard: Guard) -> None:
    answers = Answers(guard.settings)
    admission = Admission.of(guard)
    assert Admission.of(guard) is admission
    admission._limit = 1
    with admit(guard, answers, LIMITS, "10"):
        with pytest.raises(Refused) as refused, admit(guard, answers, LIMITS, None):
            raise AssertionError("there is no room")
        assert (refused.value.answer.status, refused.value.answer.headers) == (503, {"Retry-After": "2"})
    assert admission.under_way == 0
    for length in ("4194304", "04194304", "x", "-1"):
        with admit(guard, answers, LIMITS, length):
            assert admission.under_way == 1
    for length in ("4194305", "9" * 5000):
        with pytest.raises(Refused) as too_large, admit(guard, answers, LIMITS, length):
            raise AssertionError("it is too large")
        assert too_large.value.answer.status == 413
    guard.close()
    with pytest.raises(Refused) as not_ready, admit(guard, answers, LIMITS, None):
        raise AssertionError("it is closed")
    assert not_ready.value.answer.status == 503


@pytest.mark.parametrize("kind", ["plain", "async", "callable"])
def test_a_host_holds_what_is_queued_and_only_that(guard: Guard, kind: str) -> None:
    held: list[tuple[Decision, bytes, bool]] = []

    def plain(decision: Decision, file: Any) -> None:
        held.append((decision, file.read(), threading.current_thread() is threading.main_thread()))

    async def asynchronous(decision: Decision, file: Any) -> None:
        plain(decision, file)

    class Callable:
        async def __call__(self, decision: Decision, file: Any) -> None:
            plain(decision, file)

    hold = {"plain": plain, "async": asynchronous, "callable": Callable()}[kind]
    near = variant_bytes("mirrored")

    async def check() -> None:
        received = await read(guard, form(("f", "a", unrelated_picture()), ("f", "b", near)))
        answer = await conclude(received.files, Answers(guard.settings), hold, "answer")
        assert answer is not None
        assert answer.status == 202
        assert await conclude(received.files, Answers(guard.settings), hold, "pass") is None
        received.close()

    asyncio.run(check())
    assert [(decision.verdict.label, data) for decision, data, _ in held] == [("queue", near)]
    assert held[0][2] is (kind != "plain")


def test_where_nobody_holds_it_the_request_fails(guard: Guard) -> None:
    def full(decision: Decision, file: Any) -> None:
        raise OSError("no space")

    async def check() -> None:
        received = await read(guard, form(("f", "b", variant_bytes("mirrored"))))
        try:
            with pytest.raises(OSError, match="no space"):
                await conclude(received.files, Answers(guard.settings), full, "answer")
        finally:
            received.close()

    asyncio.run(check())


def test_nothing_that_is_shown_has_a_payload_or_a_name(guard: Guard) -> None:
    async def check() -> None:
        received = await read(guard, form(("secret-field", "secret-name", b"secret"), ("t", None, b"secret")))
        shown = f"{received} {received.parts} {received.files}"
        assert "secret" not in shown
        received.close()

    asyncio.run(check())


def test_assembled_files_are_checked_by_their_path(guard: Guard, tmp_path: Path) -> None:
    data = picture_bytes()
    assembled = tmp_path / "upload"
    with assembled.open("wb") as file:
        for start in range(0, len(data), 10_000):
            file.write(data[start : start + 10_000])
    answer = Answers(guard.settings).of(asyncio.run(guard.acheck(assembled)))
    assert answer is not None
    assert answer.status == 422


def test_a_file_may_be_dropped_again_and_again(guard: Guard) -> None:
    async def drop() -> None:
        for size in (10, 2 << 20):
            file = ArrivingFile(guard)
            await file.write(bytes(size))
            file.drop()
            file.drop()

    with nothing_left():
        asyncio.run(drop())


def test_what_is_checked_says_little_of_itself() -> None:
    file = CheckedFile.__new__(CheckedFile)
    for name, value in (("decision", None), ("file", io.BytesIO()), ("filename", "x"), ("size_bytes", 3)):
        object.__setattr__(file, name, value)
    assert repr(file) == "CheckedFile(None, 3 bytes)"
