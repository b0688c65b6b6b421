"""Answers of match services that come after the upload was answered (``prefetch``).

What is still to be asked is in a SQLite file beside the ledger, committed before the upload is answered, so that no end
of a process loses it. Any process of the host goes on with it. When an answer changes the verdict, the revised decision
is kept in the ledger first, and only then forgotten here: whoever is told of it may be told twice.

Of one upload one service is asked at a time, and what it finds stands in what the next one's answer revises: so no
revised decision is milder than the one before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
import time
import weakref
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from uploadguard.errors import MatcherError, NotRecordedError, UploadguardError
from uploadguard.ledger.codec import Recorded, from_record, to_record
from uploadguard.logs import log
from uploadguard.matchers import Query
from uploadguard.matching import Matching, failure_of
from uploadguard.models import Context, Decision, Failure, Match, Verdict

__all__ = ["LateChecks", "Revise", "answers_waiting", "revised_reference"]

Revise = Callable[[Recorded, Sequence[Match], Sequence[Failure], str], Decision | None]
"""Gets an earlier decision with its context, a late answer (matches or a failure), and the new decision's reference.

Returns the new decision; None where the answer changes nothing.
"""

_IDLE_S: Final = 0.5
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_LEASE_MARGIN_S: Final = 30.0
_SLACK_S: Final = 60.0
"""By how much another process's times may lie ahead of ours before they count as those of a clock set back since."""
_BEHIND_S: Final = 60.0
_GRACE_S: Final = 5.0
"""How long a service that does not keep to its deadline is waited for beyond it."""
_BUSY_S: Final = 5.0
_COUNTED_EVERY_S: Final = 1.0
_SCHEMA: Final = (
    """
    create table if not exists late (
      id integer primary key,
      reference text not null,
      matcher text not null,
      record text not null,
      created real not null,
      next_at real not null,
      leased_until real not null default 0,
      attempts integer not null default 0,
      unique (reference, matcher)
    ) strict
    """,
    "create index if not exists late_due on late (matcher, next_at)",
)

# What lies further ahead than it was ever put is from a clock that has been set back since.
_DUE: Final = """
select id, reference, matcher, record, created, attempts from late
where matcher = :matcher and (next_at <= :now or next_at > :longest_wait) and not exists (
  select 1 from late as other
  where other.reference = late.reference and other.leased_until > :now and other.leased_until <= :longest_lease
)
order by next_at limit :most
"""


