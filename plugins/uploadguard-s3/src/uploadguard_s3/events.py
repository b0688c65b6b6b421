"""From bodies of event notifications to typed events: strict about what it relies on, open to what it does not know.

The shapes, one in another to a small depth: S3's own ``Records``, the test event, an EventBridge envelope, an SNS
envelope (its ``Message`` is JSON in a string), an SNS or SQS record as Lambda hands them over.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from uploadguard_s3.model import ObjectRef, S3Poison

__all__ = ["BadRecord", "EventError", "EventKind", "KeyEncoding", "S3Event", "parse_event", "parse_message"]

MAX_BODY_BYTES = 1_048_576
"""The largest message that SQS carries."""

MAX_RECORDS = 1_000
MAX_DEPTH = 4
MAX_KEY_BYTES = 1_024
_MAX_BUCKET_CHARACTERS = 255
_MAX_ID_CHARACTERS = 1_024
_MAX_NAME_CHARACTERS = 64

_NAME = re.compile(rf"[A-Za-z0-9 :_.*-]{{1,{_MAX_NAME_CHARACTERS}}}")
_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,64}")
_SIZE = re.compile(r"[0-9]{1,18}")
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2}|[\x21-\x24\x26-\x7e])*")
"""What URL encoding can give: escapes, and ASCII that is neither space nor control character."""

_AMBIGUOUS = re.compile(r"[+%]")
"""What makes a key another one when it is decoded."""


class EventError(S3Poison):
    """A body that is no event notification, now or ever."""


class KeyEncoding(enum.StrEnum):
    """How keys stand in event notifications."""

    AUTO = "auto"
    """As the event's source is known to do it: AWS, MinIO and their emulators encode, Ceph and EventBridge do not."""
    URL = "url"
    """Form encoding: ``+`` is a space, ``%2B`` a plus. A ``/`` may be encoded or not."""
    PLAIN = "plain"
    """The key itself."""


class EventKind(enum.StrEnum):
    """What an event says. Only ``CREATED`` asks for a check. Labels of metrics."""

    CREATED = "created"
    REMOVED = "removed"
    TAGGED = "tagged"
    TEST = "test"
    OTHER = "other"
    """An event that this version does not know, or has no use for."""


@dataclass(frozen=True, slots=True)
class S3Event:
    """One event. ``name`` is what its source calls it, without ``s3:``. ``ref`` is there for ``CREATED``.

    ``at`` is when the source says that it happened; None where it does not, or says it wrongly.
    """

    kind: EventKind
    name: str
    ref: ObjectRef | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One record of a message, the others of which may be sound. ``place`` counts from 0; ``reason`` holds no value."""

    place: int
    reason: str


Parsed: TypeAlias = S3Event | BadRecord
_Object: TypeAlias = Mapping[str, Any]


def parse_message(
    body: str | bytes, *, encoding: KeyEncoding = KeyEncoding.AUTO, max_body_bytes: int = MAX_BODY_BYTES
) -> tuple[Parsed, ...]:
    """The events in the body of a queue's message, in order.

    Raises :class:`EventError` where nothing in it can be relied on: too large, no JSON, no shape that is known.
    """
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if len(data) > max_body_bytes:
        raise EventError(f"the message has {len(data)} bytes, more than {max_body_bytes}")
    return parse_event(_json(data), encoding=encoding)


def parse_event(event: object, *, encoding: KeyEncoding = KeyEncoding.AUTO) -> tuple[Parsed, ...]:
    """As :func:`parse_message`, of what is decoded from JSON already: what Lambda is invoked with."""
    found: list[Parsed] = []
    for one in _unwrap(event, encoding, 0):
        if len(found) == MAX_RECORDS:
            raise EventError(f"the message has more than {MAX_RECORDS} records")
        found.append(BadRecord(len(found), one.reason) if isinstance(one, BadRecord) else one)
    return tuple(found)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise EventError("the message is no JSON text") from None


def _unwrap(event: object, encoding: KeyEncoding, depth: int) -> Iterator[Parsed]:
    if depth > MAX_DEPTH:
        raise EventError(f"envelopes in envelopes, more than {MAX_DEPTH} deep")
    if not isinstance(event, Mapping):
        raise EventError("the message is no JSON object")
    if isinstance(records := event.get("Records"), list):
        for record in records:
            yield from _record(record, encoding, depth)
    elif event.get("Event") == "s3:TestEvent":
        yield S3Event(EventKind.TEST, "TestEvent", at=_time(event.get("Time")))
    elif isinstance(event.get("detail-type"), str) and "detail" in event:
        yield _from_eventbridge(event, encoding)
    elif isinstance(event.get("Message"), str) and "TopicArn" in event:
        yield from _from_sns(event, encoding, depth)
    else:
        raise EventError("the message has the shape of no event notification that is known")


def _record(record: object, encoding: KeyEncoding, depth: int) -> Iterator[Parsed]:
    """What is in one of ``Records``; a fault stays that record's own."""
    try:
        if not isinstance(record, Mapping):
            raise EventError("a record is no JSON object")
        if isinstance(sns := record.get("Sns"), Mapping):
            yield from _from_sns(sns, encoding, depth)
        elif isinstance(body := record.get("body"), str) and record.get("eventSource") == "aws:sqs":
            yield from _unwrap(_json(body.encode("utf-8", "surrogatepass")), encoding, depth + 1)
        else:
            yield _from_s3(record, encoding)
    except EventError as error:
        yield BadRecord(0, error.reason)


