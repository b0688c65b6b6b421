"""What the host believes of a worker's answers: those that are right in every field, and no others."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.media.inspect import Inspection
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.sandbox import wire

EXPECTED = wire.Expected(signals={"pdq": 32, "phash": 8}, decoders=frozenset({"pillow"}), max_frames=4)
INSPECTION = Inspection(
    Media(1000, "image/gif", 20, 10, decoder="pillow", frames_total=6, frames_hashed=2),
    (
        Hash("pdq", bytes(range(32)), 80),
        Hash("pdq", bytes(32), 80, "rot90"),
        Hash("phash", bytes(8), None, frame=5),
    ),
    (Failure(FailureCode.FRAMES_SAMPLED, "2 of 6 frames"), Failure(FailureCode.SIGNAL_FAILED, "pdq raised", 5)),
    {"open": 0.1, "decode": 2},
)


def payload(inspection: Inspection = INSPECTION, number: int = 7) -> dict[str, Any]:
    framed = wire.answer_of(number, inspection, 3.5)
    assert struct.unpack("<I", framed[:4])[0] == len(framed) - 4
    record: dict[str, Any] = json.loads(framed[4:])
    return record


def parse(record: object) -> wire.Answer:
    return wire.parse_answer(json.dumps(record).encode(), 7, 1000, EXPECTED)


def test_an_answer_comes_through_unchanged() -> None:
    assert parse(payload()) == wire.Answer(INSPECTION, 3.5)
    assert wire.parse_answer(wire.stopped_answer(7, 1.0)[4:], 7, 1000, EXPECTED) == wire.Answer(None, 1.0)


def test_every_field_of_media_is_checked() -> None:
    assert list(wire._MEDIA) == [item.name for item in fields(Media)]


def test_odd_text_becomes_a_line_and_the_longest_answer_is_within_the_bound() -> None:
    odd = Inspection(Media(1000), (), (Failure(FailureCode.DECODE_FAILED, "a\nb\x1b[2J" + "é" * 900),), {})
    (failure,) = parse(payload(odd)).inspection.failures  # type: ignore[union-attr]
    assert failure.detail.isprintable()
    assert len(failure.detail) == 500
    hashes = tuple(
        Hash(name, bytes([255] * length), 100, f"{'v' * 60}{form}", frame)
        for name, length in EXPECTED.signals.items()
        for form in range(64)
        for frame in range(EXPECTED.max_frames)
    )
    full = Inspection(Media(1000, frames_total=4, frames_hashed=4), hashes, (), {})
    assert len(wire.answer_of(7, full, 1.0)) <= EXPECTED.max_bytes
    assert parse(payload(full)).inspection == full


def change(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def apply(record: dict[str, Any]) -> None:
        *above, last = path
        place: Any = record
        for key in above:
            place = place[key]
        place[last] = to

    return apply


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another request": change("request", to=8),
    "a request that equals": change("request", to=7.0),
    "another upload": change("media", "size_bytes", to=999),
    "a field more": change("verdict", to="allow"),
    "a field of media more": change("media", "path", to="/etc"),
    "media is a list": change("media", to=[]),
    "a negative width": change("media", "width", to=-1),
    "a wide width": change("media", "width", to=2**40),
    "a true height": change("media", "height", to=True),
    "an orientation of nine": change("media", "orientation", to=9),
    "a media type with a newline": change("media", "media_type", to="image/gif\n"),
    "a media type that is a list": change("media", "media_type", to=["image/gif"]),
    "a decoder that is not": change("media", "decoder", to="other"),
    "a decoder that is a list": change("media", "decoder", to=["pillow"]),
    "too many frames": change("media", "frames_hashed", to=5),
    "hashes are an object": change("hashes", to={}),
    "a hash is short": change("hashes", 0, 1, to="00" * 31),
    "a hash is long": change("hashes", 0, 1, to="00" * 33),
    "a hash has blanks": change("hashes", 0, 1, to="00 " * 21 + "0"),
    "a hash is not hex": change("hashes", 0, 1, to="zz" * 32),
    "a hash is a number": change("hashes", 0, 1, to=0),
    "a signal type that is not": change("hashes", 0, 0, to="md5"),
    "a signal type that is a list": change("hashes", 0, 0, to=["pdq"]),
    "a quality of 101": change("hashes", 0, 2, to=101),
    "a fraction of quality": change("hashes", 0, 2, to=1.5),
    "a variant with a control": change("hashes", 0, 3, to="\x1b[2J"),
    "a frame beyond": change("hashes", 0, 4, to=6),
    "a hash twice": change("hashes", 1, 3, to="original"),
    "a hash record is short": change("hashes", 0, to=["pdq"]),
    "a code that is not": change("failures", 0, 0, to="clean"),
    "a code that is a list": change("failures", 0, 0, to=["timeout"]),
    "a code of the host's": change("failures", 0, 0, to="overloaded"),
    "a detail of two lines": change("failures", 0, 1, to="a\nb"),
    "a long detail": change("failures", 0, 1, to="a" * 501),
    "a failure's frame is text": change("failures", 0, 2, to="1"),
    "timings are a list": change("timings_ms", to=[]),
    "a timing of text": change("timings_ms", "open", to="1"),
    "a timing below nothing": change("timings_ms", "open", to=-1.0),
    "a timing of ages": change("timings_ms", "open", to=1e300),
    "a timing too long for a float": change("timings_ms", "open", to=10**400),
    "an elapsed time too long for a float": change("elapsed_ms", to=10**400),
    "an endless timing": change("timings_ms", "open", to=float("inf")),
    "a timing that is no number": change("timings_ms", "open", to=float("nan")),
    "a stage of its own": change("timings_ms", "total", to=1.0),
    "a stage of control characters": change("timings_ms", "\x00", to=1.0),
    "no time": change("elapsed_ms", to=None),
    "too many hashes": change("hashes", to=[["pdq", "00" * 32, 1, f"v{i}", 0] for i in range(2 * 2 * 64 + 1)]),
    "too many failures": change("failures", to=[["truncated", "x", None]] * 500),
    "too many stages": change("timings_ms", to={f"s{i}": 1 for i in range(65)}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_not_believed(lie: str) -> None:
    record = payload()
    LIES[lie](record)
    with pytest.raises(wire.ProtocolError) as error:
        parse(record)
    assert "etc" not in str(error.value)


def test_nothing_hashed_and_nothing_said_is_not_clean() -> None:
    silent = Inspection(Media(1000, frames_total=1, frames_hashed=1), (), (), {})
    half = Inspection(Media(1000, frames_total=1, frames_hashed=1), INSPECTION.hashes[:1], (), {})
    for inspection in (silent, half):
        with pytest.raises(wire.ProtocolError, match="does not say why"):
            parse(payload(inspection))


@pytest.mark.parametrize(
    "message",
    [b"", b"null", b"[]", b"{", b"\xff\xfe{}", "é".encode(), b'{"request": NaN}', b"[" * 100_000, b"9" * 5000],
    ids=str,
)
def test_what_is_no_record_is_a_broken_protocol(message: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.parse_answer(message, 7, 1000, EXPECTED)
    with pytest.raises(wire.ProtocolError):
        wire.parse_hello(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.data())
def test_any_value_in_any_place_is_taken_soundly_or_refused(data: st.DataObject) -> None:
    record = payload()
    place: Any = record
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    try:
        answer = parse(record)
    except wire.ProtocolError:
        return
    assert answer.inspection is not None
    assert {item.signal_type for item in answer.inspection.hashes} <= EXPECTED.signals.keys()
    assert all(len(item.value) == EXPECTED.signals[item.signal_type] for item in answer.inspection.hashes)
    assert all(failure.detail.isprintable() for failure in answer.inspection.failures)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.parse_answer(message, 7, 1000, EXPECTED)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, wire.Inbox]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs, wire.Inbox(ours, 1000)


def test_a_message_may_come_in_pieces(ends: tuple[socket.socket, wire.Inbox]) -> None:
    theirs, inbox = ends
    for text in ({"a": 1}, {"b": "x" * 900}):
        framed = wire.frame(text)
        for start in range(0, len(framed), 7):
            assert inbox.receive() is None
            theirs.sendall(framed[start : start + 7])
        message = inbox.receive()
        assert message is not None
        assert json.loads(message) == text


def test_too_much_is_refused_before_it_is_gathered(ends: tuple[socket.socket, wire.Inbox]) -> None:
    theirs, inbox = ends
    theirs.sendall(struct.pack("<I", 1001))
    with pytest.raises(wire.ProtocolError, match="too long"):
        inbox.receive()


def test_two_answers_to_one_request_are_refused(ends: tuple[socket.socket, wire.Inbox]) -> None:
    theirs, inbox = ends
    theirs.sendall(wire.frame({}) * 2)
    with pytest.raises(wire.ProtocolError, match="more than was asked"):
        inbox.receive()


def test_a_worker_that_is_gone_is_told_apart_from_one_that_is_silent(ends: tuple[socket.socket, wire.Inbox]) -> None:
    theirs, inbox = ends
    theirs.sendall(wire.frame({})[:3])
    assert inbox.receive() is None
    theirs.close()
    with pytest.raises(EOFError):
        inbox.receive()


def test_a_greeting_says_what_is_in_force_or_what_failed() -> None:
    assert wire.parse_hello(b'{"layers": {}, "holes": ["a"]}') == {"layers": {}, "holes": ["a"]}
    assert wire.parse_hello(b'{"failed": "no"}') == {"failed": "no"}
    many = f'{{"layers": {{}}, "holes": {["a"] * 65}}}'.replace("'", '"').encode()
    for text in (b'{"layers": [], "holes": []}', b'{"layers": {}}', b'{"layers": {}, "holes": [1]}', many):
        with pytest.raises(wire.ProtocolError):
            wire.parse_hello(text)
    for text in (b'{"failed": 1}', b'{"failed": "a\\nb"}', b'{"layers": {}, "failed": ""}'):
        with pytest.raises(wire.ProtocolError):
            wire.parse_hello(text)
