"""Whole forms and single parts, under aiohttp's own server."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import BodyPartReader, web
from aiohttp.test_utils import TestClient, TestServer

from tests.web.cases import HostCases, serve
from tests.web.registry import HOSTS
from tests.web.wsgi import BOUNDARY, FORM, Server
from uploadguard import Guard
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes
from uploadguard.web.aiohttp import check_part


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(HOSTS["aiohttp"].command, tmp_path_factory)


class TestWholeForms(HostCases):
    """``check_form``."""

    def test_a_raw_body_is_one_file(self, server: Server) -> None:
        picture = unrelated_picture()
        reply = server.send("PUT", "/raw", picture, {"Content-Type": "image/jpeg"})
        assert reply.json == {"size": len(picture), "verdict": "allow", "start": picture[:4].hex()}
        assert server.send("PUT", "/raw", picture_bytes()).status == 422
        strange = "image/\u65e5".encode().decode("latin-1")
        assert server.send("PUT", "/raw", picture_bytes(), {"Content-Type": strange}).status == 422

    @pytest.mark.parametrize(("coding", "status"), [("gzip", 422), ("x-gzip", 400), ("gzip, gzip", 400)])
    def test_a_body_that_aiohttp_does_not_decode_is_refused(self, server: Server, coding: str, status: int) -> None:
        body = gzip.compress(picture_bytes())
        assert server.send("PUT", "/raw", body, {"Content-Encoding": coding}).status == status

    def test_a_queued_upload_can_be_passed_to_the_handler(self, server: Server) -> None:
        reply = server.post(("file", "a.jpg", variant_bytes("mirrored")), path="/passed")
        assert (reply.status, reply.json["files"][0][4]) == (200, "queue")


class TestParts(HostCases):
    """``check_part``: the worst of several files is the first that may not go on."""

    path = "/parts"

    def test_a_body_that_is_no_form_is_refused(self, server: Server) -> None:
        """That is for whoever asks aiohttp for the parts."""
        assert server.send("POST", self.path, b"no form", FORM).status == 500

    @pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Content-Transfer-Encoding: base64"])
    def test_a_part_with_an_encoding_is_refused(self, server: Server, header: str) -> None:
        """A handler could have aiohttp decode it, and would get another file than the one that was checked."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n{header}\r\n\r\n'
        body = head.encode() + b"data" + f"\r\n--{BOUNDARY}--\r\n".encode()
        assert server.send("POST", self.path, body, FORM).status == 400


def test_the_parts_of_a_body_have_its_time_together(guard: Guard) -> None:
    """Parts without a byte are not counted, and would hold a place as long as they come."""

    async def add(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            async with check_part(part, guard, request, body_timeout_s=0.2):
                pass
        return web.Response()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename=""\r\n\r\n'.encode()
            await asyncio.sleep(0.05)
            yield b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()

    async def send() -> int:
        app = web.Application()
        app.router.add_post("/", add)
        async with TestClient(TestServer(app)) as client, client.post("/", data=parts(), headers=FORM) as response:
            return response.status

    assert asyncio.run(send()) == 408