def _from_sns(envelope: _Object, encoding: KeyEncoding, depth: int) -> Iterator[Parsed]:
    kind = envelope.get("Type")
    if kind != "Notification":
        # A subscription that wants to be confirmed, or has ended.
        yield S3Event(EventKind.OTHER, _name(f"sns:{kind}" if isinstance(kind, str) else ""))
        return
    message = envelope.get("Message")
    if not isinstance(message, str):
        raise EventError("a notification without a message")
    yield from _unwrap(_json(message.encode("utf-8", "surrogatepass")), encoding, depth + 1)


def _from_s3(record: _Object, encoding: KeyEncoding) -> S3Event:
    source, given = record.get("eventSource"), record.get("eventName")
    if not isinstance(source, str) or not isinstance(given, str):
        raise EventError("a record without source or name of its event")
    name = _name(given.removeprefix("s3:"))
    kind = _kind_of_name(name) if source.endswith(":s3") else EventKind.OTHER
    at = _time(record.get("eventTime"))
    if kind is not EventKind.CREATED:
        return S3Event(kind, name, at=at)
    s3 = _object(record, "s3")
    about = _object(s3, "object")
    ref = _ref(_object(s3, "bucket"), about, about.get("versionId"), about.get("eTag"), _decoder(source, encoding))
    return S3Event(kind, name, ref, at)


def _from_eventbridge(envelope: _Object, encoding: KeyEncoding) -> S3Event:
    name, at = _name(envelope["detail-type"]), _time(envelope.get("time"))
    kind = _EVENTBRIDGE.get(name, EventKind.OTHER) if envelope.get("source") == "aws.s3" else EventKind.OTHER
    if kind is not EventKind.CREATED:
        return S3Event(kind, name, at=at)
    detail = _object(envelope, "detail")
    about = _object(detail, "object")
    decoder = KeyEncoding.PLAIN if encoding is KeyEncoding.AUTO else encoding
    ref = _ref(_object(detail, "bucket"), about, about.get("version-id"), about.get("etag"), decoder)
    return S3Event(kind, name, ref, at)


_EVENTBRIDGE = {
    "Object Created": EventKind.CREATED,
    "Object Deleted": EventKind.REMOVED,
    "Object Tags Added": EventKind.TAGGED,
    "Object Tags Deleted": EventKind.TAGGED,
}

