"""Everything that a decoder in an attacker's hands might try, tried: free, and in a process that locked itself down."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.children import USERS, finish, start, start_locked
from tests.sandbox.malice import ACTS, Outcome

_ACT = """
try:
    decoder.open(BytesSource(make_file({act!r}, {argument!r})), MEDIA_TYPE, DecodeOptions())
except BaseException as error:
    print(type(error).__name__, flush=True)
else:
    print("escaped", flush=True)
"""
_PREPARE = """
import os
from tests.sandbox.malice import MEDIA_TYPE, MaliciousDecoder, make_file
from uploadguard.media.base import DecodeOptions
from uploadguard.media.source import BytesSource
decoder = MaliciousDecoder()
print("started", flush=True)
"""

ENDS = tuple(name for name, act in ACTS.items() if act.outcome is not Outcome.HANGS)
HANGS = tuple(name for name, act in ACTS.items() if act.outcome is Outcome.HANGS)
# Where these succeed, nothing comes back that could say so, or the act only fails in its own way.
SILENT = {"exec", "abort", "segfault", "exit", "babble", "fall_silent"}


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What acts need as their argument, each real and within reach of a process that is not locked down."""
    file = tmp_path / "file"
    file.write_bytes(b"contents" * 1000)
    name = f"uploadguard-{os.getpid()}-{id(tmp_path)}"
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        named.bind(str(tmp_path / "socket"))
        abstract.bind("\0" + name)
        named.listen()
        abstract.listen()
        yield {
            "": "",
            "path": str(file),
            "folder": str(tmp_path),
            "port": str(listener.getsockname()[1]),
            "socket": str(tmp_path / "socket"),
            "name": name,
            "pid": str(victim.pid),
        }
    victim.kill()
    victim.communicate()


def _act(name: str, targets: dict[str, str]) -> str:
    return _ACT.format(act=name, argument=targets[ACTS[name].needs])


@pytest.mark.parametrize("name", [name for name in ENDS if name not in SILENT])
def test_free_the_act_succeeds(name: str, targets: dict[str, str]) -> None:
    status, printed, errors = finish(start(_PREPARE + _act(name, targets)))

    assert (status, printed.splitlines()[1:]) == (0, ["escaped"]), errors


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", ENDS)
def test_locked_down_the_act_is_contained(name: str, user: str, targets: dict[str, str]) -> None:
    status, printed, errors = finish(start_locked(_act(name, targets), before=_PREPARE, user=user))

    outcome = ACTS[name].outcome
    lines = printed.splitlines()[1:]
    if outcome is Outcome.REFUSED:
        assert (status, lines) == (0, ["PermissionError"]), errors
    elif outcome is Outcome.NO_MEMORY:
        assert (status, lines) in [(0, ["MemoryError"]), (0, ["OSError"])], errors
    elif outcome is Outcome.BOUNDED:
        assert (status, lines) == (0, ["RuntimeError"]), errors
    elif outcome is Outcome.KILLED:
        assert (status, lines) == (-signal.SIGSYS, []), errors
    else:
        assert lines == [], errors
        assert status in (0, -signal.SIGABRT, -signal.SIGSEGV)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", HANGS)
def test_only_a_kill_ends_what_hangs(name: str, user: str, targets: dict[str, str]) -> None:
    process = start_locked("print('locked', flush=True)\n" + _act(name, targets), before=_PREPARE, user=user)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["started\n", "locked\n"]

    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    process.kill()
    status, printed, _ = finish(process)

    assert (status, printed) == (-signal.SIGKILL, "")
