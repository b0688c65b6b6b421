"""An end to conversations that go on for ever: timeouts of single reads do not stop a byte a second."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Deadline", "deadline"]


@dataclass(slots=True)
class Deadline:
    """Tells whether the time was over. ``connection`` gives the socket that is then shut down, as it is by then."""

    connection: Callable[[], socket.socket | None] = field(default=lambda: None)
    passed: bool = False

    def expire(self) -> None:
        """End the conversation; whoever reads or writes gets an error or an end of file."""
        self.passed = True
        connection = self.connection()
        if connection is not None:
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which would have it go on without TLS.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """End the conversation inside the block after so many seconds."""
    limit = Deadline()
    timer = threading.Timer(seconds, limit.expire)
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
