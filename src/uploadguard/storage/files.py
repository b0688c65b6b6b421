"""What every writer of files needs: directories that keep what was written, and new files for their owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

__all__ = ["TEMPORARY_SUFFIX", "Output", "sync_directory", "write_new_file"]

TEMPORARY_SUFFIX = ".tmp"
"""Of files that are not whole yet."""


class Output(Protocol):
    """Where something is written to: a file or a buffer in memory."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        """Write all of ``data``."""

    def seek(self, offset: int, /) -> object:
        """Go to ``offset`` from the start."""


def sync_directory(directory: Path) -> None:
    """Make renames and removals in ``directory`` last through a power failure. Raises ``OSError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new_file(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, on the disk, and that its owner alone can read.

    Raises ``OSError`` (``FileExistsError`` where it is there), and leaves nothing half written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
