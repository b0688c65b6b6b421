"""The Django adapter without a server: handler, middleware, validator, storage, system checks."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.test import AsyncClient, Client, override_settings

from tests.faults.host import Host
from tests.web.apps import django_app
from tests.web.wsgi import FORM, form, write_config
from uploadguard import Context, Guard, NotReadyError, NotRecordedError, UploadRefused
from uploadguard.testing import picture
from uploadguard.web.django import (
    UploadguardMiddleware,
    close_guard,
    get_guard,
    validate_upload,
)

FINE = picture.unrelated_picture()
LISTED = picture.picture_bytes()
MIRRORED = picture.variant_bytes("mirrored")
MULTIPART = FORM["Content-Type"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module", autouse=True)
def guard(config: Path) -> Iterator[None]:
    with override_settings(UPLOADGUARD={"CONFIG": config}):
        yield
    close_guard()


def upload_file(data: bytes, name: str = "cat.jpg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data, content_type="image/jpeg")


def post(*parts: Any, path: str = "/upload", **options: Any) -> Any:
    return Client(**options).post(path, form(*parts), content_type=MULTIPART)


@pytest.fixture
def checks_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One word for each decision: how it was made."""
    made: list[str] = []
    guard = get_guard()
    check, finish = guard.check, guard._finish
    monkeypatch.setattr(guard, "check", lambda *args, **more: made.append("check") or check(*args, **more))
    monkeypatch.setattr(guard, "_finish", lambda *args: made.append("stream") or finish(*args))
    return made


