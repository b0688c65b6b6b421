"""``uploadguard serve`` as a process: where it listens, what it refuses to start with, and how it ends."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import LIST_NAME, TOKEN, write_config
from uploadguard.client import Client
from uploadguard.config import Settings
from uploadguard.errors import ConfigError, ServiceError
from uploadguard.ledger.database import open_database
from uploadguard.testing.picture import picture_bytes, unrelated_picture
from uploadguard.web.service.server import service_server


@contextmanager
def serving(config: Path, *options: str, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, once it says where it is; and that."""
    command = [sys.executable, "-W", "error", "-m", "uploadguard", "--config", str(config), "serve", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=config.parent)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("The service is at "), log.read_text()
        yield process, line.split()[-1]
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def test_several_processes_answer_at_one_address_and_add_their_metrics_up(tmp_path: Path) -> None:
    config = write_config(tmp_path, telemetry={"metrics": True})
    with (
        serving(config, "--port", "0", "--workers", "2", "--access-log", log=tmp_path / "log") as (process, url),
        Client(url, token=TOKEN, retries=20) as client,
    ):
        assert client.ready()
        made = [client.check(picture_bytes(), filename="a-secret-name") for _ in range(4)]
        assert all(client.decision(one.reference) for one in made)
        ends = time.monotonic() + 20
        while "uploadguard_ready 1.0" not in (metrics := scrape(url)):
            assert time.monotonic() < ends, "the second process is not there"
            time.sleep(0.1)
        assert 'uploadguard_service_requests_total{route="/v1/check",status="200"} 4.0' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    log = (tmp_path / "log").read_text()
    assert '"POST /v1/check HTTP/1.1" 200' in log
    for secret in (TOKEN, LIST_NAME, "a-secret-name", "Traceback"):
        assert secret not in log


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_it_from_being_ready_is_in_its_log(tmp_path: Path, workers: int) -> None:
    config = write_config(tmp_path, empty=True)
    log = tmp_path / "log"
    with serving(config, "--port", "0", "--workers", str(workers), log=log) as (process, url):
        ends = time.monotonic() + 20
        while "uploadguard lists add NAME FILE" not in log.read_text():
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        with Client(url, token=TOKEN, retries=20) as client:
            assert not client.ready()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def scrape(url: str) -> str:
    return httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False).text


def test_told_to_end_it_answers_what_is_under_way_and_has_kept_all_that_it_answered(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    picture = unrelated_picture()
    answered: list[str] = []

    def upload(url: str) -> None:
        with Client(url, token=TOKEN, retries=0) as client:
            try:
                while True:
                    answered.append(client.check(picture_bytes()).reference)
            except ServiceError:
                return

    with serving(config, "--port", "0", log=tmp_path / "log") as (process, url):
        threads = [threading.Thread(target=upload, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as slow:
            slow.sendall(head(len(picture)) + picture[:1000])
            while len(answered) < 20:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            slow.sendall(picture[1000:])
            assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(20) == 0
        for thread in threads:
            thread.join()
    assert "Traceback" not in (tmp_path / "log").read_text()
    database = open_database(Settings.load(config))
    with database.reading() as connection:
        kept = set(connection.exec_driver_sql("SELECT reference FROM decisions").scalars())
    database.close()
    assert set(answered) <= kept


def test_what_does_not_come_to_its_end_is_not_waited_for_longer_than_is_set(tmp_path: Path) -> None:
    config = write_config(tmp_path, ledger=False, serve={"shutdown_s": 1})
    path = tmp_path / "s.sock"
    with serving(config, "--socket", str(path), log=tmp_path / "log") as (process, where):
        assert where == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(socket=path, token=TOKEN) as client:
            assert client.ready()
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(where)
            slow.sendall(head(9))
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert slow.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert process.wait(20) == 0
    assert not path.exists()
    assert "Traceback" not in (tmp_path / "log").read_text()


def head(length: int) -> bytes:
    lines = [
        "POST /v1/check HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {TOKEN}",
        f"Content-Length: {length}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def settings(tmp_path: Path, **serve: Any) -> Settings:
    return Settings.load(write_config(tmp_path, ledger=False), serve={"token_file": None, **serve})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_an_address_that_others_reach_needs_tokens(tmp_path: Path, host: str) -> None:
    found = settings(tmp_path)
    with pytest.raises(ConfigError, match="must be tokens"), service_server(found, host=host, without_token=True):
        pass


def test_a_loopback_address_without_tokens_must_be_asked_for(tmp_path: Path) -> None:
    found = settings(tmp_path)
    with pytest.raises(ConfigError, match="--without-token"), service_server(found, port=0):
        pass
    with service_server(found, port=0, without_token=True) as server:
        assert server.where.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "python_multipart"])
def test_a_missing_extra_is_said_before_missing_tokens(tmp_path: Path, package: str) -> None:
    config = tmp_path / "uploadguard.toml"
    config.write_text('[hashset]\npath = "hashset"\n')
    code = f"import sys; sys.modules[{package!r}] = None; from uploadguard.cli import program; program()"
    command = [sys.executable, "-W", "error", "-c", code, "--config", str(config), "serve"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert package.replace("_", "-") in done.stderr.replace("_", "-")
    assert "uploadguard[serve]" in done.stderr
    assert "token" not in done.stderr


def test_a_dead_socket_is_replaced_and_a_live_one_left_alone(tmp_path: Path) -> None:
    found = settings(tmp_path, socket_mode="0660")
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with service_server(found, path=path) as server:
        assert server.where == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(ConfigError, match="listens on"), service_server(found, path=path):
            pass
    path.unlink()
    path.write_text("a file")
    with pytest.raises(ConfigError, match="no socket"), service_server(found, path=path):
        pass
    assert path.read_text() == "a file"
    with pytest.raises(ConfigError, match=r"serve\.socket"), service_server(found, path=tmp_path / "none" / "s.sock"):
        pass


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match="cannot listen"),
            service_server(settings(tmp_path), port=port, without_token=True),
        ):
            pass
