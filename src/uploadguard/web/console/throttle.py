"""How often somebody may try to sign in: failures cost a wait, which doubles each time."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Throttle", "network_of"]


@dataclass(slots=True)
class _Record:
    failures: int
    last_s: float


class Throttle:
    """Counts failures by key, as an address, in memory. Shared between threads.

    ``free`` failures cost nothing; the next one costs a second, and each further one twice that, up to
    ``longest_s``. A key is forgotten after ``forget_s`` without a failure, or when more than ``most`` others came after
    it, so that nobody can fill the memory.
    """

    def __init__(
        self,
        *,
        free: int = 3,
        longest_s: float = 60.0,
        forget_s: float = 900.0,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free, self._longest_s, self._forget_s, self._most = free, longest_s, forget_s, most
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """How many seconds until the key may try again; 0 is now."""
        with self._lock:
            record = self._record(key)
            if record is None or record.failures <= self._free:
                return 0.0
            delay_s = min(self._longest_s, 2.0 ** min(record.failures - self._free - 1, 32))
            return max(0.0, record.last_s + delay_s - self._clock())

    def failed(self, key: str) -> None:
        """Count a failure."""
        with self._lock:
            record = self._record(key) or _Record(0, 0.0)
            record.failures += 1
            record.last_s = self._clock()
            self._records[key] = record
            self._records.move_to_end(key)
            while len(self._records) > self._most:
                self._records.popitem(last=False)

    def took_back(self, key: str) -> None:
        """Do not count the latest failure: it was none."""
        with self._lock:
            record = self._record(key)
            if record is not None:
                record.failures = max(0, record.failures - 1)

    def _record(self, key: str) -> _Record | None:
        record = self._records.get(key)
        if record is not None and self._clock() - record.last_s > self._forget_s:
            del self._records[key]
            return None
        return record


def network_of(address: str) -> str:
    """What attempts from an address are counted by: of IPv6 the 64 bits that one customer has, at most."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
