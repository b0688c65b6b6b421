"""The sandbox under the servers that hosts run: gunicorn, uvicorn, Celery, a function that is frozen, plain scripts."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.host import Host
from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import picture, testlist

pytestmark = pytest.mark.sandboxed

ROOT = Path(__file__).parents[2]
PICTURE = picture.unrelated_picture()
CUT = PICTURE[: len(PICTURE) // 2]
LISTED = picture.variant_bytes("recompressed")


@pytest.fixture(scope="module")
def hash_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("hosts") / "set"
    HashSet.create(directory).add_list("test", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    return directory


def descendants(pid: int) -> set[int]:
    """All processes below one, zombies left out."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found: set[int] = set()
    left = [pid]
    while left:
        below = children.get(left.pop(), [])
        found.update(below)
        left.extend(below)
    return found


def wait_until(true: Callable[[], object], what: str, wait_s: float = 60.0) -> None:
    ends = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def upload(port: int, data: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=data, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.load(response))


def is_up(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture
def server(hash_set: Path, tmp_path: Path) -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts a server; ends it, and sees that nothing of it is left."""
    started: list[subprocess.Popen[bytes]] = []
    log = (tmp_path / "log").open("wb")

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "HASHSET": str(hash_set), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
        started.append(process)
        return process

    yield start
    below = set().union(*(descendants(process.pid) for process in started))
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("it did not end") from None
    log.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "workers outlived their host")


def test_gunicorn_prefork_with_the_guard_opened_before_the_fork(
    server: Callable[[list[str]], subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    command = ["gunicorn", "--preload", "--workers=2", f"--bind=127.0.0.1:{port}", "tests.sandbox.hosts_app:wsgi"]
    process = server([*command, "--timeout=60"])
    wait_until(lambda: is_up(port) and len(descendants(process.pid)) >= 2, "gunicorn did not start")
    pids = set()
    for _ in range(40):
        answer = upload(port, PICTURE)
        assert answer["verdict"] == "allow", answer
        pids.add(answer["pid"])
        if len(pids) == 2:
            break
    assert upload(port, LISTED)["verdict"] == "queue"
    assert upload(port, CUT)["failures"] == ["truncated"]
    os.kill(pids.pop(), signal.SIGKILL)
    wait_until(lambda: upload(port, PICTURE)["verdict"] == "allow", "no answers after a worker of gunicorn's died")


def test_uvicorn_with_several_workers(server: Callable[[list[str]], subprocess.Popen[bytes]]) -> None:
    port = free_port()
    process = server(["uvicorn", "--workers=2", f"--port={port}", "tests.sandbox.hosts_app:asgi"])
    wait_until(lambda: is_up(port) and len(descendants(process.pid)) >= 2, "uvicorn did not start")
    wait_until(lambda: upload(port, PICTURE)["verdict"] == "allow", "no answer")
    assert upload(port, LISTED)["verdict"] == "queue"
    assert upload(port, CUT)["failures"] == ["truncated"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_celery(
    server: Callable[[list[str]], subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER", str(tmp_path))
    server(["celery", "-A", "tests.sandbox.hosts_celery", "worker", "--concurrency=2", "--pool=prefork"])
    (tmp_path / "picture").write_bytes(PICTURE)
    (tmp_path / "listed").write_bytes(LISTED)
    client = (
        "import sys; from tests.sandbox.hosts_celery import check; "
        "print(*[check.delay(path).get(timeout=60) for path in sys.argv[1:]])"
    )
    environment = {**os.environ, "HASHSET": "unused", "PYTHONPATH": str(ROOT)}
    paths = [str(tmp_path / name) for name in ("picture", "listed", "picture")]
    answers = subprocess.run(
        [sys.executable, "-c", client, *paths], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert answers.stdout.split() == ["allow", "queue", "allow"]


_FUNCTION = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.sandbox.hosts_app import lambda_handler
for line in sys.stdin:
    print(lambda_handler({"path": line.strip()}, None)["verdict"], flush=True)
"""


def test_a_function_that_is_frozen_between_calls(hash_set: Path, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(PICTURE)
    process = subprocess.Popen(
        [sys.executable, "-c", _FUNCTION, str(ROOT)],
        env={**os.environ, "HASHSET": str(hash_set)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for _ in range(2):
            process.stdin.write(f"{tmp_path / 'picture'}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "allow\n"
            frozen = {process.pid, *descendants(process.pid)}
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.5)  # longer than the deadline of a check
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        below = descendants(process.pid)
        process.stdin.close()
    assert process.returncode == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "workers outlived the function")


_SCRIPT = """
import sys
from uploadguard import Guard
guard = Guard.open(hashset=sys.argv[1])
print(guard.check(sys.argv[2]).verdict)
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_plain_script_that_closes_nothing_leaves_nothing(hash_set: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "picture").write_bytes(PICTURE)
    script = _SCRIPT + ("import os; os.kill(os.getpid(), 9)" if how == "is killed" else "")
    before = descendants(1)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-u", "-c", script, str(hash_set), str(tmp_path / "picture")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == (-9 if how == "is killed" else 0), result.stderr
    assert result.stdout == "allow\n"
    assert result.stderr == ""

    def sandboxed() -> set[int]:
        new = set()
        for pid in descendants(1) - before:
            try:
                if b"uploadguard.sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    new.add(pid)
            except OSError:
                continue
        return new

    wait_until(lambda: not sandboxed(), "a worker outlived its host")


def _check(hash_set: Path) -> str:
    with Guard.open(hashset=hash_set) as guard:
        return guard.check(PICTURE).verdict.label


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_of_multiprocessing(hash_set: Path, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:  # daemonic, as Celery's are
        assert pool.map(_check, [hash_set] * 2) == ["allow", "allow"]


def test_the_same_guard_before_and_after_a_fork(hash_set: Path) -> None:
    before = Host()
    with Guard.open(hashset=hash_set) as guard:
        assert guard.check(PICTURE).verdict.label == "allow"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if guard.check(PICTURE).verdict.label == "allow" else 1
                guard.close()
            finally:
                os._exit(code)
        assert guard.check(PICTURE).verdict.label == "allow"
        assert os.waitpid(pid, 0)[1] == 0
        assert guard.check(PICTURE).verdict.label == "allow", "the child closed its own workers only"
    assert before.left_over() == []
