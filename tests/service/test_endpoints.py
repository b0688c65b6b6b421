"""Hashes, decisions, tusd's hooks, health, and the description of it all."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.service.conftest import LIST_NAME, Reply, Running, add_list
from uploadguard.config import Settings
from uploadguard.errors import NotRecordedError
from uploadguard.ledger.ledger import Ledger
from uploadguard.ledger.people import Person, Role
from uploadguard.plugins import Plugins
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes
from uploadguard.testing.testlist import TEST_HASHES
from uploadguard.web.service.openapi import document

MD5 = {"signal_type": "md5", "value": TEST_HASHES["md5"].hex()}
PDQ = {"signal_type": "pdq", "value": base64.b64encode(TEST_HASHES["pdq"]).decode(), "quality": 100}
UNKNOWN = {"signal_type": "sha1", "value": "5a" * 20}


def check_hash(service: Running, *hashes: Any, query: str = "", **more: Any) -> Reply:
    return service.send("POST", f"/v1/check-hash{query}", json.dumps({"hashes": hashes, **more}).encode())


@pytest.mark.parametrize(("item", "verdict"), [(MD5, "block"), (PDQ, "queue"), (UNKNOWN, "not_scanned")])
def test_hashes_are_decided_on_and_never_pass_for_an_inspection(
    service: Running, item: dict[str, Any], verdict: str
) -> None:
    reply = check_hash(service, item, context={"object_id": "obj-9", "port": 1, "filename": None})
    found = reply.json
    assert (reply.status, found["verdict"], found["reasons"][-1]) == (200, verdict, "content_unseen")
    assert LIST_NAME not in reply.body.decode()
    if verdict == "block":
        assert service.send("GET", f"/v1/decisions/{found['reference']}").json["object_id"] == "obj-9"
    assert check_hash(service, item, query="?respond=gate").status == (200 if verdict == "not_scanned" else 422)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"), (b"\xff", "bad_json"), (b"[]", "bad_json"), (b"[" * 100_000, "bad_json"),
        (b'{"hashes": [], "more": 1}', "bad_json"), (b"{}", "bad_hash"), (b'{"hashes": []}', "bad_hash"),
        (b'{"hashes": [1]}', "bad_hash"), (json.dumps({"hashes": [UNKNOWN] * 1025}).encode(), "bad_hash"),
        *(
            (json.dumps({"hashes": [{**PDQ, **change}]}).encode(), "bad_hash")
            for change in (
                {"value": "0"}, {"value": "zz!"}, {"value": 1}, {"value": "00"}, {"quality": None}, {"quality": 101},
                {"quality": True}, {"quality": "high"}, {"frame": -1}, {"variant": ""}, {"signal_type": "photodna"},
                {"signal_type": None}, {"more": 1},
            )
        ),
        (json.dumps({"hashes": [UNKNOWN], "context": []}).encode(), "bad_field"),
        (json.dumps({"hashes": [UNKNOWN], "context": {"port": True}}).encode(), "bad_field"),
        (json.dumps({"hashes": [UNKNOWN], "context": {"name": "x"}}).encode(), "unknown_field"),
    ],
)  # fmt: skip
def test_hashes_that_are_not_clear_are_refused_without_repeating_them(service: Running, body: bytes, code: str) -> None:
    reply = service.send("POST", "/v1/check-hash", body)
    assert (reply.status, reply.code) == (400, code)
    assert PDQ["value"] not in reply.body.decode()


def test_a_body_of_hashes_has_a_limit(service: Running) -> None:
    assert service.send("POST", "/v1/check-hash", b" " * ((1 << 20) + 1)).code == "too_large"


def test_a_decision_can_be_asked_for_with_the_state_of_its_case(service: Running) -> None:
    made = service.check(variant_bytes("mirrored"), Object_Id="obj-2").json
    path = f"/v1/decisions/{made['reference']}"
    found = service.send("GET", path)
    assert found.status == 200
    assert (found.json["verdict"], found.json["treat_as"], found.json["object_id"]) == ("queue", "queue", "obj-2")
    assert found.json["case"] == {"state": "open", "decided_at": None}
    assert LIST_NAME not in found.body.decode()
    assert service.send("GET", f"{path}?detail=full").json["matches"][0]["list"] == LIST_NAME

    settings = Settings.load(service.directory / "uploadguard.toml")
    ledger = Ledger.open(settings, Plugins(settings))
    with ledger.database.reading() as connection:
        case_id = connection.exec_driver_sql(
            "SELECT case_id FROM decisions WHERE reference = ?", (made["reference"],)
        ).scalar_one()
    ledger.cases.decide([case_id], "dismiss", Person("ann", frozenset(Role)), remember=False)
    ledger.close()
    assert service.send("GET", path).json["case"]["state"] == "dismissed"


@pytest.mark.parametrize(
    "reference", ["unknown-reference", "x", "x" * 300, "%2e%2e", "a/b", "%00%00%00%00%00%00%00%00"]
)
def test_a_decision_that_is_not_kept_is_not_found(service: Running, reference: str) -> None:
    reply = service.send("GET", f"/v1/decisions/{reference}")
    assert (reply.status, reply.code) == (404, "unknown_decision")


def test_a_plain_allow_is_not_kept(service: Running) -> None:
    made = service.check(unrelated_picture()).json
    assert service.send("GET", f"/v1/decisions/{made['reference']}").status == 404


def test_without_a_ledger_no_decision_is_found(make_service: Callable[..., Running]) -> None:
    assert make_service(ledger=False).send("GET", "/v1/decisions/abcdefgh").status == 404


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tusd")


@pytest.fixture
def hooked(make_service: Callable[..., Running], uploads: Path) -> Running:
    return make_service(serve={"tusd_dir": str(uploads)})


def hook(service: Running, path: str | Path, *, kind: str = "pre-finish", query: str = "", **upload: Any) -> Reply:
    event = {
        "Upload": {
            "ID": "5d89", "Size": 1, "IsPartial": False, "IsFinal": False, "MetaData": {"filename": "a.jpg"},
            "Storage": {"Type": "filestore", "Path": str(path)}, **upload,
        },
        "HTTPRequest": {"RemoteAddr": "[2001:db8::1]:4711"},
    }  # fmt: skip
    return service.send("POST", f"/v1/hooks/tusd{query}", json.dumps({"Type": kind, "Event": event}).encode())


def test_tusd_learns_what_may_go_on(hooked: Running, uploads: Path) -> None:
    (uploads / "good").write_bytes(unrelated_picture())
    (uploads / "listed").write_bytes(picture_bytes())
    reply = hook(hooked, uploads / "good")
    assert (reply.status, reply.json) == (200, {})
    assert reply.headers["content-type"] == "application/json"
    refused = hook(hooked, uploads / "listed")
    assert refused.status == 422, "the hook fails, so tusd calls no post-finish"
    shown = hook(hooked, uploads / "listed", query="?refuse=respond")
    assert shown.status == 200
    response = shown.json["HTTPResponse"]
    assert (response["StatusCode"], response["Header"]) == (422, {"Content-Type": "application/json"})
    reference = json.loads(response["Body"])["reference"]
    found = hooked.send("GET", f"/v1/decisions/{reference}?detail=full").json
    assert found["object_id"] == "5d89"
    assert (uploads / "listed").exists()


def test_tusd_gets_no_way_around_the_check(hooked: Running, uploads: Path, tmp_path: Path) -> None:
    for kind in ({"IsPartial": True}, {"IsFinal": True}):
        assert hook(hooked, uploads / "good", kind="pre-create", **kind).json["RejectUpload"] is True
        assert hook(hooked, uploads / "good", **kind).code == "partial_upload"
    assert hook(hooked, "", kind="pre-create").json == {}
    assert hook(hooked, "", kind="post-finish").json == {}
    (tmp_path / "outside").write_bytes(b"x")
    (uploads / "link").unlink(missing_ok=True)
    (uploads / "link").symlink_to(tmp_path / "outside")
    if not (uploads / "pipe").exists():
        os.mkfifo(uploads / "pipe")
    for path in ("/etc/passwd", tmp_path / "outside", uploads / "link", f"{uploads}/../outside"):
        assert hook(hooked, path).code in ("outside", "unreadable")
    (uploads / "circle").unlink(missing_ok=True)
    (uploads / "circle").symlink_to(uploads / "circle")
    for path in (uploads / "none", uploads, uploads / "pipe", uploads / "circle", "a\0b"):
        assert hook(hooked, path).code == "unreadable"
    assert hook(hooked, "x", Storage={"Type": "s3store", "Bucket": "b", "Key": "k"}).code == "bad_hook"
    assert hook(hooked, uploads / "good", query="?refuse=never").code == "bad_option"
    for body in (b"", b"{}", b"[]", b'{"Type": "pre-finish", "Event": {"Upload": null}}'):
        assert hooked.send("POST", "/v1/hooks/tusd", body).code == "bad_hook"


def test_without_its_directory_there_is_no_hook(service: Running) -> None:
    assert hook(service, "/etc/passwd").code == "hooks_off"


def test_an_empty_hash_set_answers_nothing_until_a_list_is_there(make_service: Callable[..., Running]) -> None:
    service = make_service(empty=True, ledger=False)
    ready = service.send("GET", "/readyz")
    assert (ready.status, ready.json["ready"], ready.json["checks"]["hash_set"]) == (503, False, "empty")
    reply = service.check(picture_bytes())
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "not_ready", "1")
    assert service.send("POST", "/v1/check-hash", b"{}").code == "not_ready"
    assert service.send("GET", "/livez").json == {"alive": True}
    add_list(service.directory / "hashset")
    service.wait(lambda: service.send("GET", "/readyz").status == 200)
    assert service.check(picture_bytes()).json["verdict"] == "block"


def test_a_stale_hash_set_is_not_ready_and_still_checks(
    make_service: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(hashset={"stale_after_h": 1.0}, ledger=False)
    later = (datetime.now(UTC) + timedelta(hours=2)).timestamp()
    monkeypatch.setattr(service.guard._freshness, "_clock", lambda: later)
    ready = service.send("GET", "/readyz")
    assert (ready.status, ready.json["checks"]["freshness"]) == (503, "stale")
    assert service.check(unrelated_picture()).json["reasons"] == ["hash_set_stale"]
    assert service.check(picture_bytes()).json["verdict"] == "block"


def test_decisions_that_cannot_be_kept_are_not_answered(
    make_service: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()

    def keep(*_: Any) -> None:
        raise NotRecordedError("neither the ledger nor its spool took it")

    monkeypatch.setattr(service.guard._keeper, "keep", keep)
    reply = service.check(picture_bytes())
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "unavailable", "1")
    assert check_hash(service, MD5).code == "unavailable"
    monkeypatch.setattr(type(service.guard._keeper), "refusing", True)
    assert service.check(picture_bytes()).code == "not_ready"
    assert service.send("GET", "/readyz").status == 503


def test_the_description_is_openapi() -> None:
    OpenAPIV31SpecValidator(document()).validate()


@pytest.fixture(scope="module")
def described(service: Running) -> dict[str, Any]:
    return service.send("GET", "/openapi.json").json  # type: ignore[no-any-return]


def test_the_answers_are_as_described(service: Running, described: dict[str, Any]) -> None:
    listed = variant_bytes("mirrored")
    made = service.check(listed).json
    for path, method, reply in [
        ("/v1/check", "post", service.check(listed)),
        ("/v1/check", "post", service.check(listed, "?detail=full")),
        ("/v1/check", "post", service.check(unrelated_picture())),
        ("/v1/check", "post", service.check(listed, "?respond=answer")),
        ("/v1/check", "post", service.check(listed, "?respond=gate")),
        ("/v1/check", "post", service.check(b"")),
        ("/v1/check-hash", "post", check_hash(service, UNKNOWN)),
        ("/v1/check-hash", "post", check_hash(service, MD5, query="?detail=full")),
        ("/v1/decisions/{reference}", "get", service.send("GET", f"/v1/decisions/{made['reference']}")),
        ("/v1/decisions/{reference}", "get", service.send("GET", "/v1/decisions/unknown-reference")),
        ("/livez", "get", service.send("GET", "/livez")),
        ("/readyz", "get", service.send("GET", "/readyz")),
        ("/v1/check", "post", service.send("POST", "/v1/check", b"x", {"Authorization": ""})),
    ]:
        responses = described["paths"][path][method]["responses"]
        schema = responses[str(reply.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(reply.json, {**schema, "components": described["components"]})
