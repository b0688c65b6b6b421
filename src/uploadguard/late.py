"""Answers of match services that come after the upload was answered (``prefetch``).

What is still to be asked is in a SQLite file beside the ledger, committed before the upload is answered, so that no end
of a process loses it. Any process of the host goes on with it. When an answer changes the verdict, the revised decision
is kept in the ledger first, and only then forgotten here: whoever is told of it may be told twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import weakref
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from uploadguard.errors import NotRecordedError, UploadguardError
from uploadguard.ledger.codec import Recorded, from_record, to_record
from uploadguard.logs import log
from uploadguard.matchers import Query
from uploadguard.matching import Matching, failure_of
from uploadguard.models import Context, Decision, Failure, Match

__all__ = ["LateChecks", "Revise", "revised_reference"]

Revise = Callable[[Recorded, Sequence[Match], Sequence[Failure], str], None]
"""Gets an earlier decision with its context, a late answer (matches or a failure), and the new decision's reference."""

_IDLE_S: Final = 0.5
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_LEASE_MARGIN_S: Final = 30.0
_BUSY_S: Final = 5.0
_SCHEMA: Final = """
create table if not exists late (
  id integer primary key,
  matcher text not null,
  record text not null,
  created real not null,
  next_at real not null,
  attempts integer not null default 0,
  unique (matcher, record)
) strict
"""


class _Row(NamedTuple):
    id: int
    matcher: str
    record: str
    created: float
    attempts: int


class LateChecks:
    """What is still to be asked, and the thread that asks. Shared between threads; survives ``fork``.

    Raises :class:`NotRecordedError` where the file cannot be used.
    """

    def __init__(self, path: Path, matching: Matching, revise: Revise) -> None:
        self._path = path
        self._matching = matching
        self._revise = revise
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        with self._using() as connection:
            connection.execute(_SCHEMA)
            waiting = dict(connection.execute("select matcher, count(*) from late group by matcher").fetchall())
        if orphans := sum(count for name, count in waiting.items() if name not in matching.matchers):
            log.error(
                "%d answer(s) are still to come from match services that the configuration no longer names, and will "
                "not be asked for until it does",
                orphans,
            )

    def add(self, decision: Decision, context: Context) -> None:
        """Keep that the matchers in ``decision.pending`` are still to be asked; durable when this returns.

        Raises :class:`NotRecordedError`.
        """
        record = json.dumps(to_record(decision, context, datetime.now(UTC)))
        now = time.time()
        with self._using() as connection:
            connection.executemany(
                "insert or ignore into late (matcher, record, created, next_at) values (?, ?, ?, ?)",
                [(name, record, now, now) for name in decision.pending],
            )
        self._wake.set()

    def waiting(self) -> int:
        """How many answers are still to come. Raises :class:`NotRecordedError`."""
        with self._using() as connection:
            return int(connection.execute("select count(*) from late").fetchone()[0])

    def start(self) -> None:
        """Go on asking, on a thread, unless one does."""
        if self._thread is None and not self._closed.is_set():
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=_run, args=(weakref.ref(self), self._closed, self._wake), name="uploadguard-late",
                        daemon=True,
                    )  # fmt: skip
                    self._thread.start()

    def close(self) -> None:
        """Stop asking, once what has begun is over; the rest stays for another process, or another day."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def after_fork(self) -> None:
        """In a forked child: the parent's connection and thread are not this process's."""
        closed = self._closed.is_set()
        self._lock, self._wake, self._closed = threading.Lock(), threading.Event(), threading.Event()
        if closed:
            self._closed.set()
        _abandoned.append(self._connection)
        self._connection = self._thread = None

    def work(self) -> bool:
        """Ask what is due, once; returns whether there was anything."""
        rows = self._claim()
        futures: dict[Future[tuple[Match, ...]], _Row] = {}
        for row in rows:
            matcher = self._matching.matchers[row.matcher]
            earlier = from_record(json.loads(row.record))
            hashes = tuple(item for item in earlier.decision.hashes if item.signal_type in matcher.signal_types)
            query = Query(hashes, earlier.context, earlier.decision.media)
            futures[self._matching.submit(matcher, query, time.monotonic() + matcher.deadline_s)] = row
        wait(futures)
        for future, row in futures.items():
            self._conclude(row, future)
        return bool(rows)

    def _claim(self) -> list[_Row]:
        """Rows that are due, as many as may be asked at once; nobody else takes them while they can be under way."""
        now = time.time()
        rows: list[_Row] = []
        with self._using() as connection:
            for name, matcher in self._matching.matchers.items():
                found = connection.execute(
                    "select id, matcher, record, created, attempts from late where matcher = ? and next_at <= ? "
                    "order by next_at limit ?",
                    (name, now, matcher.max_calls),
                ).fetchall()
                until = now + matcher.deadline_s + _LEASE_MARGIN_S
                connection.executemany("update late set next_at = ? where id = ?", [(until, row[0]) for row in found])
                rows += [_Row(*row) for row in found]
        return rows

    def _conclude(self, row: _Row, future: Future[tuple[Match, ...]]) -> None:
        matcher = self._matching.matchers[row.matcher]
        matches: tuple[Match, ...] = ()
        failures: tuple[Failure, ...] = ()
        try:
            matches = future.result()
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not become the host's
            if time.time() - row.created < matcher.retry_s and not self._closed.is_set():
                self._later(row)
                return
            if self._closed.is_set():
                return
            failures = (failure_of(matcher, error),)
        if matches or failures:
            earlier = from_record(json.loads(row.record))
            try:
                self._revise(earlier, matches, failures, revised_reference(earlier.decision.reference, row.matcher))
            except UploadguardError as error:
                log.error("a late answer could not be kept, and is asked for again: %s", error)
                self._later(row)
                return
        with self._using() as connection:
            connection.execute("delete from late where id = ?", (row.id,))

    def _later(self, row: _Row) -> None:
        wait_s = min(_FIRST_WAIT_S * 2**row.attempts, _LONGEST_WAIT_S)
        with self._using() as connection:
            connection.execute(
                "update late set next_at = ?, attempts = attempts + 1 where id = ?", (time.time() + wait_s, row.id)
            )

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block was left."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                self._connection.execute("begin immediate")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("rollback")
                    raise
                self._connection.execute("commit")
            except (sqlite3.Error, OSError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise NotRecordedError(f"what is still to be asked cannot be kept in {self._path}: {error}") from error


_abandoned: list[Any] = []
"""Connections of a parent process: closing one in the child would take away the parent's locks."""


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    return connection


def revised_reference(earlier: str, matcher: str) -> str:
    """The reference of a revised decision: always the same, so that the ledger takes it in once."""
    digest = hashlib.sha256(f"{earlier}\0{matcher}".encode()).digest()
    return urlsafe_b64encode(digest[:12]).decode()


def _run(late: weakref.ref[LateChecks], closed: threading.Event, wake: threading.Event) -> None:
    while not closed.is_set():
        owner = late()
        if owner is None:
            return
        wake.clear()
        busy = False
        try:
            busy = owner.work()
        except UploadguardError as error:
            log.error("late answers of match services cannot be asked for now: %s", error)
        except Exception as error:  # noqa: BLE001 - the thread must go on: uploads wait for it
            log.error("asking for late answers raised %s", type(error).__name__)
        del owner
        if not busy:
            wake.wait(_IDLE_S)
