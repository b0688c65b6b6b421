"""Records decisions before they are answered: in the database, else in the spool, else not at all, which is an error.

One thread of the process writes what checks hand it, all that waits in one transaction. A check waits for that no
longer than ``timeout_s``; then, or while the database is known to be down, it appends its record to the spool by
itself. Should the thread's transaction commit after all, the record is there twice, and the second one is dropped when
it is drained.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.errors import LedgerDownError, LedgerError, NotRecordedError
from uploadguard.ledger import recording, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.spool import Record, Spool, SpoolStatus
from uploadguard.logs import log

__all__ = ["Recorder", "RecorderStatus", "drain_spool", "take_records"]

_BATCH: Final = 64
_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """How recording is doing: into the ``database``, into the ``spool``, or ``refusing`` uploads.

    ``error`` is why it is not the database.
    """

    into: str
    error: str | None
    spool: SpoolStatus


class _Item:
    """A record on its way. ``done`` is set when it is in the database, or when ``error`` says why not."""

    __slots__ = ("done", "error", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.done = threading.Event()
        self.error: LedgerError | None = None


class Recorder:
    """Shared between threads. ``alarm`` is called, from any thread, when recording changes for the worse.

    ``down`` says why the database could not be used a moment ago.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        plan: recording.Plan,
        *,
        timeout_s: float,
        alarm: Callable[[Alarm], None],
        down: str | None = None,
    ) -> None:
        self._work = _Work(database, plan)
        self._work.down = down
        self._spool = spool
        self._timeout_s = timeout_s
        self._alarm = alarm
        self._state = threading.Lock()
        self._refusing: str | None = None
        self._spooling = False
        self._damaged = 0
        self._counts: Counter[tuple[datetime, str]] = Counter()
        weakref.finalize(self, self._work.stop).atexit = False

    @property
    def refusing(self) -> bool:
        """Whether the last record was taken by nobody, so that no upload may be answered."""
        return self._refusing is not None

    def require(self) -> None:
        """Raise :class:`~uploadguard.errors.NotRecordedError` from when a record was refused, until :meth:`tend` finds
        that the next one would not be."""
        if (reason := self._refusing) is not None:
            raise NotRecordedError(f"decisions cannot be recorded, so uploads are refused: {reason}")

    def record(self, record: Record) -> None:
        """Keep a record of :func:`~uploadguard.ledger.codec.to_record`. When this returns, it is durable.

        Raises :class:`~uploadguard.errors.NotRecordedError`.
        """
        error = self._work.write(record, self._timeout_s)
        if error is None:
            self._spooling = False
            return
        try:
            self._spool.append(record)
        except NotRecordedError as failure:
            with self._state:
                first, self._refusing = self._refusing is None, str(failure)
            if first:
                self._alarm(Alarm(AlarmKind.NOT_RECORDING, f"uploads are refused: {failure}; and {error}"))
            raise
        if not self._spooling and not self._work.is_stopped:
            self._spooling = True
            self._alarm(Alarm(AlarmKind.SPOOLING, f"decisions go to the spool: {error}"))

    def count(self, label: str) -> None:
        """Count a check by its verdict; :meth:`tend` brings the counts to the database."""
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        with self._state:
            self._counts[hour, label] += 1

    def tend(self) -> None:
        """Find out whether what was broken works again, drain the spool, write the counts.

        To be called every second or two, on a thread that may wait. Raises :class:`~uploadguard.errors.LedgerError`.
        """
        if self._refusing is not None:
            self._look_again()
        elif self._work.down is not None:
            self._work.probe()
        if self._spool.status().files:
            drained = drain_spool(self._work.database, self._spool, self._work.plan)
            if drained:
                log.warning("the ledger's database is back; %d decision(s) came from the spool", drained)
        self._tell_of_damage()
        with self._state:
            counts, self._counts = self._counts, Counter()
        if counts:
            try:
                _add_counts(self._work.database, counts)
            except LedgerError:
                with self._state:
                    self._counts.update(counts)
                raise

    def _tell_of_damage(self) -> None:
        before, self._damaged = self._damaged, self._spool.status().damaged
        if self._damaged > before:
            text = f"{self._damaged} file(s) in the spool wait for a person: decisions that are not in the database"
            self._alarm(Alarm(AlarmKind.SET_ASIDE, text, count=self._damaged))

    def _look_again(self) -> None:
        try:
            self._spool.probe()
        except NotRecordedError:
            self._work.probe()  # raises where this one does not work either
        self._refusing = None
        log.warning("decisions can be recorded again")

    def status(self) -> RecorderStatus:
        """How recording is doing."""
        spool = self._spool.status()
        if self._refusing is not None:
            return RecorderStatus("refusing", self._refusing, spool)
        error = self._work.down
        return RecorderStatus("database" if error is None else "spool", error, spool)

    def close(self) -> None:
        """Write what is under way, and stop."""
        self._work.stop()
        self._spool.close()

    def after_fork(self) -> None:
        """In a forked child: the parent's thread does not exist here."""
        self._state = threading.Lock()
        self._counts = Counter()
        self._work.after_fork()
        self._spool.after_fork()


