"""The record of dead letters: why each was given up, on disk before it leaves its queue."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from uploadguard.logs import log
from uploadguard.storage.files import sync_directory

__all__ = ["DeadLetterFile", "DeadLetterLog", "DeadLetterRecord"]


class DeadLetterRecord(Protocol):
    """Keeps why a message was given up."""

    async def keep(self, message_id: str, reason: str, *, receives: int) -> None:
        """Return when the record will survive this process. Raises ``OSError``."""


class DeadLetterFile:
    """A file of JSON lines, synced after each: ``at``, ``queue``, ``message_id``, ``receives``, ``reason``.

    Never what the message holds: that is in the dead-letter queue. Several processes may write one file.
    """

    def __init__(self, path: Path, queue: str) -> None:
        self._path = path
        self._queue = queue

    async def keep(self, message_id: str, reason: str, *, receives: int) -> None:
        """Append a line, on a thread."""
        line = _line({"queue": self._queue, "message_id": message_id, "receives": receives, "reason": reason})
        await asyncio.to_thread(self._append, line)

    def _append(self, line: bytes) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size_bytes = os.fstat(file).st_size
            if size_bytes and os.pread(file, 1, size_bytes - 1) != b"\n":
                line = b"\n" + line  # a crash left the last one torn
            written = os.write(file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written")
            os.fsync(file)
        finally:
            os.close(file)
        if not size_bytes:
            sync_directory(self._path.parent)


class DeadLetterLog:
    """The library's log, for where there is no disk that lasts: a Lambda function's log is kept elsewhere."""

    async def keep(self, message_id: str, reason: str, *, receives: int) -> None:
        """Log an error."""
        log.error("dead letter, message %s, received %d times: %s", message_id, receives, reason)


def _line(fields: Mapping[str, object]) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": at, **fields}).encode("ascii") + b"\n"
