"""What every asynchronous adapter must do, under its real server: subclassed in the modules of the frameworks."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.wsgi import BOUNDARY, FORM, MAX_BODY_BYTES, MAX_FILES, Server, ask, form, serving, write_config
from uploadguard.testing import media
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

__all__ = ["HostCases", "form", "open_files", "serve"]

SECRETS = ("made-up", "testpicture", "md5", "sha", "pdq", "match", "distance", "list", "reason", "truncated")


def serve(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of a module."""
    directory = tmp_path_factory.mktemp("host")
    with serving(command, write_config(directory), directory / "server") as server:
        yield server


def open_files(server: Server) -> list[str]:
    """The temporary files that the server holds."""
    pid = server.send("GET", "/alive").json["pid"]
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return [target for target in found if "(deleted)" in target]


def checks(server: Server) -> int:
    """How many checks the server has made."""
    return int(server.send("GET", "/alive").json["checks"])


class HostCases:
    """Forms to ``path``."""

    path = "/upload"
    logs_broken_forms = False

    def test_what_is_allowed_arrives_with_its_decision(self, server: Server) -> None:
        picture = unrelated_picture()
        reply = server.post(("text", None, "Grüße".encode()), ("file", "a.jpg", picture), path=self.path)
        assert reply.status == 200
        assert reply.json["files"] == [["file", "a.jpg", len(picture), picture[:8].hex(), "allow"]]
        assert reply.json["text"] == "Grüße"

    def test_a_listed_picture_is_blocked_without_a_word_of_why(self, server: Server) -> None:
        reply = server.post(("file", "a.jpg", picture_bytes()), path=self.path)
        assert reply.status == 422
        assert reply.headers["content-type"].startswith("application/json")
        assert set(reply.json) == {"detail", "reference"}
        assert reply.json["detail"] == "This upload was not accepted."
        assert not [word for word in SECRETS if word in reply.body.decode().lower()]

    @pytest.mark.parametrize("kind", ["near", "broken"])
    def test_what_is_queued_is_held_and_answered_the_same_whatever_the_reason(self, server: Server, kind: str) -> None:
        picture = variant_bytes("mirrored") if kind == "near" else media.truncated_jpeg()
        reply = server.post(("file", "a.jpg", picture), path=self.path)
        assert reply.status == 202
        assert set(reply.json) == {"detail", "reference"}
        assert reply.json["detail"] == "This upload was received and is being processed."
        assert not [word for word in SECRETS if word in reply.body.decode().lower()]
        assert (server.held / reply.json["reference"]).read_bytes() == picture

    def test_what_is_no_picture_passes_as_not_scanned(self, server: Server) -> None:
        text = media.text_named_jpg()
        reply = server.post(("file", "a.jpg", text), path=self.path)
        assert reply.status == 200
        assert reply.json["files"] == [["file", "a.jpg", len(text), text[:8].hex(), "not_scanned"]]

    def test_the_worst_of_several_files_answers_and_nothing_of_a_blocked_request_is_held(self, server: Server) -> None:
        held = set(server.held.iterdir())
        good, near, listed = unrelated_picture(), variant_bytes("mirrored"), picture_bytes()
        both = server.post(("file", "a", good), ("file", "b", good), path=self.path)
        assert [file[1] for file in both.json["files"]] == ["a", "b"]
        assert server.post(("file", "a", good), ("file", "b", near), path=self.path).status == 202
        assert len(set(server.held.iterdir()) - held) == 1
        held = set(server.held.iterdir())
        blocked = server.post(("file", "a", listed), ("file", "b", near), path=self.path)
        assert blocked.status == 422
        assert set(server.held.iterdir()) == held

    def test_a_file_field_left_empty_is_not_checked(self, server: Server) -> None:
        before = checks(server)
        reply = server.post(("file", "", b""), path=self.path)
        assert (reply.status, reply.json["files"]) == (200, [])
        assert checks(server) == before

    def test_a_body_that_says_it_is_too_large_is_refused(self, server: Server) -> None:
        before = checks(server)
        reply = server.post(("file", "a.jpg", bytes(MAX_BODY_BYTES)), path=self.path)
        assert (reply.status, reply.json) == (413, {"detail": "The upload is too large."})
        assert checks(server) == before

    def test_a_chunked_body_is_refused_when_it_gets_too_large(self, server: Server) -> None:
        before = checks(server)
        connection = server.connect()
        body = form(("file", "a.jpg", bytes(MAX_BODY_BYTES + 1)))
        pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
        connection.request("POST", self.path, pieces, FORM, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read()) == {"detail": "The upload is too large."}
        connection.close()
        assert checks(server) == before

    def test_too_many_files_are_refused(self, server: Server) -> None:
        small = media.flat_png()
        reply = server.post(*[("file", "a", small)] * (MAX_FILES + 1), path=self.path)
        assert reply.status == 413

    def test_chunked_bodies_and_kept_connections(self, server: Server) -> None:
        connection = server.connect()
        body = form(("file", "a.jpg", unrelated_picture()))
        for _ in range(2):
            pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
            connection.request("POST", self.path, pieces, FORM, encode_chunked=True)
            response = connection.getresponse()
            assert response.status == 200
            response.read()
            connected = connection.sock
            blocked = ask(connection, "POST", self.path, form(("file", "a.jpg", picture_bytes())), FORM)
            assert blocked.status == 422
            assert connection.sock is connected
        connection.close()

    def refuses(self, server: Server, body: bytes) -> bool:
        """Whether a broken body is answered so, with nothing decided and nothing logged."""
        before, logged = checks(server), server.log.read_text()
        reply = server.send("POST", self.path, body, FORM)
        assert checks(server) == before
        log = server.log.read_text()
        assert log == logged or (self.logs_broken_forms and "Traceback" not in log)
        return reply.status == 400

    def test_a_body_that_is_no_form_is_refused(self, server: Server) -> None:
        assert self.refuses(server, b"no form")

    def test_a_form_without_an_end_is_refused(self, server: Server) -> None:
        assert self.refuses(server, form(("file", "a.jpg", unrelated_picture()))[:-10])

    def test_a_file_that_is_encoded_is_refused(self, server: Server) -> None:
        head = 'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64'
        assert self.refuses(server, f"--{BOUNDARY}\r\n{head}\r\n\r\naGVsbG8=\r\n--{BOUNDARY}--\r\n".encode())

    def test_a_client_that_goes_away_leaves_nothing_behind(self, server: Server) -> None:
        before, logged = checks(server), server.log.read_text()
        body = form(("file", "a.jpg", unrelated_picture() + bytes(1_500_000)))
        for _ in range(3):
            connection: socket.socket = server.open(self.path, len(body), body[:-1000])
            ends = time.monotonic() + 20
            while not open_files(server):
                assert time.monotonic() < ends, "the upload never reached the disk"
                time.sleep(0.02)
            connection.close()
            while open_files(server):
                assert time.monotonic() < ends, "the temporary file is still there"
                time.sleep(0.02)
        assert checks(server) == before
        assert server.log.read_text() == logged
