"""The middleware, under uvicorn and in process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.cases import HostCases, serve
from tests.web.registry import HOSTS
from tests.web.wsgi import Server
from uploadguard.testing import media
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(HOSTS["starlette"].command, tmp_path_factory)


class TestMiddleware(HostCases):
    """A form."""

    def test_a_raw_body_is_one_file(self, server: Server) -> None:
        picture = unrelated_picture()
        reply = server.send("PUT", "/raw", picture, {"Content-Type": "image/jpeg"})
        assert reply.json == {"size": len(picture), "verdict": "allow", "start": picture[:4].hex()}
        assert server.send("PUT", "/raw", picture_bytes()).status == 422
        queued = server.send("POST", "/raw", media.truncated_jpeg(), {"Content-Type": "application/json"})
        assert queued.status == 202
        assert (server.held / queued.json["reference"]).read_bytes() == media.truncated_jpeg()

    def test_a_queued_upload_can_be_passed_to_the_application(self, server: Server) -> None:
        reply = server.post(("file", "a.jpg", variant_bytes("mirrored")), path="/passed")
        assert (reply.status, reply.json["files"][0][4]) == (200, "queue")
        assert server.post(("file", "a.jpg", picture_bytes()), path="/passed").status == 422

    def test_other_paths_are_left_alone(self, server: Server) -> None:
        assert server.post(("file", "a.jpg", picture_bytes()), path="/bare").status == 200
