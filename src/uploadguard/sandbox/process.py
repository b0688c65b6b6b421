"""One worker process as the host sees it: starting it, handing it uploads, watching and killing it."""

from __future__ import annotations

import json
import mmap
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uploadguard.errors import SandboxError
from uploadguard.sandbox import wire
from uploadguard.sandbox.lockdown import Layers

__all__ = ["Worker", "WorkerSpec", "interpreter", "status_text"]

_BOOTSTRAP: Final = (
    "import importlib, json, os, sys\n"
    "connection, arena, at, paths, payload, version, parent = map(int, sys.argv[2:])\n"
    "if sys.hexversion >> 16 != version: sys.exit(3)\n"
    "sys.path[:] = json.loads(os.pread(arena, paths, at))\n"
    "importlib.import_module(sys.argv[1]).main(connection, arena, at + paths, payload, parent)\n"
)
_OTHER_PYTHON: Final = 3
_INHERITED: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "VIPS_BLOCK_UNTRUSTED": "1",
    "VIPS_CONCURRENCY": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Each of the C library's arenas takes 64 MB of address space, of which a worker has only so much.
    "MALLOC_ARENA_MAX": "2",
    # Memory given back to the system after each upload comes anew, page by page, with the next: a third of the time of
    # decoding a small picture. What lies above these bounds is given back.
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
_NOEXEC_SEAL: Final = 0x8
_KEPT_WARM_BYTES: Final = 8 << 20
"""What stays allocated in the arena between uploads."""
_DEATH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to start a worker.

    ``payload`` is from :func:`~uploadguard.sandbox.parts.dump_job`. ``max_upload_bytes`` bounds the uploads that a
    worker is given, ``max_answer_bytes`` is the longest answer taken from it. ``module`` has the process's ``main``.
    """

    python: str
    payload: bytes
    max_upload_bytes: int
    max_answer_bytes: int
    module: str = "uploadguard.sandbox.worker"


def interpreter(configured: str) -> str:
    """The Python for workers: the one configured, else the one that runs here, even where it is embedded.

    Raises :class:`SandboxError` where there is none.
    """
    if configured:
        return configured
    if re.fullmatch(r"(python|pypy)[\d.]*t?d?(\.exe)?", Path(sys.executable or "").name):
        return sys.executable
    for name in (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python"):
        path = Path(sys.prefix, "bin", name)
        if path.is_file():
            return str(path)
    raise SandboxError("no Python interpreter is found to start worker processes with: name one in sandbox.python")


class Worker:
    """A worker process. Not for several threads at once, but for :meth:`kill`.

    Raises ``OSError`` where it cannot be started. Start it on a thread that outlives it: the system kills a worker with
    the thread that started it.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._number = 0
        self._warm_bytes = 0
        self.files = 0
        self.layers = Layers()
        self.holes: tuple[str, ...] = ()
        """The codecs that it refuses, with the hole of each."""
        self.idle_since = self.started = time.monotonic()
        self.resident_at_start_bytes = 0
        self.ended_for: str | None = None
        """Why the host killed it; None: it did not."""
        cwd = Path.cwd()
        paths = json.dumps([str(cwd / path) for path in sys.path]).encode()
        self._arena_bytes = wire.DATA_OFFSET + max(spec.max_upload_bytes, len(paths) + len(spec.payload))
        self._arena, read_only = _make_arena(self._arena_bytes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _write(self._arena, paths + spec.payload, wire.DATA_OFFSET)
            self._process = self._start(theirs.fileno(), read_only, len(paths))
        except BaseException:
            ours.close()
            os.close(self._arena)
            raise
        finally:
            theirs.close()
            os.close(read_only)
        self.connection = ours
        self._inbox = wire.Inbox(ours, spec.max_answer_bytes)
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        self.pidfd = _or_none(lambda: os.pidfd_open(self.pid))
        self._statm = _or_none(lambda: os.open(f"/proc/{self.pid}/statm", os.O_RDONLY | os.O_CLOEXEC))

    def _start(self, connection: int, arena: int, paths_bytes: int) -> subprocess.Popen[bytes]:
        places = (connection, arena, wire.DATA_OFFSET, paths_bytes, len(self._spec.payload))
        arguments = (*places, sys.hexversion >> 16, os.getpid())
        flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
        return subprocess.Popen(  # noqa: S603 - the interpreter that runs here, or the one configured
            [self._spec.python, *flags, "-c", _BOOTSTRAP, self._spec.module, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **_ENVIRONMENT},
            pass_fds=(connection, arena),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def greet(self) -> str | None:
        """Take in its first words, if they have come. Returns what went wrong; None: :attr:`layers` and :attr:`holes`
        are there. Raises ``BlockingIOError`` where they have not come yet.
        """
        try:
            message = self._inbox.receive()
            if message is None:
                raise BlockingIOError
            hello = wire.parse_hello(message)
            if "failed" in hello:
                return str(hello["failed"])
            self.layers, self.holes = Layers.from_dict(hello["layers"]), tuple(hello["holes"])
        except EOFError:
            status = self.exit_status()
            if status == _OTHER_PYTHON:
                return f"{self._spec.python} is another version of Python than the host's"
            return f"it ended at once ({status_text(status)})"
        except (wire.ProtocolError, ValueError) as error:
            return str(error)
        self.resident_at_start_bytes = self.resident_bytes()
        return None

    def begin(self, data: bytes | memoryview) -> int:
        """Hand it an upload; returns the request's number.

        Raises ``OSError`` where it is gone, or where there is no memory for the copy.
        """
        self._number += 1
        self.files += 1
        self._warm_bytes = max(self._warm_bytes, len(data))
        _write(self._arena, data, wire.DATA_OFFSET)
        self.connection.sendall(wire.REQUEST.pack(self._number, len(data)), socket.MSG_NOSIGNAL)
        return self._number

    def answer(self, size_bytes: int, expected: wire.Expected, timeout_s: float) -> wire.Answer | None:
        """Its answer; None where it does not come in time.

        Raises ``EOFError`` where it is gone, and :class:`~uploadguard.sandbox.wire.ProtocolError`.
        """
        message = self.message(timeout_s)
        return None if message is None else wire.parse_answer(message, self._number, size_bytes, expected)

    def message(self, timeout_s: float) -> bytes | None:
        """Its next message, as it came; None where it does not come in time. Raises as :meth:`answer` does."""
        until = time.monotonic() + timeout_s
        while True:
            message = self._inbox.receive()
            if message is not None:
                return message
            remaining_s = until - time.monotonic()
            if remaining_s <= 0 or not self._poll.poll(remaining_s * 1e3):
                return None

    def wait(self, timeout_s: float) -> None:
        """Wait until it says something, or is gone."""
        self._poll.poll(timeout_s * 1e3)

    def stop(self) -> None:
        """Tell it that the answer is no longer wanted."""
        with suppress(OSError):
            os.pwrite(self._arena, wire.CANCEL_WORD.pack(self._number), 0)

    def has_stopped(self, size_bytes: int, expected: wire.Expected) -> bool:
        """Whether it has answered. Raises as :meth:`answer` does."""
        return self.answer(size_bytes, expected, 0) is not None

    def give_back(self) -> None:
        """Between uploads: let go of the memory that a large one took in the arena."""
        if self._warm_bytes > _KEPT_WARM_BYTES:
            os.ftruncate(self._arena, wire.DATA_OFFSET + _KEPT_WARM_BYTES)
            os.ftruncate(self._arena, self._arena_bytes)
            self._warm_bytes = 0

    def resident_bytes(self) -> int:
        """What it has in memory now, the upload included; 0 where that cannot be told."""
        if self._statm is None:
            return 0
        try:
            return int(os.pread(self._statm, 128, 0).split()[1]) * mmap.PAGESIZE
        except (OSError, IndexError, ValueError):
            return 0

    def kill(self, why: str) -> None:
        """Kill it, if it still lives. ``why`` is kept unless there was a reason before."""
        self.ended_for = self.ended_for or why
        if self.pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        else:
            self._process.kill()

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def exit_status(self, timeout_s: float = _DEATH_S) -> int | None:
        """Its exit code, minus the signal where one killed it; None where it has not ended in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def empty(self) -> None:
        """Take what it was given out of the arena, whoever may have a copy of the descriptor. Kill it first."""
        os.ftruncate(self._arena, 0)

    def close(self) -> None:
        """Let go of its descriptors. Kill it first."""
        self.connection.close()
        for fd in (self._arena, self._statm, self.pidfd):
            if fd is not None:
                with suppress(OSError):
                    os.close(fd)
        self._statm = self.pidfd = None

    def forget(self) -> None:
        """In a forked child: it is the parent's. Closes this process's copies of the descriptors."""
        self.close()
        self._process.returncode = 0  # or subprocess would take it for a child of this process


def status_text(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "it still runs"
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit code {status}"


def _make_arena(size_bytes: int) -> tuple[int, int]:
    """A memory file to write, and the same to read only."""
    if not hasattr(os, "memfd_create"):
        raise OSError("memory files need Linux")
    try:
        fd = os.memfd_create("uploadguard", os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:  # before Linux 6.3
        fd = os.memfd_create("uploadguard", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size_bytes)
        return fd, os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(fd)
        raise


def _write(fd: int, data: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.pwrite(fd, view[written:], offset + written)


def _or_none(make: Callable[[], int]) -> int | None:
    try:
        return make()
    except (OSError, AttributeError):
        return None
