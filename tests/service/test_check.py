"""POST /v1/check: whole files, in bodies and in forms, and everything that may be wrong with them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.service.conftest import LIST_NAME, MAX_BODY_BYTES, Running, reply_of
from tests.web.wsgi import FORM, Part, form
from uploadguard.ledger.codec import from_record
from uploadguard.testing import media
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes
from uploadguard.testing.testlist import TEST_HASHES

QUEUED = "This upload was received and is being processed."
UPLOADS = {
    "allow": (unrelated_picture, "allow", None),
    "queue": (lambda: variant_bytes("mirrored"), "queue", {"status": 202, "detail": QUEUED}),
    "block": (picture_bytes, "block", {"status": 422, "detail": "This upload was not accepted."}),
    "not_scanned": (media.text_named_jpg, "allow", None),
}
SECRETS = (LIST_NAME, "testpicture", "distance", "fields", *(value.hex() for value in TEST_HASHES.values()))


@pytest.mark.parametrize("verdict", UPLOADS)
def test_a_decision_says_what_a_host_needs_and_nothing_that_it_should_not_hand_on(
    service: Running, verdict: str
) -> None:
    make, treat_as, answer = UPLOADS[verdict]
    reply = service.check(make())
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    found = reply.json
    assert (found["verdict"], found["treat_as"]) == (verdict, treat_as)
    if answer is None:
        assert found["answer"] is None
    else:
        assert found["answer"]["status"] == answer["status"]
        assert found["answer"]["body"] == {"detail": answer["detail"], "reference": found["reference"]}
    assert not [word for word in SECRETS if word in reply.body.decode()]
    assert not {"matches", "failures", "hashes"} & found.keys()


def test_an_encoded_body_is_refused(service: Running) -> None:
    packed = gzip.compress(picture_bytes())
    reply = service.send("POST", "/v1/check", packed, {"Content-Encoding": "gzip"})
    assert (reply.status, reply.code) == (400, "broken_body")


def test_in_full_it_says_everything(service: Running) -> None:
    found = service.check(variant_bytes("mirrored"), "?detail=full").json
    assert found["matches"][0]["list"] == LIST_NAME
    assert {one["signal_type"] for one in found["hashes"]} == {"md5", "sha1", "sha256", "pdq"}
    assert found["failures"] == []


@pytest.mark.parametrize(
    ("respond", "verdict", "status"),
    [
        ("answer", "allow", 200), ("answer", "not_scanned", 200), ("answer", "queue", 202), ("answer", "block", 422),
        ("gate", "allow", 200), ("gate", "not_scanned", 200), ("gate", "queue", 422), ("gate", "block", 422),
    ],
)  # fmt: skip
def test_a_host_without_logic_hands_on_status_and_body(
    service: Running, respond: str, verdict: str, status: int
) -> None:
    reply = service.check(UPLOADS[verdict][0](), f"?respond={respond}")
    assert reply.status == status
    assert set(reply.json) == ({"detail"} if status == 200 else {"detail", "reference"})


def test_what_the_host_knows_of_an_upload_is_kept(service: Running) -> None:
    reply = service.check(
        picture_bytes(), Filename="%C3%9Cbung%2525.jpg", Object_Id="obj 1", Uploader="somebody", Ip="192.0.2.7",
        Port="4711", Tenant="photos", Url="https://example.org/1", Uploaded_At="2026-01-02T03:04:05+01:00",
        Extra='{"email": "a@example.org"}',
    )  # fmt: skip
    context = recorded(service, reply.json["reference"]).context
    assert (context.filename, context.object_id, context.port) == ("Übung%25.jpg", "obj 1", 4711)
    assert (context.uploader, context.ip, context.tenant) == ("somebody", "192.0.2.7", "photos")
    assert context.uploaded_at.isoformat() == "2026-01-02T03:04:05+01:00"
    assert context.extra == {"email": "a@example.org"}


def test_a_form_brings_the_file_and_fields_before_it(service: Running) -> None:
    reply = post(
        service, ("uploader", None, b"somebody"), ("extra", None, b'{"a": 1}'), ("file", "a.jpg", picture_bytes())
    )
    assert reply.json["verdict"] == "block"
    context = recorded(service, reply.json["reference"]).context
    assert (context.filename, context.uploader, context.extra) == ("a.jpg", "somebody", {"a": 1})
    reply = post(service, ("filename", None, b"b.jpg"), ("any", "a.jpg", picture_bytes()))
    assert recorded(service, reply.json["reference"]).context.filename == "b.jpg"


PICTURE = unrelated_picture()
FILE: Part = ("file", "a.jpg", PICTURE)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "no_file"),
        ([("uploader", None, b"x")], "no_file"),
        ([("file", "a.jpg", b"")], "no_file"),
        ([("file", "", b"")], "no_file"),
        ([FILE, FILE], "several_files"),
        ([FILE, ("uploader", None, b"x")], "field_after_file"),
        ([("file", None, PICTURE), FILE], "bad_field"),
        ([("picture", None, b"x"), FILE], "unknown_field"),
        ([("port", None, b"x"), FILE], "bad_field"),
        ([("extra", None, b"[]"), FILE], "bad_field"),
        ([("extra", None, b"["), FILE], "bad_field"),
        ([("extra", None, b"[" * 100_000), FILE], "bad_field"),
        ([("uploaded_at", None, b"2026-01-02"), FILE], "bad_field"),
        ([("uploader", None, b"\xff"), FILE], "bad_field"),
        ([("uploader", None, b"x" * 8193), FILE], "bad_field"),
        ([(f"n{number}", None, b"") for number in range(17)], "unknown_field"),
    ],
)  # fmt: skip
def test_a_form_that_is_not_clear_is_refused(service: Running, parts: list[Part], code: str) -> None:
    reply = post(service, *parts)
    assert (reply.status, reply.code) == (400, code)


@pytest.mark.parametrize("cut", [3, 40, 1000])
def test_a_form_that_ends_early_is_refused(service: Running, cut: int) -> None:
    reply = service.send("POST", "/v1/check", form(FILE)[:-cut], FORM)
    assert (reply.status, reply.code) == (400, "broken_body")


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?respond=maybe", {}, "bad_option"),
        ("?detail=1", {}, "bad_option"),
        ("?respond=gate&respond=gate", {}, "bad_option"),
        ("?filename=x", {}, "bad_option"),
        ("", {"Filname": "x"}, "unknown_field"),
        ("", {"Filename": "%ff"}, "bad_field"),
        ("", {"Port": "65536"}, "bad_field"),
        ("", {"Port": "-1"}, "bad_field"),
        ("", {"Extra": "{"}, "bad_field"),
    ],
)
def test_a_request_that_is_not_clear_is_refused(
    service: Running, query: str, headers: dict[str, str], code: str
) -> None:
    reply = service.check(PICTURE, query, **headers)
    assert (reply.status, reply.code) == (400, code)


def test_an_empty_body_is_no_upload(service: Running) -> None:
    assert service.check(b"").code == "no_file"


def test_one_byte_too_many_is_told_before_the_body_is_read(service: Running) -> None:
    assert service.check(PICTURE.ljust(MAX_BODY_BYTES, b"\0")).status == 200
    reply = service.check(PICTURE.ljust(MAX_BODY_BYTES + 1, b"\0"))
    assert (reply.status, reply.code, reply.headers["connection"]) == (413, "too_large", "close")
    connection = service.raw("POST /v1/check HTTP/1.1", f"Content-Length: {10**19}", "Expect: 100-continue")
    assert reply_of(connection).status == 413


def test_a_body_without_a_length_is_counted_as_it_comes(service: Running) -> None:
    chunks = [b"x" * 100_000] * 20
    assert service.check(iter(chunks)).status == 200
    reply = service.check(iter([*chunks, b"x"]))
    assert (reply.status, reply.code) == (413, "too_large")
    assert service.check(iter([PICTURE[:1000], PICTURE[1000:]])).json["verdict"] == "allow"


def test_a_client_that_asks_first_is_told_to_go_on(service: Running) -> None:
    connection = service.raw("POST /v1/check HTTP/1.1", f"Content-Length: {len(PICTURE)}", "Expect: 100-continue")
    with connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(PICTURE)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(service: Running) -> None:
    with service.raw("POST /v1/check HTTP/1.1", "Content-Length: 100000", body=b"x" * 50_000):
        service.wait(lambda: service.under_way == 1)
    service.wait(lambda: service.under_way == 0)


def test_a_body_that_does_not_come_is_given_up(make_service: Callable[..., Running]) -> None:
    service = make_service(serve={"body_timeout_s": 0.2}, ledger=False)
    reply = reply_of(service.raw("POST /v1/check HTTP/1.1", "Content-Length: 1000", body=b"x"))
    assert (reply.status, reply.code) == (408, "body_timeout")


def test_where_there_is_no_room_it_is_said_before_the_body_is_read(make_service: Callable[..., Running]) -> None:
    service = make_service(serve={"max_uploads": 1}, web={"min_bytes_per_s": 0}, ledger=False)
    with service.raw("POST /v1/check HTTP/1.1", "Content-Length: 1000", body=b"x"):
        service.wait(lambda: service.under_way == 1)
        reply = service.check(PICTURE)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "busy", "1")
        connection = service.raw("POST /v1/check HTTP/1.1", "Content-Length: 1000", "Expect: 100-continue")
        assert reply_of(connection).status == 503
        relayed = service.check(PICTURE, "?respond=answer")
        assert (relayed.status, set(relayed.json)) == (503, {"detail"})
        assert service.send("GET", "/readyz").status == 200
    service.wait(lambda: service.under_way == 0)
    assert service.check(PICTURE).status == 200


def post(service: Running, *parts: Part) -> Any:
    return service.send("POST", "/v1/check", form(*parts), FORM)


def recorded(service: Running, reference: str) -> Any:
    assert service.database is not None
    with service.database.reading() as connection:
        row = connection.exec_driver_sql("SELECT record FROM decisions WHERE reference = ?", (reference,)).one()
    return from_record(json.loads(row.record))
