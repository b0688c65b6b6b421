"""The Flask adapter without a server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import flask
import pytest

from tests.faults.host import Host
from tests.web.apps import flask_app
from tests.web.wsgi import FORM, form, quick_start, write_config
from uploadguard import ConfigError, Context, Guard, NotReadyError, NotRecordedError
from uploadguard.testing import picture
from uploadguard.web import flask as adapter
from uploadguard.web.flask import Uploadguard

FINE = picture.unrelated_picture()
LISTED = picture.picture_bytes()
MIRRORED = picture.variant_bytes("mirrored")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("flask"))


@pytest.fixture(scope="module")
def app(config: Path) -> Iterator[flask.Flask]:
    made = flask_app.create_app(UPLOADGUARD_CONFIG=config)
    yield made
    flask_app.uploads.close(made)


@pytest.fixture
def guard(app: flask.Flask) -> Guard:
    with app.app_context():
        return flask_app.uploads.guard


def post(app: flask.Flask, *parts: Any, path: str = "/upload") -> Any:
    return app.test_client().post(path, data=form(*parts), headers=FORM)


@pytest.fixture
def checks_made(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One word for each decision: how it was made."""
    made: list[str] = []
    check, finish = guard.check, guard._finish
    monkeypatch.setattr(guard, "check", lambda *args, **more: made.append("check") or check(*args, **more))
    monkeypatch.setattr(guard, "_finish", lambda *args: made.append("stream") or finish(*args))
    return made


def test_files_are_digested_while_they_come_and_checked_once(app: flask.Flask, checks_made: list[str]) -> None:
    files = post(app, ("p", "a.jpg", FINE), ("q", "b.jpg", FINE), ("text", None, b"x"), ("r", "", b"")).json["files"]
    assert [(file[0], file[-1]) for file in files] == [("p", "allow"), ("q", "allow")]
    assert checks_made == ["stream", "stream"]


def test_a_large_file_is_checked_from_where_it_was_put(
    app: flask.Flask, checks_made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "DIGESTED_AS_IT_ARRIVES_BYTES", len(FINE) - 1)
    assert post(app, ("p", "a.jpg", FINE)).json["files"][0][2:] == [len(FINE), FINE[:8].hex(), "allow"]
    assert post(app, ("p", "a.jpg", LISTED)).status_code == 422
    assert checks_made == ["check", "stream"]


def test_a_part_without_a_name_but_with_bytes_is_checked(app: flask.Flask) -> None:
    assert post(app, ("p", "", LISTED)).status_code == 422


def test_a_form_that_somebody_parsed_before_is_checked_all_the_same(config: Path, checks_made: list[str]) -> None:
    app = flask_app.create_app(UPLOADGUARD_CONFIG=config)

    @app.before_request
    def look_for_a_token() -> None:
        flask.request.form.get("csrf_token")

    assert post(app, ("p", "a.jpg", LISTED)).status_code == 422
    assert post(app, ("p", "", b""), ("q", "a.jpg", FINE)).json["files"][0][0] == "q"
    assert post(app, *[("p", "a.jpg", b"x")] * 4).status_code == 413
    flask_app.uploads.close(app)


def test_the_applications_own_lower_limit_stays(config: Path) -> None:
    app = flask_app.create_app(UPLOADGUARD_CONFIG=config, MAX_CONTENT_LENGTH=1000)
    reply = post(app, ("p", "a.jpg", FINE))
    assert (reply.status_code, reply.json) == (413, {"detail": "The upload is too large."})
    flask_app.uploads.close(app)


@pytest.mark.parametrize("error", [NotReadyError("no hash set"), NotRecordedError("no room")])
@pytest.mark.parametrize("place", ["inspect", "_finish"])
def test_what_cannot_be_checked_is_refused_for_now(
    app: flask.Flask, guard: Guard, error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, place, mock.Mock(side_effect=error))
    for reply in (post(app, ("p", "a.jpg", FINE)), app.test_client().put("/raw", data=FINE)):
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
        assert b"hash set" not in reply.data


def test_a_request_that_brings_nothing_needs_no_hash_set(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "ready", False)
    assert app.test_client().post("/upload", data={"text": "x"}).json["files"] == []
    assert app.test_client().put("/raw", data=FINE).status_code == 503


def test_where_there_is_no_room_the_body_is_not_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "max_at_once", 0)
    app = flask_app.create_app(UPLOADGUARD_CONFIG=config)
    body = io.BytesIO(form(("p", "a.jpg", FINE)))
    reply = app.test_client().post("/upload", headers=FORM, input_stream=body, content_length=len(body.getvalue()))
    assert (reply.status_code, body.tell()) == (503, 0)
    flask_app.uploads.close(app)


