"""The threads that hand tasks to actions: none can be blocked for good by one that never returns."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable

from uploadguard.ledger.delivery.leases import Lease

__all__ = ["Crew"]


class _Hand:
    """One thread. ``given_up``: it hung, and another one has its place."""

    __slots__ = ("given_up", "lease")

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.given_up = False


class Crew:
    """``threads`` threads that take leases in the order they came, with ``share`` of them at most for one action.

    ``carry_out`` must not raise. All threads are daemons: they keep no process from ending.
    """

    def __init__(self, threads: int, share: int, carry_out: Callable[[Lease], None]) -> None:
        self._threads = threads
        self._share = share
        self._carry_out = carry_out
        self._changed = threading.Condition()
        self._ready: deque[Lease] = deque()
        self._hands: list[_Hand] = []
        self._given_up: Counter[str] = Counter()
        self._stopping = False

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._threads):
            self._hire()

    def add(self, leases: Iterable[Lease]) -> None:
        """Take these over."""
        with self._changed:
            self._ready.extend(leases)
            self._changed.notify_all()

    def take_out(self, action: str | None = None) -> list[Lease]:
        """Those not begun yet, of one action or of all: no longer this crew's."""
        with self._changed:
            out = [lease for lease in self._ready if action is None or lease.action == action]
            self._ready = deque(lease for lease in self._ready if lease not in out)
        return out

    def held(self) -> list[Lease]:
        """All it has, begun or not."""
        with self._changed:
            return [*self._ready, *(hand.lease for hand in self._hands if hand.lease is not None)]

    def waiting(self) -> Counter[str]:
        """How many are not begun yet, by action."""
        with self._changed:
            return Counter(lease.action for lease in self._ready)

    def given_up(self, action: str) -> int:
        """Threads that are still stuck in this action, though nothing waits for them any more."""
        return self._given_up[action]

    def give_up(self, longest_s: float) -> list[Lease]:
        """Let go of the threads whose action has a task for longer than that, put others in their place, and return
        those tasks."""
        before = time.monotonic() - longest_s
        found = []
        with self._changed:
            for hand in [*self._hands]:
                lease = hand.lease
                if lease is None or lease.since is None or lease.since > before:
                    continue
                found.append(lease)
                hand.given_up = True
                self._hands.remove(hand)
                self._given_up[lease.action] += 1
        for _ in found:
            self._hire()
        return found

    def wait_for_room(self, actions: Collection[str], low: int, timeout_s: float) -> None:
        """Wait until of one of these actions ``low`` tasks or fewer are not begun yet."""

        def has_room() -> bool:
            waiting = Counter(lease.action for lease in self._ready)
            return any(waiting[action] <= low for action in actions)

        with self._changed:
            self._changed.wait_for(has_room, timeout_s)

    def stop(self, timeout_s: float) -> int:
        """Begin nothing more, and wait so long for what is under way; returns how many tasks are still."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: all(hand.lease is None for hand in self._hands), timeout_s)
            return sum(hand.lease is not None for hand in self._hands)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._ready and all(hand.lease is None for hand in self._hands), timeout_s
            )

    def _hire(self) -> None:
        hand = _Hand()
        with self._changed:
            self._hands.append(hand)
        threading.Thread(target=self._work, args=(hand,), name="uploadguard-outbox", daemon=True).start()

    def _work(self, hand: _Hand) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._begin(hand):
                    self._changed.wait()
                lease = hand.lease
                if lease is None:
                    return
            try:
                self._carry_out(lease)
            finally:
                with self._changed:
                    hand.lease = None
                    if hand.given_up:
                        self._given_up[lease.action] -= 1
                    self._changed.notify_all()
            if hand.given_up:
                return

    def _begin(self, hand: _Hand) -> bool:
        """Give the thread the first lease whose action has not its share of threads already."""
        busy = Counter(other.lease.action for other in self._hands if other.lease is not None)
        for index, lease in enumerate(self._ready):
            if busy[lease.action] < self._share:
                hand.lease = lease
                del self._ready[index]
                return True
        return False
