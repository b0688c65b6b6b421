"""docs/recipes.md as it stands: behind the real nginx, from the real PHP; tusd and pict-rs as they say they ask."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.matchers import clean
from tests.service.conftest import MAX_BODY_BYTES, TOKEN, Running, reply_of, running, write_config
from uploadguard.testing.picture import picture_bytes, variant_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
QUEUED = variant_bytes("recompressed")


def block(language: str, number: int = 0) -> str:
    """One of the page's examples."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number]


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        assert "UPLOADGUARD_REQUIRE_RECIPES" not in os.environ, f"{program} is not installed"
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def process(port: int, *command: str | Path, **options: Any) -> Iterator[None]:
    """A server on a port, until the block is left."""
    running = subprocess.Popen([*command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        ends = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert running.poll() is None, "it ended at once"
                assert time.monotonic() < ends
                time.sleep(0.02)
        yield
    finally:
        running.terminate()
        running.wait(20)


def post(
    port: int, path: str, body: Any, headers: dict[str, str] | None = None, *, chunked: bool = False
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def form(data: bytes, name: str = "picture") -> tuple[bytes, dict[str, str]]:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@pytest.fixture(scope="module")
def port(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx with the page's configuration, before the service."""
    directory, port = tmp_path_factory.mktemp("nginx"), free_port()
    text = block("nginx").replace("unix:/run/uploadguard/service.sock", f"127.0.0.1:{service.port}")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("a-token-from-service.tokens", TOKEN)
    assert text.count(str(port)) == text.count(TOKEN) == 1
    places = "".join(
        f"{name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )  # fmt: skip
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {directory}/pid;\nerror_log {directory}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{text}\n}}\n"
    )
    with process(port, needed("nginx"), "-c", config, "-p", directory, "-e", directory / "error.log"):
        yield port


class TestNginx:
    @pytest.mark.parametrize(("data", "status"), [(clean(), 200), (QUEUED, 202), (picture_bytes(), 422)])
    def test_answers_come_through(self, port: int, data: bytes, status: int) -> None:
        assert post(port, "/v1/check?respond=answer", data)[0] == status

    def test_a_body_without_a_length_comes_through(self, port: int) -> None:
        data = picture_bytes()
        chunks = (data[at : at + 5000] for at in range(0, len(data), 5000))
        headers = {"Transfer-Encoding": "chunked"}
        assert post(port, "/v1/check?respond=answer", chunks, headers, chunked=True)[0] == 422

    def test_a_form_comes_through(self, port: int) -> None:
        body, headers = form(clean(), "file")
        assert post(port, "/v1/check?respond=answer", body, headers)[0] == 200

    def test_what_is_too_large_is_refused_by_the_service(self, port: int) -> None:
        status, body = post(port, "/v1/check", b"x" * (MAX_BODY_BYTES + 1))
        assert (status, b"nginx" in body) == (413, False)

    def test_a_client_that_leaves_frees_the_service(self, port: int, service: Running) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegun")
            service.wait(lambda: service.under_way == 1)
        service.wait(lambda: service.under_way == 0)

    def test_other_addresses_are_not_handed_on(self, port: int) -> None:
        assert post(port, "/metrics", b"")[0] in (403, 404, 405)


@pytest.fixture(scope="module")
def site(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """PHP's own server with the page's two files."""
    root, port = tmp_path_factory.mktemp("site"), free_port()
    library = block("php").replace(
        "CURLOPT_UNIX_SOCKET_PATH => '/run/uploadguard/service.sock',", f"CURLOPT_PORT => {service.port},"
    )
    token = f"$headers = ['Authorization: Bearer {TOKEN}', "
    (root / "uploadguard.php").write_text(library.replace("$headers = [", token))
    (root / "upload.php").write_text(block("php", 1))
    for name in ("held", "pictures"):
        (root / name).mkdir()
    options = ("-d", "upload_max_filesize=64M", "-d", "post_max_size=64M", "-d", f"error_log={root}/log")
    with process(port, needed("php"), *options, "-S", f"127.0.0.1:{port}", "-t", root, cwd=root):
        yield port, root


class TestPhp:
    @pytest.mark.parametrize(
        ("data", "status", "kept"),
        [(clean(), 201, "pictures"), (QUEUED, 202, "held"), (picture_bytes(), 422, None), (b"", 400, None)],
    )
    def test_each_verdict(self, site: tuple[int, Path], data: bytes, status: int, kept: str | None) -> None:
        port, root = site
        before = {name: len(list((root / name).iterdir())) for name in ("held", "pictures")}
        found, body = post(port, "/upload.php", *form(data))
        assert found == status
        assert b"hotline" not in body
        assert b"match" not in body
        after = {name: len(list((root / name).iterdir())) for name in ("held", "pictures")}
        assert {name for name in after if after[name] > before[name]} == ({kept} if kept else set())

    def test_what_is_too_large_is_refused(self, site: tuple[int, Path]) -> None:
        assert post(site[0], "/upload.php", *form(b"x" * (MAX_BODY_BYTES + 1)))[0] == 413

    def test_where_nothing_can_be_checked_nothing_is_taken(
        self, site: tuple[int, Path], service: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port, root = site
        kept = list((root / "pictures").iterdir())
        monkeypatch.setattr(type(service.guard), "ready", property(lambda guard: False))
        assert post(port, "/upload.php", *form(clean()))[0] == 503
        assert list((root / "pictures").iterdir()) == kept


class TestTusd:
    """The requests are those of tusd's own description of its hooks, version 2."""

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[Running]:
        (tmp_path / "data").mkdir()
        with running(write_config(tmp_path, serve={"tusd_dir": "data"})) as found:
            yield found

    def hook(self, service: Running, kind: str, data: bytes | None = None, query: str = "", **upload: Any) -> Any:
        path = service.directory / "data" / "5d892c228ec8d0451dfec588697e8930"
        if data is not None:
            path.write_bytes(data)
        event = {
            "Upload": {
                "ID": path.name,
                "Size": len(data or b""),
                "SizeIsDeferred": False,
                "Offset": len(data or b""),
                "MetaData": {"filename": "a.jpg", "filetype": "image/jpeg"},
                "IsPartial": False,
                "IsFinal": False,
                "PartialUploads": None,
                "Storage": {"Type": "filestore", "Path": str(path), "InfoPath": f"{path}.info"},
                **upload,
            },
            "HTTPRequest": {
                "Method": "PATCH",
                "URI": f"/files/{path.name}",
                "RemoteAddr": "192.0.2.7:59395",
                "Header": {"Host": ["localhost:8080"], "Tus-Resumable": ["1.0.0"]},
            },
        }
        headers = {"Content-Type": "application/json"}
        return service.send("POST", f"/v1/hooks/tusd{query}", json.dumps({"Type": kind, "Event": event}), headers)

    @pytest.mark.parametrize(("data", "goes_on"), [(clean(), True), (QUEUED, False), (picture_bytes(), False)])
    def test_tusd_finishes_only_what_may_go_on(self, service: Running, data: bytes, goes_on: bool) -> None:
        """tusd takes any status but 2xx for the hook's failure: an error for the client, and no post-finish."""
        reply = self.hook(service, "pre-finish", data)
        assert (200 <= reply.status < 300) is goes_on

    def test_or_says_it_to_the_client(self, service: Running) -> None:
        reply = self.hook(service, "pre-finish", picture_bytes(), "?refuse=respond")
        assert reply.status == 200
        assert reply.json["HTTPResponse"]["StatusCode"] == 422
        assert self.hook(service, "pre-finish", QUEUED, "?refuse=respond").json["HTTPResponse"]["StatusCode"] == 202

    def test_other_hooks_change_nothing_and_parts_are_refused(self, service: Running) -> None:
        assert self.hook(service, "post-finish", clean()).json == {}
        assert self.hook(service, "pre-create").json == {}
        assert self.hook(service, "pre-create", IsPartial=True).json["RejectUpload"] is True

    def test_a_file_that_is_elsewhere_is_not_read(self, service: Running) -> None:
        elsewhere = {"Type": "filestore", "Path": str(service.directory / "uploadguard.toml")}
        assert self.hook(service, "pre-finish", Storage=elsewhere).status == 403


class TestPictRs:
    """It posts the file with its media type, and goes on after any 2xx."""

    @pytest.mark.parametrize(("data", "goes_on"), [(clean(), True), (QUEUED, False), (picture_bytes(), False)])
    def test_only_what_may_be_served_gets_a_success(self, service: Running, data: bytes, goes_on: bool) -> None:
        url = re.search(r'^external_validation = "http://([^@]*)@[^/]*(/[^"]*)"$', block("toml"), re.MULTILINE)
        assert url is not None
        user = b64encode(url.group(1).replace("TOKEN", TOKEN).encode()).decode()
        headers = {"Content-Type": "image/jpeg", "Authorization": f"Basic {user}"}
        assert (200 <= service.send("POST", url.group(2), data, headers).status < 300) is goes_on

    def test_a_body_that_breaks_off_is_no_success(self, service: Running) -> None:
        connection = service.raw("POST /v1/check?respond=gate HTTP/1.1", "Content-Length: 1000", body=b"half")
        connection.shutdown(socket.SHUT_WR)
        # No answer is none that pict-rs could take for a success either.
        with contextlib.suppress(http.client.BadStatusLine, ConnectionError):
            assert reply_of(connection).status >= 400