def test_the_hosts_own_functions(config: Path) -> None:
    seen: list[Any] = []

    def context(request: flask.Request, filename: str | None) -> Context:
        seen.append((request.path, filename))
        return Context(uploader="someone")

    def shape(decision: Any, answer: Any) -> Any:
        return type(answer)(418, b"no", "text/plain", {"X-Reference": decision.reference})

    with Guard.open(config) as guard:
        app = flask.Flask("host")
        uploads = Uploadguard(app, guard=guard, context=context, shape=shape, queue="pass")

        @app.post("/")
        @uploads.check_uploads
        def view() -> dict[str, Any]:
            assert uploads.guard is guard
            return {"verdict": flask.g.uploadguard["p"].verdict.label, "others": "q" in flask.request.files}

        reply = post(app, ("p", "a.jpg", LISTED), path="/")
        assert (reply.status_code, reply.data, reply.mimetype) == (418, b"no", "text/plain")
        assert reply.headers["X-Reference"]
        assert post(app, ("p", "b.jpg", MIRRORED), path="/").json == {"verdict": "queue", "others": False}
        assert seen == [("/", "a.jpg"), ("/", "b.jpg")]
        uploads.close(app)
        assert guard.check(FINE).allowed  # the host's own to close


@pytest.mark.parametrize("function", ["context", "hold"])
def test_a_fault_of_the_hosts_own_functions_is_not_taken_for_the_uploaders(config: Path, function: str) -> None:
    def fail(*_args: Any) -> Any:
        raise ValueError("the host's fault")

    app = flask.Flask("host")
    app.testing = True
    app.config["UPLOADGUARD_CONFIG"] = config
    own: dict[str, Any] = {function: fail}
    uploads = Uploadguard(app, **own)
    app.add_url_rule("/", view_func=uploads.check_uploads(lambda: "never"), methods=["POST"])
    with pytest.raises(ValueError, match="the host's fault"):
        post(app, ("p", "a.jpg", MIRRORED), path="/")
    uploads.close(app)


def test_an_assembled_file_is_answered_as_any_other(config: Path, tmp_path: Path) -> None:
    app = flask.Flask("host")
    uploads = Uploadguard()
    app.config["UPLOADGUARD_CONFIG"] = config
    uploads.init_app(app)

    @app.put("/parts/<int:offset>")
    def part(offset: int) -> str:
        with (tmp_path / "whole").open("ab") as file:
            file.write(flask.request.get_data())
        return ""

    @app.post("/complete")
    def complete() -> str:
        uploads.guard.check(tmp_path / "whole").raise_for_verdict()
        return "kept"

    client = app.test_client()
    for data, status in ((LISTED, 422), (MIRRORED, 202), (FINE, 200)):
        for offset in range(0, len(data), 20_000):
            assert client.put(f"/parts/{offset}", data=data[offset : offset + 20_000]).status_code == 200
        assert client.post("/complete").status_code == status
        (tmp_path / "whole").unlink()
    with mock.patch.object(Guard, "check", side_effect=NotReadyError("no hash set")):
        assert client.post("/complete").status_code == 503
    uploads.close(app)


def test_no_file_stays_open(app: flask.Flask) -> None:
    big = FINE + bytes(600_000)
    post(app, ("p", "a.jpg", FINE))
    before = Host()
    assert post(app, ("p", "a.jpg", big), ("q", "a.jpg", LISTED)).status_code == 422
    assert app.test_client().post("/upload", data=form(("p", "a.jpg", big))[:-40], headers=FORM).status_code == 400
    assert app.test_client().put("/raw", data=big).status_code in (200, 202)
    assert not before.left_over(wait_s=1.0)


def test_an_application_that_was_not_told_says_so() -> None:
    app = flask.Flask("host")
    with app.app_context(), pytest.raises(ConfigError, match="init_app"):
        _ = Uploadguard().guard


def test_a_field_without_a_decision_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        _ = adapter.CheckedUploads(())["picture"]


def test_the_quick_start_does_what_it_says(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploadguard.toml").write_bytes(config.read_bytes())
    monkeypatch.chdir(tmp_path)
    host: dict[str, Any] = {"__name__": "host"}
    exec(quick_start("Flask"), host)
    assert post(host["app"], ("picture", "a.jpg", FINE), path="/pictures").text == "a.jpg: allow\n"
    assert post(host["app"], ("picture", "a.jpg", LISTED), path="/pictures").status_code == 422
    host["uploads"].close(host["app"])
