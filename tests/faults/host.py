"""What the host's process holds: memory, descriptors, children, threads."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

__all__ = ["Host"]


class Host:
    """This process as it is now, to compare with later."""

    def __init__(self) -> None:
        self._descriptors = self._open_descriptors()
        self._children = self.children()
        self._threads = set(threading.enumerate())

    @staticmethod
    def resident_mb() -> float:
        """Resident size, in MB, without pages that are a file's."""
        fields = Path("/proc/self/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6

    @staticmethod
    def children() -> set[int]:
        """Child processes, zombies too."""
        tasks = Path("/proc/self/task").iterdir()
        return {int(child) for task in tasks for child in (task / "children").read_text().split()}

    @staticmethod
    def _open_descriptors() -> dict[str, str]:
        found = {}
        for link in Path("/proc/self/fd").iterdir():
            try:
                found[link.name] = str(link.readlink())
            except FileNotFoundError:
                continue  # the one that lists them
        return found

    def left_over(self, wait_s: float = 5.0) -> list[str]:
        """What is there now and was not; waits a little for what is about to end."""
        ends = time.monotonic() + wait_s
        while (found := self._new()) and time.monotonic() < ends:
            time.sleep(0.05)
        return found

    def _new(self) -> list[str]:
        descriptors = self._open_descriptors()
        found = [f"descriptor of {descriptors[name]}" for name in descriptors.keys() - self._descriptors.keys()]
        found += [f"process {child}" for child in self.children() - self._children]
        return found + [f"thread {thread.name}" for thread in set(threading.enumerate()) - self._threads]