class _Row(NamedTuple):
    id: int
    reference: str
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
        self._is_behind = False
        self._counted: tuple[float, dict[str, int]] = (-math.inf, {})
        with self._using() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
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
                "insert or ignore into late (reference, matcher, record, created, next_at) values (?, ?, ?, ?, ?)",
                [(decision.reference, name, record, now, now) for name in decision.pending],
            )
        self._wake.set()

    def waiting(self) -> dict[str, int]:
        """As :func:`answers_waiting`, a second old at most: metrics ask with every decision, and there may be many."""
        counted_at, counts = self._counted
        if time.monotonic() - counted_at >= _COUNTED_EVERY_S:
            counts = answers_waiting(self._path)
            self._counted = (time.monotonic(), counts)
        return dict(counts)

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
        asked: list[tuple[_Row, Recorded, Future[tuple[Match, ...]]]] = []
        longest_s = 0.0
        for row in rows:
            matcher = self._matching.matchers[row.matcher]
            try:
                earlier = from_record(json.loads(row.record))
                hashes = tuple(item for item in earlier.decision.hashes if item.signal_type in matcher.signal_types)
                query = Query(hashes, earlier.context, earlier.decision.media)
                future = self._matching.submit(matcher, query, time.monotonic() + matcher.deadline_s)
            except Exception as error:  # noqa: BLE001 - one that cannot be asked must not keep the others waiting
                log.error("a late answer cannot be asked for: %s", type(error).__name__)
                self._later(row)
                continue
            asked.append((row, earlier, future))
            longest_s = max(longest_s, matcher.deadline_s + _GRACE_S)
        wait([future for _, _, future in asked], longest_s)
        for row, earlier, future in asked:
            self._conclude(row, earlier, future)
        return bool(rows)

    def _claim(self) -> list[_Row]:
        """Rows that are due, as many as may be asked at once; nobody else takes them while they can be under way."""
        matchers = self._matching.matchers
        lease_s = max((matcher.deadline_s for matcher in matchers.values()), default=0.0) + _LEASE_MARGIN_S
        rows: list[_Row] = []
        with self._using() as connection:
            now = time.time()  # not before: another process may have had the file for a while
            bounds = {
                "now": now,
                "longest_wait": now + _LONGEST_WAIT_S + _SLACK_S,
                "longest_lease": now + lease_s + _SLACK_S,
            }
            for name, matcher in matchers.items():
                wanted = {**bounds, "matcher": name, "most": matcher.max_calls}
                found = [_Row(*row) for row in connection.execute(_DUE, wanted)]
                until = now + matcher.deadline_s + _LEASE_MARGIN_S
                connection.executemany(
                    "update late set leased_until = ? where id = ?", [(until, row.id) for row in found]
                )
                rows += found
        self._note_backlog([now - row.created for row in rows if row.attempts == 0])
        return rows

    def _note_backlog(self, waited_s: Sequence[float]) -> None:
        """Say once that uploads wait for their first question, and not for answers: more come than are asked about."""
        if waited_s:
            was_behind, self._is_behind = self._is_behind, max(waited_s) > _BEHIND_S
            if self._is_behind and not was_behind:
                log.error(
                    "match services are behind: uploads that were answered %d s ago are asked about only now; "
                    "where this goes on, raise max_calls",
                    max(waited_s),
                )

    def _conclude(self, row: _Row, earlier: Recorded, future: Future[tuple[Match, ...]]) -> None:
        matcher = self._matching.matchers[row.matcher]
        matches: tuple[Match, ...] = ()
        failures: tuple[Failure, ...] = ()
        try:
            matches = _answer(future)
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not become the host's
            if self._closed.is_set():
                return
            if abs(time.time() - row.created) < matcher.retry_s:
                self._later(row)
                return
            failures = (failure_of(matcher, error),)
        revised = None
        if matches or failures:
            try:
                revised = self._revise(earlier, matches, failures, revised_reference(row.reference, row.matcher))
            except Exception as error:  # noqa: BLE001 - nothing may be lost, and others' answers must go on
                text = error if isinstance(error, UploadguardError) else type(error).__name__
                log.error("a late answer could not be kept, and is asked for again: %s", text)
                self._later(row)
                return
        self._settle(row, earlier, revised)

    def _settle(self, row: _Row, earlier: Recorded, revised: Decision | None) -> None:
        """It is done with. What was found counts when the others that the upload waits for answer."""
        with self._using() as connection:
            connection.execute("delete from late where id = ?", (row.id,))
            if revised is None:
                return
            if revised.verdict is Verdict.BLOCK and revised.matches:  # as in a check: then nobody else is asked
                connection.execute("delete from late where reference = ?", (row.reference,))
                return
            so_far = replace(revised, reference=row.reference, revises=None)
            record = json.dumps(to_record(so_far, earlier.context, earlier.decided_at))
            connection.execute("update late set record = ? where reference = ?", (record, row.reference))

    def _later(self, row: _Row) -> None:
        wait_s = min(_FIRST_WAIT_S * 2 ** min(row.attempts, 16), _LONGEST_WAIT_S)
        with self._using() as connection:
            connection.execute(
                "update late set next_at = ?, leased_until = 0, attempts = attempts + 1 where id = ?",
                (time.time() + wait_s, row.id),
            )

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block was left."""
        if not self._lock.acquire(timeout=_BUSY_S):  # a file that others hold up keeps no check longer than this
            raise NotRecordedError(f"what is still to be asked cannot be kept in {self._path}: it is busy")
        try:
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
        finally:
            self._lock.release()


_abandoned: list[Any] = []
"""Connections of a parent process: closing one in the child would take away the parent's locks."""


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma secure_delete = on")  # hashes and uploaders of ordinary uploads stand in it
    return connection


def answers_waiting(path: Path) -> dict[str, int]:
    """By match service, how many answers are still to come: read beside whoever writes, and in nobody's way.

    Raises :class:`NotRecordedError`.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            return dict(connection.execute("select matcher, count(*) from late group by matcher").fetchall())
    except sqlite3.Error as error:
        raise NotRecordedError(f"what is still to be asked cannot be read from {path}: {error}") from error


def revised_reference(earlier: str, matcher: str) -> str:
    """The reference of a revised decision: always the same, so that the ledger takes it in once."""
    digest = hashlib.sha256(f"{earlier}\0{matcher}".encode()).digest()
    return urlsafe_b64encode(digest[:12]).decode()


def _answer(future: Future[tuple[Match, ...]]) -> tuple[Match, ...]:
    if not future.done():
        future.cancel()
        raise MatcherError("it did not keep to its deadline")
    return future.result()


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
