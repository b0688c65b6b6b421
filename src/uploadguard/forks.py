"""What must not go on in a forked child as it was in the parent: locks that a thread held, connections, counts."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Renewable", "renew_after_fork"]


class Renewable(Protocol):
    """What has something to put right in a child."""

    def after_fork(self) -> None:
        """Called in the child before anything else runs there. Must be quick, and take no lock of the parent's."""
        ...


_THINGS: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have ``thing.after_fork()`` called in every child that is forked while it exists."""
    _THINGS.add(thing)


def _renew() -> None:
    for thing in tuple(_THINGS):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
