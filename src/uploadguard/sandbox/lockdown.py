"""What a worker gives up, once and for good, before it sees the first untrusted byte.

:func:`available` says what this system offers and changes nothing; :func:`lock_down` gives up all there is.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from uploadguard._native import _kernel

__all__ = ["REQUIRED", "Layers", "available", "lock_down"]

REQUIRED = frozenset({"seccomp", "no_new_privs", "no_exec_memory", "rlimits", "non_dumpable", "dies_with_parent"})
"""The layers that a sandbox cannot do without. The others are further walls, had where the system offers them."""

_OWN_USER_BASE = 0x7000_0000
"""Far above the ids that systems hand out, and with any process id added still a positive 32-bit number."""
_NOBODY = 65_534
_CAP_KILL = 5
_SPARE_THREADS = 1024
"""More than any decoder starts (one for each processor, at most), and few enough to cost the host some 30 MB."""
_MAX_THREADS_COUNTED = 1 << 22
"""The kernel numbers no more tasks than this."""
_SETTLE_S = 0.2
"""How long a thread that has ended may stay in the kernel's books."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What stands between a worker and the host: in force (told by a worker) or to be had (told by a probe).

    - ``seccomp``: only the system calls that decoding needs, in every thread.
    - ``landlock_abi``: the version of Landlock's interface, which takes every right to files, TCP, and other processes'
      sockets and signals; 0 for none. A second wall behind ``seccomp``.
    - ``no_new_privs``, ``no_capabilities``: no privileges, and none to be gained.
    - ``no_exec_memory``: no memory can be made executable, so that no new code can be brought in.
    - ``non_dumpable``: no core files, and no look into its memory by others of its user.
    - ``dies_with_parent``: the kernel kills it when the thread that started it ends.
    - ``other_user``: it left root for a user of its own. A worker that never was root shares the host's user.
    - ``rlimits``: bounds on address space, and no files, locks, core files or message queues.
    - ``bounded_threads``: a bound on threads.
    - ``pidfd``: the host can end it without ever hitting another process.
    """

    seccomp: bool = False
    landlock_abi: int = 0
    no_new_privs: bool = False
    no_capabilities: bool = False
    no_exec_memory: bool = False
    non_dumpable: bool = False
    dies_with_parent: bool = False
    other_user: bool = False
    rlimits: bool = False
    bounded_threads: bool = False
    pidfd: bool = False

    def missing(self, required: Collection[str] = REQUIRED) -> tuple[str, ...]:
        """The names out of ``required`` that are not there, in the order of the fields.

        Raises ``ValueError`` for a name that is no layer.
        """
        names = [field.name for field in fields(self)]
        if unknown := sorted(set(required) - set(names)):
            raise ValueError(f"no such layer: {', '.join(unknown)}; there are {', '.join(names)}")
        return tuple(name for name in names if name in required and not getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """The layers as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Layers:
        """What :meth:`to_dict` gave. Raises ``ValueError`` for other names or types: a worker is not to be trusted."""
        kinds = {field.name: type(field.default) for field in fields(cls)}
        if set(record) != set(kinds) or any(type(record[name]) is not kind for name, kind in kinds.items()):
            raise ValueError("not a record of layers")
        return cls(**record)


def available() -> Layers:
    """What this system offers to a worker, found out without installing anything. Takes well under a millisecond."""
    if sys.platform != "linux":
        return Layers()
    seccomp, landlock_abi = _kernel.sandbox_probe()
    return Layers(
        seccomp=seccomp,
        landlock_abi=landlock_abi,
        no_new_privs=True,
        no_capabilities=True,
        no_exec_memory=seccomp,
        non_dumpable=True,
        dies_with_parent=True,
        other_user=os.geteuid() == 0,
        rlimits=os.access("/proc/self/statm", os.R_OK),
        bounded_threads=True,
        pidfd=_has_pidfd(),
    )