class TestRequests:
    def test_a_file_is_digested_while_it_comes_and_checked_once(self, checks_made: list[str]) -> None:
        assert post(("picture", "a.jpg", FINE), ("picture", "b.jpg", FINE)).status_code == 200
        assert checks_made == ["stream", "stream"]

    def test_a_large_file_is_checked_from_where_it_was_put(
        self, checks_made: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uploadguard.web.django.handlers.DIGESTED_AS_IT_ARRIVES_BYTES", len(FINE) - 1)
        assert post(("picture", "a.jpg", FINE)).json()["files"][0][2:] == [len(FINE), FINE[:8].hex(), "allow"]
        assert post(("picture", "a.jpg", LISTED + FINE)).status_code == 202
        assert checks_made == ["check", "check"]

    @override_settings(FILE_UPLOAD_HANDLERS=django_app.HANDLERS[1:])
    def test_without_the_handler_the_middleware_checks(self, checks_made: list[str]) -> None:
        assert post(("picture", "a.jpg", LISTED)).status_code == 422
        assert checks_made == ["check"]

    @override_settings(MIDDLEWARE=[])
    def test_without_the_middleware_the_decorator_checks(self) -> None:
        assert post(("picture", "a.jpg", LISTED), path="/raw").status_code == 422
        assert post(("picture", "a.jpg", LISTED)).status_code == 200  # nothing asked for an answer

    def test_a_view_can_be_left_alone(self, checks_made: list[str]) -> None:
        assert post(("picture", "a.jpg", LISTED), path="/bare").json() == {"sizes": [len(LISTED)]}
        assert checks_made == []

    def test_csrf_comes_first_and_finds_its_token_in_the_form(self) -> None:
        client = Client(enforce_csrf_checks=True)
        assert client.post("/form", form(("picture", "a.jpg", LISTED)), content_type=MULTIPART).status_code == 403
        token = "t" * 32
        client.cookies["csrftoken"] = token
        parts = ("csrfmiddlewaretoken", None, token.encode()), ("picture", "a.jpg", LISTED)
        assert client.post("/form", form(*parts), content_type=MULTIPART).status_code == 422
        fine = client.post("/form", form(parts[0], ("picture", "a.jpg", FINE)), content_type=MULTIPART)
        assert fine.json()["files"][0][-1] == "allow"

    def test_an_unread_body_is_told_of_although_its_token_was_not_read_either(self, config: Path) -> None:
        client = Client(enforce_csrf_checks=True)
        client.cookies["csrftoken"] = "t" * 32
        with override_settings(UPLOADGUARD={"CONFIG": config, "OVERRIDES": {"web": {"max_body_bytes": 1000}}}):
            answer = client.post("/form", form(("picture", "a.jpg", FINE)), content_type=MULTIPART)
        assert answer.status_code == 413

    def test_where_there_is_no_room_the_body_is_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Guard, "max_at_once", 0)
        close_guard()
        body = io.BytesIO(form(("picture", "a.jpg", FINE)))
        answer = Client().generic("POST", "/upload", body.getvalue(), content_type=MULTIPART, **{"wsgi.input": body})
        assert (answer.status_code, answer["Retry-After"], body.tell()) == (503, "2", 0)
        monkeypatch.undo()
        close_guard()

    def test_a_place_is_free_again_when_the_form_is_parsed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Guard, "max_at_once", 1)
        close_guard()
        for body in (FINE, LISTED, MIRRORED, FINE):
            assert post(("picture", "a.jpg", body)).status_code != 503
        assert Client().post("/upload", form(("p", "a.jpg", FINE))[:-30], content_type=MULTIPART).status_code == 400
        assert post(("picture", "a.jpg", FINE)).status_code == 200
        monkeypatch.undo()
        close_guard()

    @pytest.mark.parametrize("error", [NotReadyError("no hash set"), NotRecordedError("no room")])
    @pytest.mark.parametrize("place", ["inspect", "_finish"])
    def test_what_cannot_be_checked_is_refused_for_now(
        self, error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(get_guard(), place, mock.Mock(side_effect=error))
        answer = post(("picture", "a.jpg", FINE), ("picture", "b.jpg", FINE))
        assert (answer.status_code, answer["Retry-After"]) == (503, "2")
        assert b"hash set" not in answer.content
        # Without the middleware the view runs, and has no file.
        with override_settings(MIDDLEWARE=[]):
            assert post(("picture", "a.jpg", FINE)).json()["files"] == []

    def test_a_request_that_brings_nothing_needs_no_hash_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Guard, "ready", False)
        assert Client().get("/upload").status_code == 200
        assert (
            Client().post("/async", {"text": "x"}, content_type="application/x-www-form-urlencoded").status_code == 200
        )
        assert post(("picture", "a.jpg", FINE)).status_code == 503
        assert Client().put("/raw", FINE, content_type="image/jpeg").status_code == 503

    def test_a_large_body_is_checked_from_where_it_was_put(
        self, checks_made: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uploadguard.web.django.uploads.DIGESTED_AS_IT_ARRIVES_BYTES", len(FINE) - 1)
        assert Client().put("/raw", FINE, content_type="image/jpeg").json()["size"] == len(FINE)
        assert Client().put("/raw", LISTED, content_type="image/jpeg").status_code == 422
        assert checks_made == ["check", "stream"]

    def test_settings_of_the_host(self, config: Path) -> None:
        seen: list[Any] = []

        def context(request: Any, filename: str | None) -> Context:
            seen.append((request.path, filename))
            return Context(uploader="someone")

        def shape(decision: Any, answer: Any) -> Any:
            return type(answer)(418, b"no", "text/plain", {"X-Reference": decision.reference})

        table = {"CONFIG": config, "CONTEXT": context, "SHAPE": shape, "QUEUE": "pass"}
        with override_settings(UPLOADGUARD=table):
            answer = post(("picture", "a.jpg", LISTED))
            assert (answer.status_code, answer.content, answer["Content-Type"]) == (418, b"no", "text/plain")
            assert answer["X-Reference"]
            assert post(("picture", "b.jpg", MIRRORED)).json()["files"][0][-1] == "queue"
        assert seen == [("/upload", "a.jpg"), ("/upload", "b.jpg")]

    def test_a_host_that_cannot_hold_has_not_received(self, config: Path) -> None:
        def hold(decision: Any, file: Any) -> None:
            raise OSError("disk full")

        with override_settings(UPLOADGUARD={"CONFIG": config, "HOLD": hold}), pytest.raises(OSError, match="disk full"):
            post(("picture", "a.jpg", MIRRORED))

    def test_what_a_view_itself_finds_is_answered_the_same(self) -> None:
        middleware = UploadguardMiddleware(lambda request: None)
        refused = UploadRefused(get_guard().check(LISTED))
        assert middleware.process_exception(None, refused).status_code == 422
        assert middleware.process_exception(None, NotRecordedError("no room")).status_code == 503
        assert middleware.process_exception(None, KeyError("other")) is None

    def test_under_asgi(self) -> None:
        async def go() -> list[int]:
            bodies = FINE, LISTED, MIRRORED
            return [
                (await AsyncClient().generic("POST", path, form(("p", "a.jpg", data)), MULTIPART)).status_code
                for path in ("/upload", "/async")
                for data in bodies
            ]

        assert asyncio.run(go()) == [200, 422, 202, 200, 422, 202]

    def test_no_file_stays_open(self) -> None:
        before = Host()
        assert post(("picture", "a.jpg", LISTED), ("picture", "b.jpg", FINE)).status_code == 422
        assert not before.left_over(wait_s=1.0)


class PictureForm(forms.Form):
    picture = forms.FileField(validators=[validate_upload])


class TestValidator:
    @pytest.mark.parametrize(("data", "valid"), [(FINE, True), (LISTED, False), (MIRRORED, False)])
    def test_a_form_refuses_with_one_sentence(self, data: bytes, valid: bool) -> None:
        bound = PictureForm({}, {"picture": upload_file(data)})
        assert bound.is_valid() is valid
        if valid:
            assert bound.cleaned_data["picture"].read() == data
            assert bound.cleaned_data["picture"].uploadguard.allowed
        else:
            assert bound.errors == {"picture": ["This file was not accepted."]}
            assert bound.errors.as_data()["picture"][0].code == "upload_refused"

    def test_no_file_is_checked_twice(self, checks_made: list[str]) -> None:
        file = upload_file(FINE)
        validate_upload(file)
        validate_upload(file)
        assert checks_made == ["check"]
        file.file, file.size = io.BytesIO(LISTED), len(LISTED)  # somebody put another picture into it
        with pytest.raises(ValidationError):
            validate_upload(file)

    def test_a_queued_file_is_held_once_or_passes(self, config: Path) -> None:
        held: list[bytes] = []
        table = {"CONFIG": config, "HOLD": lambda decision, file: held.append(file.read())}
        file = upload_file(MIRRORED)
        with override_settings(UPLOADGUARD=table):
            for _ in range(2):
                with pytest.raises(ValidationError):
                    validate_upload(file)
        assert held == [MIRRORED]
        with override_settings(UPLOADGUARD={**table, "QUEUE": "pass"}):
            validate_upload(file)

    def test_not_now_is_said_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(get_guard(), "check", mock.Mock(side_effect=NotReadyError("no hash set")))
        with pytest.raises(ValidationError, match="try again") as caught:
            validate_upload(upload_file(FINE))
        assert caught.value.code == "upload_unchecked"

    def test_a_models_field_checks_what_is_new_and_leaves_what_is_stored(
        self, tmp_path: Path, checks_made: list[str]
    ) -> None:
        class Picture(models.Model):
            file = models.FileField(validators=[validate_upload], storage=FileSystemStorage(tmp_path))

            class Meta:
                app_label = "uploadguard"

        with pytest.raises(ValidationError):
            Picture(file=upload_file(LISTED)).full_clean()
        Picture(file=upload_file(FINE)).full_clean()
        Picture(file="stored.jpg").full_clean()
        assert checks_made == ["check", "check"]

    def test_it_can_stand_in_a_migration(self) -> None:
        text, imports = MigrationWriter.serialize(validate_upload)
        assert text == "uploadguard.web.django.validators.validate_upload"
        assert imports == {"import uploadguard.web.django.validators"}
