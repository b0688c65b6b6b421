"""What a decoder that an attacker has taken over might do: a decoder that does what its file says.

A file names an act of :data:`ACTS` and an argument for it (a path, a port, a process id). An act that succeeds returns,
and the decoder then hands over a picture, as if nothing had happened; so an allowed upload is an escape. What becomes
of it in a worker is each act's :class:`Outcome`.
"""

from __future__ import annotations

import _thread
import ctypes
import enum
import fcntl
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import uploadguard
from uploadguard.media.base import DecodeOptions, Decoder, Pixels, Source

MEDIA_TYPE = "image/x-malice"
MAGIC = b"MALICE\n"

LIBC = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP = 425
X32_GETPID = 0x4000_0000 | 39
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_PTRACER = 1, 4, 22, 0x59616D61
PTRACE_ATTACH = 16
CLONE_NEWUSER = 0x1000_0000
MAX_THREADS = 3000


class Outcome(enum.Enum):
    """What the worker and its host make of an act."""

    REFUSED = "the call fails with PermissionError; the worker lives on"
    NO_MEMORY = "the call fails with MemoryError or OSError; the worker lives on"
    BOUNDED = "the act ends early with RuntimeError; the worker lives on"
    KILLED = "the kernel ends the worker with SIGSYS"
    CRASHED = "the worker ends by itself, or can no longer answer sensibly"
    HANGS = "nothing comes back: the host has to end the worker"


@dataclass(frozen=True)
class Act:
    """``function`` gets the file's argument; ``needs`` says what that is: path, folder, port, name, pid or nothing."""

    function: Callable[[str], object]
    outcome: Outcome
    needs: str = ""


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _map_file(path: str) -> None:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        bytes(view[:16])


def _write_gigabytes(path: str) -> None:
    with Path(path).open("wb") as file:
        for _ in range(10):
            file.seek(1 << 30, os.SEEK_CUR)
            file.write(b"\0")