class _Work:
    """What the writing thread works on; it does not know the recorder, so that this one can be forgotten."""

    def __init__(self, database: Database, plan: recording.Plan) -> None:
        self.database = database
        self.plan = plan
        self.down: str | None = None
        self._retry_at = 0.0
        self._retry_s = _RETRY_S
        self._reset()

    def _reset(self) -> None:
        self._queue: deque[_Item] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def write(self, record: Record, timeout_s: float) -> LedgerError | None:
        """Write one record. Returns why it is not in the database, or not certainly."""
        if self.down is not None and time.monotonic() < self._retry_at:
            return LedgerDownError(self.down)
        item = _Item(record)
        with self._wake:
            if self._stopped:
                return LedgerDownError("the recorder is closed")
            self._queue.append(item)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="uploadguard-record", daemon=True)
                self._thread.start()
            self._wake.notify()
        if item.done.wait(timeout_s):
            return item.error
        self._note_down(LedgerDownError(f"the ledger's database did not answer within {timeout_s:g} s"))
        return LedgerDownError(self.down or "")

    def probe(self) -> None:
        """Write something that changes nothing. Raises :class:`LedgerError` where the database does not take it."""
        with self.database.writing() as connection:
            connection.execute(sa.update(schema.audit_head).values(seq=schema.audit_head.c.seq))
        self.down, self._retry_s = None, _RETRY_S

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def after_fork(self) -> None:
        self._reset()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._stopped:
                    self._wake.wait()
                if not self._queue:
                    return
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._write(batch)

    def _write(self, batch: Sequence[_Item]) -> None:
        try:
            with self.database.writing() as connection:
                recording.record(connection, [item.record for item in batch], self.plan)
        except LedgerDownError as error:
            self._note_down(error)
            failed: LedgerError | None = error
        except Exception as error:  # noqa: BLE001 - one record's fault must not be the others'
            if len(batch) > 1:
                for item in batch:
                    self._write([item])
                return
            log.error("a decision could not be recorded in the database: %s", error)
            failed = error if isinstance(error, LedgerError) else LedgerError(f"{type(error).__name__} while recording")
        else:
            self.down, self._retry_s, failed = None, _RETRY_S, None
        for item in batch:
            item.error = failed
            item.done.set()

    def _note_down(self, error: LedgerDownError) -> None:
        self.down = str(error)
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _MAX_RETRY_S)


def drain_spool(database: Database, spool: Spool, plan: recording.Plan) -> int:
    """Bring what waits in the spool to the database; returns how many records. Raises :class:`LedgerDownError`."""

    return spool.drain(take_records(database, plan))


def take_records(database: Database, plan: recording.Plan) -> Callable[[Sequence[Record]], None]:
    """What brings records from a spool to the database."""

    def take(records: Sequence[Record]) -> None:
        with database.writing() as connection:
            recording.record(connection, records, plan)

    return take


def _add_counts(database: Database, counts: Mapping[tuple[datetime, str], int]) -> None:
    insert: Any
    if database.is_sqlite:
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert
    rows = [{"hour": hour, "name": name, "value": value} for (hour, name), value in sorted(counts.items())]
    with database.changing() as connection:
        for row in rows:
            statement = insert(schema.counts).values(**row)
            value = schema.counts.c.value + statement.excluded.value
            connection.execute(statement.on_conflict_do_update(index_elements=["hour", "name"], set_={"value": value}))
