"""What host and worker say to each other, and what the host believes of it.

A request is 16 bytes, an answer is JSON behind its length. The upload itself lies in the arena, a memory file that the
host writes and the worker maps to read: a page with the cancel word, then the bytes. A worker that has been taken over
can say anything: the host takes an answer only where every field is of the right type, in range, and about what was
asked; it unpickles nothing and receives no descriptors.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from uploadguard.media.inspect import STAGES, Inspection
from uploadguard.models import Failure, FailureCode, Hash, Media

__all__ = [
    "CANCEL_WORD",
    "DATA_OFFSET",
    "MAX_HELLO_BYTES",
    "REQUEST",
    "Answer",
    "Expected",
    "Inbox",
    "ProtocolError",
    "answer_of",
    "frame",
    "parse_answer",
    "parse_hello",
    "stopped_answer",
]

CANCEL_WORD: Final = struct.Struct("<Q")
"""At the start of the arena: the request that is no longer wanted. Requests count from 1."""

DATA_OFFSET: Final = 4096
"""Where the upload begins in the arena: the first page is for the cancel word."""

REQUEST: Final = struct.Struct("<QQ")
"""The request's number and the upload's size in bytes."""

MAX_HELLO_BYTES: Final = 1 << 16
"""The longest greeting, and what the rest of an answer takes beside its hashes."""

_LENGTH: Final = struct.Struct("<I")
_RECEIVE_BYTES: Final = 1 << 16
_MAX_DETAIL: Final = 500
_MAX_FORMS: Final = 64
"""Forms of one picture that one signal type may hash: the picture, and its variants."""
_MAX_HOLES: Final = 64
_MAX_COUNT: Final = 2**31 - 1
_MAX_MS: Final = 1e9
_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_TEXT: Final = re.compile(r".{1,200}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")

_HOST_CODES: Final = frozenset(
    {
        FailureCode.TIMEOUT,
        FailureCode.DECODER_CRASHED,
        FailureCode.SANDBOX_VIOLATION,
        FailureCode.SANDBOX_FAILED,
        FailureCode.HASH_SET_STALE,
        FailureCode.OVERLOADED,
    }
)
"""What only the host can know."""


class ProtocolError(Exception):
    """A worker said what no sound worker says. The text names what is wrong and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer can hold.

    ``signals`` has each signal type's length in bytes, ``decoders`` the decoders' names; ``max_frames`` is how many
    frames may be hashed.
    """

    signals: Mapping[str, int]
    decoders: frozenset[str]
    max_frames: int

    @property
    def max_bytes(self) -> int:
        """The longest answer."""
        per_frame = sum(_MAX_FORMS * (2 * length + 200) for length in self.signals.values())
        return MAX_HELLO_BYTES + self.max_frames * (per_frame + (_MAX_DETAIL + 100) * len(self.signals))


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer. ``inspection`` is None where it stopped because it was told to. ``elapsed_ms`` is its time."""

    inspection: Inspection | None
    elapsed_ms: float


def frame(record: Mapping[str, Any]) -> bytes:
    """A message as it goes over the socket."""
    payload = json.dumps(record, allow_nan=False).encode("ascii")
    return _LENGTH.pack(len(payload)) + payload


def answer_of(number: int, inspection: Inspection, elapsed_ms: float) -> bytes:
    """The answer to a request, ready to be sent."""
    media = inspection.media
    return frame(
        {
            "request": number,
            "media": {item.name: getattr(media, item.name) for item in fields(Media)},
            "hashes": [
                [h.signal_type, bytes(h.value).hex(), None if h.quality is None else int(h.quality), h.variant, h.frame]
                for h in inspection.hashes
            ],
            "failures": [[f.code.value, _printable(f.detail), f.frame] for f in inspection.failures],
            "timings_ms": inspection.timings_ms,
            "elapsed_ms": elapsed_ms,
        }
    )