_PREFIXES = (
    ("ObjectCreated:", EventKind.CREATED),
    ("ObjectSynced:", EventKind.CREATED),  # Ceph: a copy from another zone arrived
    ("ObjectRemoved:", EventKind.REMOVED),
    ("LifecycleExpiration:", EventKind.REMOVED),
    ("ObjectLifecycle:Expiration:", EventKind.REMOVED),
    ("ObjectTagging:", EventKind.TAGGED),
)


def _kind_of_name(name: str) -> EventKind:
    return next((kind for prefix, kind in _PREFIXES if name.startswith(prefix)), EventKind.OTHER)


def _name(given: str) -> str:
    """An event's name if it is one: it may go into a log."""
    return given if _NAME.fullmatch(given) else "unnamed"


def _object(parent: _Object, name: str) -> _Object:
    found = parent.get(name)
    if not isinstance(found, Mapping):
        raise EventError(f"a record without {name}")
    return found


def _ref(bucket: _Object, about: _Object, version: object, etag: object, encoding: KeyEncoding | None) -> ObjectRef:
    return ObjectRef(
        bucket=_bucket(bucket.get("name")),
        key=_key(about.get("key"), encoding),
        version_id=_identifier(version, "version"),
        etag=_etag(etag),
        sequencer=_sequencer(about.get("sequencer")),
        size_bytes=_size(about.get("size")),
    )


def _decoder(source: str, encoding: KeyEncoding) -> KeyEncoding | None:
    """How keys of this source are encoded; None where that is not known."""
    return encoding if encoding is not KeyEncoding.AUTO else _SOURCES.get(source)


_SOURCES = {"aws:s3": KeyEncoding.URL, "minio:s3": KeyEncoding.URL, "ceph:s3": KeyEncoding.PLAIN}


def _key(given: object, encoding: KeyEncoding | None) -> str:
    if not isinstance(given, str) or not given:
        raise EventError("a record without a key")
    if len(given) > 3 * MAX_KEY_BYTES:
        raise EventError("a key that is too long")
    if encoding is None and _AMBIGUOUS.search(given):
        raise EventError("nothing tells how this source encodes its keys: set key_encoding")
    try:
        if encoding is KeyEncoding.URL:
            if not _ESCAPED.fullmatch(given):
                raise EventError("a key that is not encoded, from a source that encodes them: set key_encoding")
            key = unquote_to_bytes(given.replace("+", " ")).decode("utf-8")
        else:
            key = given
        size_bytes = len(key.encode("utf-8"))
    except UnicodeError:
        raise EventError("a key that is not UTF-8") from None
    if size_bytes > MAX_KEY_BYTES:
        raise EventError("a key that is too long")
    return key


def _bucket(given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_BUCKET_CHARACTERS or not given.isprintable():
        raise EventError("a record without a bucket's name")
    return given


def _identifier(given: object, what: str) -> str | None:
    """A version or an ETag. None or empty where there is none; anything else but a text cannot be relied on."""
    if given is None or given == "":
        return None
    if not isinstance(given, str) or len(given) > _MAX_ID_CHARACTERS or not given.isprintable():
        raise EventError(f"a record whose {what} is none")
    return given


def _etag(given: object) -> str | None:
    etag = _identifier(given, "ETag")
    return etag.strip('"') or None if etag is not None else None


def _sequencer(given: object) -> str | None:
    """The sequencer; one that orders nothing counts as none: what is there decides then."""
    return given.upper() if isinstance(given, str) and _SEQUENCER.fullmatch(given) else None


def _size(given: object) -> int | None:
    """A hint, so whatever is no size counts as none; Ceph writes it as a text."""
    if isinstance(given, str) and _SIZE.fullmatch(given):
        return int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 10**18 else None


def _time(given: object) -> datetime | None:
    if not isinstance(given, str) or len(given) > _MAX_NAME_CHARACTERS:
        return None
    try:
        at = datetime.fromisoformat(given)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
