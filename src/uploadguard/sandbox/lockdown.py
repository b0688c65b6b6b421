"""What a worker gives up, once and for good, before it sees the first untrusted byte.

:func:`available` says what this system offers and changes nothing; :func:`lock_down` gives it all up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["REQUIRED", "Layers", "available", "lock_down"]

REQUIRED = frozenset({"seccomp", "no_new_privs", "rlimits", "non_dumpable", "dies_with_parent"})
"""The layers that a sandbox cannot do without; the others are further walls, had where the system offers them."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What stands between a worker and the host, layer by layer: in force (from a worker) or to be had (from a probe).

    ``landlock_abi`` is the version of Landlock's interface, 0 where there is none. ``other_user`` is true for a worker
    that left root for a user of its own; a worker that was never root shares the host's user. ``pidfd`` says that the
    host can kill a worker without mistaking another process for it.
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
    """What this system offers a worker, found out without installing anything. Takes microseconds."""
    return Layers()


def lock_down(
    *,
    memory_bytes: int,
    keep_fds: Collection[int],
    parent_pid: int | None = None,
    required: Collection[str] = REQUIRED,
) -> Layers:
    """Give up everything but computing, answering on open descriptors, and starting threads.

    Call it once, in a worker, when every codec is warm: no file can be opened afterwards, no library loaded, no
    descriptor made, duplicated or asked with ``fstat`` by path; map what must be mapped first. Descriptors other than
    0, 1, 2 and ``keep_fds`` are closed. ``memory_bytes`` is how much address space may be taken on top of what is
    taken now. ``parent_pid`` is who must still be the parent, or this raises; None: whoever it is now.

    Returns what is in force. Raises ``OSError``, with a sentence, if one of ``required`` cannot be had; the process
    must end then, as it is locked down in part.
    """
    raise NotImplementedError
