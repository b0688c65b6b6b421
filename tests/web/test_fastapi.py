"""The dependency, under uvicorn: with routes that read forms checked, and with FastAPI's own reading."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.web.cases import HostCases, form, open_files, serve
from tests.web.registry import HOSTS
from tests.web.wsgi import Server
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(HOSTS["fastapi"].command, tmp_path_factory)


class TestCheckedRoute(HostCases):
    """Read and checked as it arrives."""

    prefix = ""

    def test_one_file_is_required_or_not(self, server: Server) -> None:
        good = ("file", "a.jpg", unrelated_picture())
        assert server.post(good, path=f"{self.prefix}/one").json["files"][0][4] == "allow"
        assert server.post(("text", None, b"x"), path=f"{self.prefix}/one").status == 422
        assert server.post(("file", "", b""), path=f"{self.prefix}/one").status == 422
        assert server.post(("file", "", b""), path=f"{self.prefix}/optional").json["files"] == []
        assert server.post(("text", None, b"x"), path=f"{self.prefix}/optional").json["files"] == []
        assert server.post(good, path=f"{self.prefix}/optional").json["files"][0][4] == "allow"

    def test_files_of_other_fields_are_checked_too(self, server: Server) -> None:
        reply = server.post(
            ("file", "a", unrelated_picture()), ("other", "b", picture_bytes()), path=f"{self.prefix}/one"
        )
        assert reply.status == 422
        assert "reference" in reply.json

    def test_a_queued_upload_can_be_passed_to_the_endpoint(self, server: Server) -> None:
        reply = server.post(("file", "a.jpg", variant_bytes("mirrored")), path=f"{self.prefix}/passed")
        assert (reply.status, reply.json["files"][0][4]) == (200, "queue")
        assert server.post(("file", "a.jpg", picture_bytes()), path=f"{self.prefix}/passed").status == 422

    def test_the_file_lives_until_background_tasks_are_done(self, server: Server) -> None:
        picture = unrelated_picture() + bytes(1_500_000)
        stored = server.held / "later"
        stored.unlink(missing_ok=True)
        assert server.post(("file", "a.jpg", picture), path=f"{self.prefix}/later").json == {"verdict": "allow"}
        ends = time.monotonic() + 20
        while not stored.exists() or stored.read_bytes() != picture or open_files(server):
            assert time.monotonic() < ends
            time.sleep(0.02)

    def test_the_schema_shows_the_file(self, server: Server) -> None:
        schema = server.send("GET", "/openapi.json").json
        content = schema["paths"][f"{self.prefix}/one"]["post"]["requestBody"]["content"]["multipart/form-data"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        model = schema["components"]["schemas"][name]
        assert model["required"] == ["file"]
        assert model["properties"]["file"]["type"] == "string"
        assert model["properties"]["file"]["description"] == "The picture."


class TestOwnReader(TestCheckedRoute):
    """Read by FastAPI, and checked then."""

    path = "/plain/upload"
    prefix = "/plain"
    logs_broken_forms = True  # the parser does, in a line

    def test_a_form_without_an_end_is_refused(self, server: Server) -> None:
        """FastAPI takes it, without the file that has no end."""
        assert not self.refuses(server, form(("file", "a.jpg", picture_bytes()))[:-10])
