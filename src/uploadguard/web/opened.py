"""A Guard that a web application opens when its first upload comes, once for each process, and closes at exit."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from uploadguard.forks import renew_after_fork

__all__ = ["OpenedOnce"]

Opened = TypeVar("Opened")


class OpenedOnce(Generic[Opened]):
    """What ``make`` made when it was first asked for. A forked child goes on with what was made before the fork.

    Where ``make`` raises, so does :meth:`get`, and the next one tries again.
    """

    def __init__(self, make: Callable[[], Opened], close: Callable[[Opened], None]) -> None:
        self._make = make
        self._close = close
        self._opened: Opened | None = None
        self._opening = threading.Lock()
        renew_after_fork(self)

    def get(self) -> Opened:
        """The one of this process."""
        opened = self._opened
        if opened is None:
            with self._opening:
                opened = self._opened
                if opened is None:
                    opened = self._opened = self._make()
                    atexit.register(self.close)
        return opened

    def close(self) -> None:
        """Close it, if it was opened; the next :meth:`get` opens another one."""
        with self._opening:
            opened, self._opened = self._opened, None
            if opened is not None:
                atexit.unregister(self.close)
                self._close(opened)

    def after_fork(self) -> None:
        """In a forked child: the thread that was opening does not exist here."""
        self._opening = threading.Lock()