def _connect(family: int, address: tuple[str, int] | str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.connect(address)


def _send_datagram(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"out", ("127.0.0.1", int(port)))


def _bind(_: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()


def _fork(_: str) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _start_threads(_: str) -> None:
    """Start more threads than any decoder would, with the smallest stacks, and keep them all to the end."""
    _thread.stack_size(32 << 10)
    gate = _thread.allocate_lock()

    def wait() -> None:
        with gate:
            pass

    with gate:
        for _number in range(MAX_THREADS):
            _thread.start_new_thread(wait, ())


def _peek(pid: str) -> None:
    here, there = ctypes.create_string_buffer(8), ctypes.c_void_p(0x1000)

    class IoVec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    local, remote = IoVec(ctypes.addressof(here), 8), IoVec(there.value, 8)
    LIBC.process_vm_readv(int(pid), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


def _ptrace(pid: str) -> None:
    _checked(LIBC.ptrace(PTRACE_ATTACH, int(pid), None, None))
    os.waitpid(int(pid), 0x4000_0000)


def _read_memory_of(pid: str) -> None:
    with Path(f"/proc/{pid}/mem").open("rb"):
        pass


def _make_pages_executable(_: str) -> None:
    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    pages = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    _checked(LIBC.mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC))


def _grow_a_hidden_file(_: str) -> None:
    fd = os.memfd_create("hidden")
    os.write(fd, bytes(1 << 20))
    os.close(fd)


def _ignore_sigterm(_: str) -> None:
    LIBC.signal(int(signal.SIGTERM), ctypes.c_void_p(1))
    _spin("")


def _spin(_: str) -> None:
    while True:
        pass


def _babble(_: str) -> None:
    """Write nonsense to every descriptor above the standard ones, as an answer."""
    for fd in range(3, 64):
        try:
            os.write(fd, b'{"hashes": [], "failures": "none"}')
        except OSError:
            continue
    os._exit(0)


def _fall_silent(_: str) -> None:
    os.closerange(0, 64)
    os._exit(0)


def _signal(pid: int) -> None:
    os.kill(pid, signal.SIGURG)  # which does nothing to who is hit, should it get through


def _limit(pid: int, limit: int, value: int) -> None:
    resource.prlimit(pid, limit, (value, value))  # type: ignore[attr-defined, unused-ignore]


REFUSED, NO_MEMORY, BOUNDED, KILLED, CRASHED, HANGS = Outcome

ACTS: dict[str, Act] = {
    "read_file": Act(lambda path: Path(path).read_bytes(), REFUSED, "path"),
    "stat_file": Act(lambda path: Path(path).stat(), REFUSED, "path"),
    "map_hash_set": Act(_map_file, REFUSED, "path"),
    "list_folder": Act(lambda folder: list(Path(folder).iterdir()), REFUSED, "folder"),
    "write_file": Act(lambda folder: (Path(folder) / "left").write_bytes(b"x"), REFUSED, "folder"),
    "write_10_gb": Act(lambda folder: _write_gigabytes(folder + "/large"), REFUSED, "folder"),
    "delete_file": Act(lambda path: Path(path).unlink(), REFUSED, "path"),
    "read_parent_memory": Act(_read_memory_of, REFUSED, "pid"),
    "connect_tcp": Act(lambda port: _connect(socket.AF_INET, ("127.0.0.1", int(port))), KILLED, "port"),
    "connect_unix": Act(lambda path: _connect(socket.AF_UNIX, path), KILLED, "socket"),
    "connect_abstract": Act(lambda name: _connect(socket.AF_UNIX, "\0" + name), KILLED, "name"),
    "send_datagram": Act(_send_datagram, KILLED, "port"),
    "bind_tcp": Act(_bind, KILLED),
    "exec": Act(lambda _: os.execv("/bin/true", ["true"]), KILLED),
    "spawn": Act(lambda _: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0), KILLED),
    "shell": Act(lambda _: LIBC.system(b"true"), KILLED),
    "fork": Act(_fork, KILLED),
    "thread_bomb": Act(_start_threads, BOUNDED),
    "ptrace": Act(_ptrace, KILLED, "pid"),
    "read_process": Act(_peek, KILLED, "pid"),
    "signal_parent": Act(lambda pid: _signal(int(pid)), KILLED, "pid"),
    "signal_group": Act(lambda _: _signal(0), KILLED),
    "signal_everyone": Act(lambda _: os.kill(-1, 0), KILLED),
    "queue_signal": Act(lambda pid: _checked(LIBC.sigqueue(int(pid), int(signal.SIGURG), None)), KILLED, "pid"),
    "signal_by_owner": Act(lambda pid: fcntl.fcntl(0, fcntl.F_SETOWN, int(pid)), REFUSED, "pid"),
    "open_pidfd": Act(lambda pid: os.close(os.pidfd_open(int(pid))), KILLED, "pid"),
    "renice_parent": Act(lambda pid: os.setpriority(os.PRIO_PROCESS, int(pid), 19), REFUSED, "pid"),
    "limit_parent": Act(lambda pid: _limit(int(pid), resource.RLIMIT_CORE, 0), REFUSED, "pid"),
    "become_root": Act(lambda _: os.setuid(0), KILLED),
    "new_user_namespace": Act(lambda _: _checked(LIBC.unshare(CLONE_NEWUSER)), KILLED),
    "io_uring": Act(lambda _: LIBC.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120)), KILLED),
    "foreign_call": Act(lambda _: LIBC.syscall(X32_GETPID), KILLED),
    "allocate_10_gb": Act(lambda _: mmap.mmap(-1, 10 << 30).close(), NO_MEMORY),
    "hidden_memory": Act(_grow_a_hidden_file, REFUSED),
    "make_pipe": Act(lambda _: os.pipe(), REFUSED),
    "raise_limits": Act(lambda _: _limit(0, resource.RLIMIT_AS, resource.RLIM_INFINITY), REFUSED),
    "become_dumpable": Act(lambda _: _checked(LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)), REFUSED),
    "outlive_parent": Act(lambda _: _checked(LIBC.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)), REFUSED),
    "map_code": Act(lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(), REFUSED),
    "make_code": Act(_make_pages_executable, REFUSED),
    "abort": Act(lambda _: os.abort(), CRASHED),
    "segfault": Act(lambda _: ctypes.string_at(0), CRASHED),
    "exit": Act(lambda _: os._exit(0), CRASHED),
    "babble": Act(_babble, CRASHED),
    "fall_silent": Act(_fall_silent, CRASHED),
    "spin": Act(_spin, HANGS),
    "sleep": Act(lambda _: time.sleep(1e6), HANGS),
    "stop_itself": Act(lambda _: os.kill(os.getpid(), signal.SIGSTOP), HANGS),
    "ignore_sigterm": Act(_ignore_sigterm, HANGS),
}


def make_file(act: str, argument: object = "") -> bytes:
    """An upload that has the decoder do this act with this argument."""
    return MAGIC + f"{act}\n{argument}".encode()


class MaliciousPicture:
    """One grey frame."""

    width = height = 64
    frames_total = 1
    orientation = 1
    sequential = False

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """The frame."""
        for index in indices:
            yield Pixels(np.full((64, 64), 128, dtype=np.uint8), 64, 64, frame=index)

    def close(self) -> None:
        """Nothing is open."""


class MaliciousDecoder:
    """A decoder that does what its file says."""

    name = "malice"
    media_types = frozenset({MEDIA_TYPE})

    def sniff(self, head: bytes) -> str | None:
        """Knows its own files alone."""
        return MEDIA_TYPE if head.startswith(MAGIC) else None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> MaliciousPicture:
        """Act; whatever the act raises passes through."""
        act, _, argument = bytes(data.data)[len(MAGIC) :].decode().partition("\n")
        if act != "nothing":
            ACTS[act].function(argument)
        return MaliciousPicture()


class MalicePlugin:
    """The plugin that registers the decoder. Its file ``make_file("nothing")`` warms it."""

    @uploadguard.hookimpl
    def uploadguard_decoders(self) -> list[Decoder]:
        """The malicious decoder."""
        return [MaliciousDecoder()]