def lock_down(
    *,
    memory_bytes: int,
    keep_fds: Collection[int],
    parent_pid: int | None = None,
    required: Collection[str] = REQUIRED,
) -> Layers:
    """Give up everything but computing, answering on open descriptors, and starting threads.

    Call it once, in a worker, when every codec is warm. Afterwards no file can be opened, no library loaded and no
    descriptor made, and the open ones can be read, written, sent to and mapped, no more: map what is needed first.
    Descriptors other than 0, 1, 2 and ``keep_fds`` are closed. Sockets among them must be connected ones
    (``SOCK_STREAM``, ``SOCK_SEQPACKET``): a datagram socket could reach any other.

    ``memory_bytes`` is how much address space may be taken on top of what is taken now. ``parent_pid`` is who must
    still be the parent; None stands for whoever it is now. Landlock needs the process to have one thread: with more of
    them it is left out, and reported so.

    Returns what is in force. Raises ``OSError``, with a sentence, if one of ``required`` cannot be had; the process
    must end then, being locked down in part.
    """
    parent_pid = os.getppid() if parent_pid is None else parent_pid
    offered = available()
    if missing := offered.missing(required):
        raise OSError(errno.ENOTSUP, f"this system does not offer what the sandbox needs: {', '.join(missing)}")
    if sys.platform != "linux":
        return offered
    kept = frozenset({0, 1, 2, *keep_fds})
    _close_others(kept)
    attempts = _Attempts()
    other_user = _leave_root()
    attempts.make("give up capabilities", _kernel.sandbox_drop_capabilities)
    # Changing users clears both of these, so they come after it.
    attempts.make("die with the parent", _kernel.sandbox_die_with_parent)
    if os.getppid() != parent_pid:
        raise OSError(errno.ESRCH, "the process that started this worker is gone")
    attempts.make("become non-dumpable", _kernel.sandbox_make_non_dumpable)
    single_threaded = _is_single_threaded()
    bounded_threads = attempts.make("bound its threads", _bound_threads)
    limits = _limits(memory_bytes, descriptors=max(kept) + 1) if offered.rlimits else {}
    attempts.make("give up gaining privileges", _kernel.sandbox_set_no_new_privs)
    landlock = (
        single_threaded
        and offered.landlock_abi > 0
        and attempts.make("use Landlock", lambda: _kernel.sandbox_restrict_landlock(offered.landlock_abi))
        and _is_denied(lambda: list(Path("/").iterdir()))
    )
    # Landlock and that look need one descriptor more for a moment, so the limit on them comes after.
    rlimits = attempts.make("set its limits", lambda: _set_limits(limits)) and offered.rlimits
    non_dumpable, dies_with_parent, no_new_privs, no_capabilities = _kernel.sandbox_state()
    seccomp = (
        offered.seccomp and attempts.make("filter system calls", _kernel.sandbox_filter_calls) and _is_denied(os.uname)
    )
    layers = Layers(
        seccomp=seccomp,
        landlock_abi=offered.landlock_abi if landlock else 0,
        no_new_privs=no_new_privs,
        no_capabilities=no_capabilities and (single_threaded or other_user),
        no_exec_memory=seccomp and _is_denied(_map_code),
        non_dumpable=non_dumpable,
        dies_with_parent=dies_with_parent,
        other_user=other_user,
        rlimits=rlimits,
        bounded_threads=bounded_threads,
        pidfd=offered.pidfd,
    )
    if missing := layers.missing(required):
        raise OSError(errno.EPERM, f"the sandbox is not in force: no {', '.join(missing)}{attempts.problems}")
    return layers


class _Attempts:
    """Steps that may fail, and why they did. What is in force is then asked of the kernel, not concluded from them."""

    def __init__(self) -> None:
        self._failed: list[str] = []

    def make(self, what: str, step: Callable[[], bool | None]) -> bool:
        """Whether the step could be done: it raised no ``OSError``, and did not say False."""
        try:
            return step() is not False
        except OSError as error:
            self._failed.append(f"could not {what}: {error.strerror}")
            return False

    @property
    def problems(self) -> str:
        """What failed, to end a sentence with."""
        return f" ({'; '.join(self._failed)})" if self._failed else ""


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # built for a kernel that had none, or running on one
        return False
    return True


def _close_others(kept: frozenset[int]) -> None:
    open_fds = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    for fd in open_fds:
        if fd not in kept:
            # The one that the listing itself needed is closed already.
            os.closerange(fd, fd + 1)


def _leave_root() -> bool:
    """Become a user that nobody else is, or nobody; whether it could be done.

    A user of its own makes limits that count by user count this worker alone, and keeps workers from each other. A
    user namespace may map neither, and a container may have taken the right to change. Where it took the right to kill
    another's processes, the host could not end the worker any more, so that stays who it is.
    """
    if os.geteuid() != 0 or not _effective_capabilities() >> _CAP_KILL & 1:
        return False
    for user in (_OWN_USER_BASE + os.getpid(), _NOBODY):
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:
            continue
        return True
    return False


def _effective_capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _is_single_threaded() -> bool:
    """Whether this is the only thread; ones that have just ended may take a moment to be gone."""
    until = time.monotonic() + _SETTLE_S
    try:
        while len(list(Path("/proc/self/task").iterdir())) > 1:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
    except OSError:
        return False
    return True


def _bound_threads() -> bool:
    """Let the user of this process have so many more threads than now, as far as this process starts them.

    How many there are now is searched for, since nothing tells it across containers: a thread cannot be started while
    the limit is below. Root is not bound by it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = _MAX_THREADS_COUNTED if hard == resource.RLIM_INFINITY else min(hard, _MAX_THREADS_COUNTED)

    def fits(limit: int) -> bool:
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
        try:
            _kernel.sandbox_try_thread()
        except BlockingIOError:
            return False
        return True

    if fits(0):
        return False
    below, enough = 0, 1
    while enough < most and not fits(enough):
        below, enough = enough, enough * 2
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if fits(middle) else (middle, enough)
    bound = min(enough + _SPARE_THREADS, most)
    resource.setrlimit(resource.RLIMIT_NPROC, (bound, bound))
    return True


def _limits(memory_bytes: int, *, descriptors: int) -> dict[int, int]:
    """The limits by their numbers, with what is taken now as the base of address space."""
    address_space_bytes = int(Path("/proc/self/statm").read_bytes().split()[0]) * mmap.PAGESIZE
    return {
        resource.RLIMIT_AS: address_space_bytes + memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,  # type: ignore[attr-defined, unused-ignore]
        resource.RLIMIT_NOFILE: descriptors,
    }


def _set_limits(limits: Mapping[int, int]) -> None:
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))


def _map_code() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def _is_denied(act: Callable[[], object]) -> bool:
    """Whether an act that needs what was given up fails for that reason."""
    try:
        act()
    except PermissionError:
        return True
    except OSError:
        return False
    return False
