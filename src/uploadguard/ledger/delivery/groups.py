"""Group commit: what several threads want to write at the same time goes into one transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy.engine import Connection

from uploadguard.errors import LedgerDownError

__all__ = ["GroupCommit"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    row_id: int
    write: Callable[[Connection], T]
    done: bool = False
    result: T | None = None
    error: BaseException | None = None
    grouped: bool = False


class GroupCommit(Generic[T]):
    """The first thread to come commits for all that wait by then. There is no thread of its own.

    ``transaction`` is one of ``Database``'s; ``close`` is called at each one's end with the results of its writes, to
    write what belongs to all of them.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        close: Callable[[Connection, Sequence[T]], None] | None = None,
    ) -> None:
        self._transaction = transaction
        self._close = close
        self._waiting: list[_Write[T]] = []
        self._entering = threading.Lock()
        self._committing = threading.Lock()

    def write(self, row_id: int, write: Callable[[Connection], T]) -> T:
        """Have ``write`` called in a transaction, and return its result once that is durable.

        ``row_id`` is the row that it changes: those of one transaction are locked in this order, so that two cannot
        wait for each other. ``write`` may be called again after a failure, its own or another's of the group. Raises
        what it or the transaction raises.
        """
        mine = _Write(row_id, write)
        with self._entering:
            self._waiting.append(mine)
        with self._committing:
            if not mine.done:
                with self._entering:
                    group, self._waiting = self._waiting, []
                self._commit(group)
        if mine.error is None:
            return mine.result  # type: ignore[return-value]
        if mine.grouped and not isinstance(mine.error, LedgerDownError):
            # One of the others may be to blame.
            return self._alone(mine)
        raise mine.error

    def _commit(self, group: list[_Write[T]]) -> None:
        group.sort(key=lambda one: one.row_id)
        failed: BaseException | None = None
        results: list[Any] = []
        try:
            with self._transaction() as connection:
                results = [one.write(connection) for one in group]
                if self._close is not None:
                    self._close(connection, results)
        except BaseException as error:  # noqa: BLE001 - each of the group raises it
            failed = error
        for index, one in enumerate(group):
            one.done, one.error, one.grouped = True, failed, len(group) > 1
            if failed is None:
                one.result = results[index]

    def _alone(self, one: _Write[T]) -> T:
        with self._transaction() as connection:
            result = one.write(connection)
            if self._close is not None:
                self._close(connection, [result])
        return result
