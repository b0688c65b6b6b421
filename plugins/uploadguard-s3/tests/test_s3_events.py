"""Notification bodies: every shape that is known, keys in every dialect, and garbage that raises the one error only."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard_s3.events import (
    MAX_BODY_BYTES,
    BadRecord,
    EventError,
    EventKind,
    KeyEncoding,
    S3Event,
    parse_event,
    parse_message,
)
from uploadguard_s3.model import ObjectRef, S3Poison

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
SURE = "photos/holiday.jpg"
AWKWARD = "a+b c%2B/ü?.jpg"


def record(key: str, source: str = "aws:s3", name: str = "ObjectCreated:Put", **about: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-22T04:00:00.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": "uploads"}, "object": {"key": key, **about}},
    }


def eventbridge(key: str, detail_type: str = "Object Created", source: str = "aws.s3") -> dict[str, Any]:
    about = {"key": key, "size": 5, "etag": "e7a", "version-id": "v1", "sequencer": "00ab"}
    return {
        "version": "0",
        "detail-type": detail_type,
        "source": source,
        "time": "2026-11-22T04:00:00Z",
        "detail": {"version": "0", "bucket": {"name": "uploads"}, "object": about, "reason": "PutObject"},
    }


def sns(message: object) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:x:1:t", "Message": json.dumps(message)}


def parse(*records: object, **options: Any) -> tuple[S3Event | BadRecord, ...]:
    return parse_message(json.dumps({"Records": records}), **options)


def key_of(event: S3Event | BadRecord) -> str:
    assert isinstance(event, S3Event)
    assert event.ref is not None
    return event.ref.key


def test_a_record_of_s3_gives_all_that_it_says() -> None:
    about: dict[str, Any] = {"size": 5, "eTag": '"e7a"', "versionId": "v1", "sequencer": "00ab"}
    assert parse(record("a+b%2Bc%2Fd.jpg", **about)) == (
        S3Event(
            EventKind.CREATED,
            "ObjectCreated:Put",
            ObjectRef("uploads", "a b+c/d.jpg", "v1", "e7a", "00AB", 5),
            datetime(2026, 11, 22, 4, tzinfo=UTC),
        ),
    )


def test_what_is_empty_or_no_hint_counts_as_unknown() -> None:
    (event,) = parse(record(SURE, "ceph:s3", size="1024", eTag="", versionId="", sequencer="not hex"))
    assert isinstance(event, S3Event)
    assert event.ref == ObjectRef("uploads", SURE, size_bytes=1024)


@pytest.mark.parametrize("size", [-1, True, 1.5, "12a", 10**30, None, []])
def test_a_size_that_is_none_is_not_believed(size: object) -> None:
    (event,) = parse(record(SURE, size=size))
    assert isinstance(event, S3Event)
    assert event.ref == ObjectRef("uploads", SURE)


@pytest.mark.parametrize(
    ("source", "encoded"),
    [
        ("aws:s3", quote_plus(AWKWARD, safe="/")),
        ("aws:s3", quote_plus(AWKWARD)),
        ("minio:s3", quote_plus(AWKWARD)),
        ("aws:s3", quote(AWKWARD)),
        ("ceph:s3", AWKWARD),
    ],
)
def test_a_key_is_read_as_its_source_writes_it(source: str, encoded: str) -> None:
    assert [key_of(event) for event in parse(record(encoded, source))] == [AWKWARD]


def test_eventbridge_writes_keys_as_they_are() -> None:
    (event,) = parse_event(eventbridge(AWKWARD))
    assert isinstance(event, S3Event)
    assert event.ref == ObjectRef("uploads", AWKWARD, "v1", "e7a", "00AB", 5)
    assert event.name == "Object Created"


def test_the_setting_goes_before_the_source() -> None:
    assert key_of(parse(record("a+b%2B", "ceph:s3"), encoding=KeyEncoding.URL)[0]) == "a b+"
    assert key_of(parse(record("a+b%2B", "aws:s3"), encoding=KeyEncoding.PLAIN)[0]) == "a+b%2B"


def test_a_source_that_is_not_known_is_read_where_it_makes_no_difference() -> None:
    assert key_of(parse(record(SURE, "other:s3"))[0]) == SURE
    for key in ("a+b", "a%20b"):
        assert parse(record(key, "other:s3")) == (
            BadRecord(0, "nothing tells how this source encodes its keys: set key_encoding"),
        )
        assert key_of(parse(record(key, "other:s3"), encoding=KeyEncoding.PLAIN)[0]) == key


@pytest.mark.parametrize("key", ["a b", "ü", "a%2", "a%zz", "a\n", "%ff"])
def test_a_key_that_is_not_encoded_as_its_source_does_is_not_guessed(key: str) -> None:
    (bad,) = parse(record(key))
    assert isinstance(bad, BadRecord)


@given(KEYS)
def test_any_key_comes_back_from_every_dialect(key: str) -> None:
    if len(key.encode()) > 1024:
        return
    everywhere = (
        *parse(record(quote_plus(key)), record(quote_plus(key, safe="/")), record(quote(key, safe=""))),
        *parse(record(key, "ceph:s3")),
        *parse_event(eventbridge(key)),
        *parse_event(sns(eventbridge(key))),
    )
    assert [key_of(event) for event in everywhere] == [key] * 6


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:CompleteMultipartUpload", EventKind.CREATED),
        ("s3:ObjectCreated:Put", EventKind.CREATED),
        ("ObjectSynced:Create", EventKind.CREATED),
        ("ObjectRemoved:DeleteMarkerCreated", EventKind.REMOVED),
        ("LifecycleExpiration:Delete", EventKind.REMOVED),
        ("ObjectLifecycle:Expiration:Current", EventKind.REMOVED),
        ("ObjectTagging:Put", EventKind.TAGGED),
        ("ObjectRestore:Completed", EventKind.OTHER),
        ("TotallyNew:Thing", EventKind.OTHER),
    ],
)
def test_the_name_of_an_event_says_what_it_is(name: str, kind: EventKind) -> None:
    (event,) = parse(record(SURE, name=name))
    assert isinstance(event, S3Event)
    assert (event.kind, event.name, event.ref is not None) == (
        kind,
        name.removeprefix("s3:"),
        kind is EventKind.CREATED,
    )


@pytest.mark.parametrize(
    ("detail_type", "source", "kind"),
    [
        ("Object Deleted", "aws.s3", EventKind.REMOVED),
        ("Object Tags Added", "aws.s3", EventKind.TAGGED),
        ("Object Storage Class Changed", "aws.s3", EventKind.OTHER),
        ("Object Created", "my.app", EventKind.OTHER),
    ],
)
def test_other_events_of_eventbridge(detail_type: str, source: str, kind: EventKind) -> None:
    (event,) = parse_event(eventbridge(SURE, detail_type, source))
    assert isinstance(event, S3Event)
    assert (event.kind, event.ref) == (kind, None)


def test_an_events_name_that_is_none_is_not_repeated() -> None:
    (event,) = parse(record(SURE, name="\x1b[2J" + "x" * 100))
    assert event == S3Event(EventKind.OTHER, "unnamed", at=datetime(2026, 11, 22, 4, tzinfo=UTC))


def test_the_test_event() -> None:
    body = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-22T04:00:00Z", "Bucket": "uploads"}
    (event,) = parse_message(json.dumps(body))
    assert isinstance(event, S3Event)
    assert event.kind is EventKind.TEST
    assert parse_event(sns(body)) == (event,)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_envelopes_in_envelopes(depth: int) -> None:
    body: object = {"Records": [record("a+b")]}
    for _ in range(depth):
        body = sns(body)
    assert [key_of(event) for event in parse_event(body)] == ["a b"]


def test_envelopes_end_somewhere() -> None:
    body: object = {"Records": []}
    for _ in range(5):
        body = sns(body)
    with pytest.raises(EventError, match="envelopes in envelopes"):
        parse_event(body)


def test_what_lambda_is_invoked_with() -> None:
    inner = {"Records": [record("a+b")]}
    queued = {"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps(sns(inner))}
    told = {"EventSource": "aws:sns", "Sns": {"Type": "Notification", "Message": json.dumps(inner)}}
    assert [key_of(event) for event in parse_event({"Records": [queued, told, record("c")]})] == ["a b", "a b", "c"]


def test_a_subscription_that_wants_to_be_confirmed_is_another_event() -> None:
    (event,) = parse_event({"Type": "SubscriptionConfirmation", "TopicArn": "arn:x", "Message": "You have chosen"})
    assert event == S3Event(EventKind.OTHER, "sns:SubscriptionConfirmation")


def test_one_bad_record_leaves_the_others() -> None:
    found = parse(record("a"), 7, record("b%2"), record("c"), {"eventSource": "aws:s3"}, {"eventSource": "aws:sqs"})
    assert [isinstance(one, BadRecord) for one in found] == [False, True, True, False, True, True]
    assert [one.place for one in found if isinstance(one, BadRecord)] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    "change",
    [{"bucket": {}}, {"bucket": {"name": ""}}, {"bucket": {"name": "b\x00"}}, {"bucket": 7}, {"object": None}]
    + [{"object": {"key": key}} for key in ("", None, 7, "k" * 1025, "%41" * 1025, "x" * 10_000)]
    + [{"object": {"key": "k", "versionId": 7}}, {"object": {"key": "k", "eTag": "e" * 2000}}],
)
def test_a_record_without_what_must_be_there(change: dict[str, Any]) -> None:
    whole = record("k")
    whole["s3"] |= change
    (bad,) = parse(whole)
    assert isinstance(bad, BadRecord)


@pytest.mark.parametrize("body", ["", "hello", "7", "null", "[]", "{}", '"text"', "[" * 100_000, b"\xff\xfe\x00", "{"])
def test_garbage(body: str | bytes) -> None:
    with pytest.raises(EventError) as caught:
        parse_message(body)
    assert isinstance(caught.value, S3Poison)


def test_a_message_without_records_says_nothing() -> None:
    assert parse_message('{"Records": []}') == ()


def test_the_limits_are_inclusive() -> None:
    body = '{"Records": []}'.ljust(MAX_BODY_BYTES)
    assert parse_message(body) == ()
    with pytest.raises(EventError, match="bytes, more than"):
        parse_message(body + " ")
    many = {"Records": [record("k")] * 1000}
    assert len(parse_event(many)) == 1000
    many["Records"].append(record("k"))
    with pytest.raises(EventError, match="more than 1000 records"):
        parse_event(many)
    assert key_of(parse(record("k" * 1024))[0]) == "k" * 1024


WORDS = (
    "Records", "Event", "Type", "Message", "TopicArn", "Sns", "body", "eventSource", "eventName", "s3", "object",
    "bucket", "key", "name", "detail", "detail-type", "source", "size", "eventTime", "time",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["aws:s3", "Notification"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner),
    max_leaves=20,
)


@given(JSON | st.dictionaries(st.just("Records"), st.lists(JSON)))
def test_no_json_raises_anything_else(body: object) -> None:
    with suppress(EventError):
        assert all(isinstance(one, S3Event | BadRecord) for one in parse_message(json.dumps(body)))


@given(st.binary() | st.text(st.characters()))
def test_no_bytes_raise_anything_else(body: bytes | str) -> None:
    with pytest.raises(EventError):
        parse_message(body)


@given(st.data())
def test_a_body_that_was_altered_raises_nothing_else(data: st.DataObject) -> None:
    body = bytearray(json.dumps(sns({"Records": [record("a+b", size=3, eTag="e", versionId="v")]})).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EventError):
        parse_message(bytes(body))