def stopped_answer(number: int, elapsed_ms: float) -> bytes:
    """The answer to a request that was cancelled."""
    return frame({"request": number, "elapsed_ms": elapsed_ms})


class Inbox:
    """The host's end of one worker's socket: gathers one message, never more than ``max_bytes``."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._received = bytearray()

    def receive(self) -> bytes | None:
        """What has arrived, without waiting: a whole message, or None as long as there is more to come.

        Raises ``EOFError`` when the worker is gone, and :class:`ProtocolError`.
        """
        while True:
            try:
                chunk = self._connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:  # reset: it died with our request unread
                raise EOFError from None
            if not chunk:
                raise EOFError
            self._received += chunk
            message = self._message()
            if message is not None:
                return message

    def _message(self) -> bytes | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > self._max_bytes:
            raise ProtocolError("its answer is too long")
        if len(self._received) < _LENGTH.size + length:
            return None
        if len(self._received) > _LENGTH.size + length:
            raise ProtocolError("it said more than was asked")
        message = bytes(self._received[_LENGTH.size :])
        self._received.clear()
        return message


def parse_hello(message: bytes) -> Mapping[str, Any]:
    """A worker's first words: ``{"layers": {...}, "holes": [...]}``, what is in force and the codecs that it refuses.

    ``{"failed": "..."}`` where it could not get ready.
    """
    record = _record(message)
    if set(record) == {"layers", "holes"} and isinstance(record["layers"], dict) and isinstance(record["holes"], list):
        _want(len(record["holes"]) <= _MAX_HOLES, "it refuses more codecs than there are")
        return {"layers": record["layers"], "holes": [_detail(hole) for hole in record["holes"]]}
    if set(record) == {"failed"}:
        return {"failed": _detail(record["failed"])}
    raise ProtocolError("its first words are not a greeting")


def parse_answer(message: bytes, number: int, size_bytes: int, expected: Expected) -> Answer:
    """The answer to request ``number``, about an upload of ``size_bytes``. Raises :class:`ProtocolError`."""
    record = _record(message)
    _want(record.get("request") == number and type(record["request"]) is int, "its answer is to another request")
    elapsed_ms = _milliseconds(record.get("elapsed_ms"))
    if set(record) == {"request", "elapsed_ms"}:
        return Answer(None, elapsed_ms)
    _want(
        set(record) == {"request", "media", "hashes", "failures", "timings_ms", "elapsed_ms"},
        "its answer has other fields",
    )
    media = _media(record["media"], expected)
    _want(media.size_bytes == size_bytes, "its answer is about another upload")
    hashes = _hashes(record["hashes"], media, expected)
    failures = _failures(record["failures"], expected)
    hashed = {item.signal_type for item in hashes}
    _want(bool(failures) or hashed == expected.signals.keys(), "it did not hash all there is, and does not say why")
    return Answer(Inspection(media, hashes, failures, _timings(record["timings_ms"], expected)), elapsed_ms)


def _record(message: bytes) -> dict[str, Any]:
    try:
        record = json.loads(message.decode("ascii"))
    except (ValueError, RecursionError):
        raise ProtocolError("its answer is not JSON") from None
    _want(isinstance(record, dict), "its answer is no object")
    return record  # type: ignore[no-any-return]


def _want(sound: bool, what: str) -> None:
    if not sound:
        raise ProtocolError(what)


def _count(value: object, what: str, *, low: int = 0, high: int = _MAX_COUNT) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"its {what} is no count, or out of range")
    return value


def _or_none(check: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    return lambda value, what: None if value is None else check(value, what)


def _between(low: int, high: int) -> Callable[[object, str], int]:
    return lambda value, what: _count(value, what, low=low, high=high)


def _matching(pattern: re.Pattern[str]) -> Callable[[object, str], str]:
    def check(value: object, what: str) -> str:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ProtocolError(f"its {what} is no name")
        return value

    return check


_MEDIA: Final[Mapping[str, Callable[[object, str], Any]]] = {
    "size_bytes": _between(0, 2**62),
    "media_type": _or_none(_matching(_MEDIA_TYPE)),
    "width": _or_none(_count),
    "height": _or_none(_count),
    "orientation": _between(1, 8),
    "scale": _between(1, 64),
    "decoder": _or_none(_matching(_TEXT)),
    "frames_total": _count,
    "frames_hashed": _count,
}
"""How each field of :class:`Media` is checked."""


def _media(record: object, expected: Expected) -> Media:
    if not isinstance(record, dict) or record.keys() != _MEDIA.keys():
        raise ProtocolError("its facts are not those of a medium")
    media = Media(**{name: check(record[name], name) for name, check in _MEDIA.items()})
    _want(media.decoder is None or media.decoder in expected.decoders, "it names a decoder that there is not")
    _want(media.frames_hashed <= expected.max_frames, "it hashed more frames than it may")
    return media


def _hashes(records: object, media: Media, expected: Expected) -> tuple[Hash, ...]:
    _want(isinstance(records, list), "its hashes are no list")
    assert isinstance(records, list)
    _want(len(records) <= media.frames_hashed * len(expected.signals) * _MAX_FORMS, "it gives too many hashes")
    hashes = []
    name = _matching(_NAME)
    for record in records:
        if not isinstance(record, list) or len(record) != 5:
            raise ProtocolError("a hash is no record")
        signal_type, value, quality, variant, index = record
        if not isinstance(signal_type, str) or signal_type not in expected.signals:
            raise ProtocolError("a hash is of no signal type in use")
        if not isinstance(value, str) or len(value) != 2 * expected.signals[signal_type]:
            raise ProtocolError("a hash is of the wrong length")
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raise ProtocolError("a hash is not hexadecimal") from None
        _want(len(raw) == expected.signals[signal_type], "a hash is of the wrong length")
        if quality is not None:
            _count(quality, "quality", high=100)
        _count(index, "frame", high=max(media.frames_total - 1, 0))
        hashes.append(Hash(signal_type, raw, quality, name(variant, "variant"), index))
    _want(
        len({(h.signal_type, h.variant, h.frame) for h in hashes}) == len(hashes), "it gives two hashes of one picture"
    )
    return tuple(hashes)


def _failures(records: object, expected: Expected) -> tuple[Failure, ...]:
    _want(isinstance(records, list), "its failures are no list")
    assert isinstance(records, list)
    _want(len(records) <= 64 + expected.max_frames * (1 + len(expected.signals)), "it gives too many failures")
    failures = []
    for record in records:
        if not isinstance(record, list) or len(record) != 3:
            raise ProtocolError("a failure is no record")
        code, detail, index = record
        try:
            known = FailureCode(code)
        except ValueError:
            raise ProtocolError("a failure has no known code") from None
        _want(known not in _HOST_CODES, "a failure has a code that only the host can give")
        if index is not None:
            _count(index, "frame")
        failures.append(Failure(known, _detail(detail), index))
    return tuple(failures)


def _timings(record: object, expected: Expected) -> dict[str, float]:
    """Stages become labels of metrics, of which there must not be more and more: only known ones are taken."""
    if not isinstance(record, dict) or not record.keys() <= {*STAGES, *expected.signals}:
        raise ProtocolError("its timings are not those of stages")
    return {stage: _milliseconds(ms) for stage, ms in record.items()}


def _milliseconds(value: object) -> float:
    # Compared, not converted: an integer of JSON may be too long for a float.
    if type(value) not in (int, float) or not 0 <= value <= _MAX_MS:  # type: ignore[operator]
        raise ProtocolError("its timings are no milliseconds")
    return float(value)  # type: ignore[arg-type]


def _detail(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_DETAIL or not value.isprintable():
        raise ProtocolError("a detail is no line of text")
    return value


def _printable(text: str) -> str:
    """``text`` as a detail may be: one line, printable, and not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_DETAIL])
