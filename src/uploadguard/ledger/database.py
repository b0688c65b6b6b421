"""The connection to the ledger's database: SQLite or PostgreSQL, durable commits, bounded waits.

Three kinds of transaction. :meth:`Database.reading` reads. :meth:`Database.changing` writes what one row's owner
writes: a task's progress, a session. :meth:`Database.writing` is for all else: it locks the head of the audit log
first, so that those who record, decide and purge follow one another in one order, on one host or on many. What they
write must include an entry of the audit log (:func:`uploadguard.ledger.audit.append`), in the same transaction.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from uploadguard.errors import ConfigError, LedgerDownError, LedgerError
from uploadguard.ledger import schema

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["SQLITE_NAME", "Database", "database_url", "open_database"]

SQLITE_NAME = "ledger.db"
_CONNECT_TIMEOUT_S = 3
_LEAST_IDLE_MS = 5000
"""After so long the server ends a transaction whose process stands still, and may hold the lock that all wait for."""
_POOL = 8
_IDENTITY = "uploadguard.file"


class Database:
    """The ledger's database. Shared between threads; after a fork the child calls :meth:`after_fork`.

    ``timeout_s`` bounds how long a statement may wait: for a lock, a connection, an answer.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """Connects when first used. Raises :class:`~uploadguard.errors.ConfigError` for a URL that is none."""
        self.engine = _make_engine(url, timeout_s)
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    def __repr__(self) -> str:
        return f"Database({self.engine.dialect.name})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads. Raises :class:`LedgerError` where the database fails."""
        with self._errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end, rolled back where something is raised."""
        with self._errors(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with _ended(connection):
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """As :meth:`changing`, one at a time: the audit log's head is locked until the end."""
        with self.changing() as connection:
            head = sa.select(schema.audit_head.c.seq).where(schema.audit_head.c.id == 1)
            if connection.execute(head.with_for_update()).scalar() is None:
                raise LedgerError("the ledger's audit log has no head: `uploadguard audit verify` says more")
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone, and make new ones when needed."""
        self.engine.dispose(close=False)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            if _is_of_a_value(error):
                raise LedgerError(f"the ledger's database refused a value: {_first_line(error)}") from error
            raise LedgerDownError(f"the ledger's database cannot be used: {_first_line(error)}") from error
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"the ledger's database failed: {type(error).__name__}") from error


@contextmanager
def _ended(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _is_of_a_value(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether it is what was to be written that is at fault, and not the database: then another record may go in."""
    if not isinstance(error, sa.exc.DBAPIError) or error.connection_invalidated:
        return False
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError):
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_VALUE_STATES)
    # What the driver refuses by itself: it knows no such type.
    text = str(error.orig)
    return isinstance(error, sa.exc.ProgrammingError | sa.exc.InterfaceError) and (
        "cannot adapt" in text or "binding parameter" in text
    )


_VALUE_STATES = ("22", "23", "54", "42804", "42883")
"""PostgreSQL's SQLSTATEs: bad data, broken constraints, beyond a limit of the program's (an index's row), types that do
not go together."""


def _first_line(error: Exception) -> str:
    """What the driver says, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    return str(original).partition("\n")[0][:200] or type(original).__name__


def _make_engine(url: str, timeout_s: float) -> Engine:
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            parsed,
            connect_args={"timeout": timeout_s, "check_same_thread": False, "isolation_level": None},
            pool_size=_POOL,
            pool_timeout=timeout_s,
            poolclass=sa.pool.QueuePool,
            hide_parameters=True,
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        if parsed.database and parsed.database != ":memory:":
            _SameFile(parsed.database).watch(engine)
        return engine
    ms = int(timeout_s * 1000)
    return sa.create_engine(
        parsed,
        connect_args={
            "connect_timeout": max(_CONNECT_TIMEOUT_S, 2),
            "options": f"-c statement_timeout={ms} -c lock_timeout={ms} -c synchronous_commit=on -c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={max(ms, _LEAST_IDLE_MS)}",
            "tcp_user_timeout": ms,
            "keepalives_idle": 30,
            "application_name": "uploadguard",
        },
        pool_size=_POOL,
        pool_timeout=timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
    )


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except sa.exc.ArgumentError:
        raise ConfigError("ledger.url is not a database URL; write postgresql://user@host/database") from None
    if backend == "sqlite":
        return parsed
    if backend not in ("postgresql", "postgres"):
        raise ConfigError("ledger.url must be a PostgreSQL URL; for SQLite leave it out: the file is in ledger.path")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise ConfigError("ledger.url needs the psycopg package: pip install 'uploadguard[postgresql]'") from None
    return parsed.set(drivername="postgresql+psycopg")


def _prepare_sqlite(connection: Any, _: object) -> None:
    """The settings that make a commit durable and readers independent of the writer."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


class _SameFile:
    """Keeps connections from an SQLite file that was deleted or replaced: they would take all, and nobody find it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._was_there = False

    def watch(self, engine: Engine) -> None:
        sa.event.listen(engine, "do_connect", self._before)
        sa.event.listen(engine, "connect", self._after)
        sa.event.listen(engine, "checkout", self._look)

    def _before(self, *_: object) -> None:
        # SQLite would make a new file, without tables. Only the first connection may: that is how a ledger begins.
        if self._was_there and self._identity() is None:
            raise sqlite3.OperationalError(
                f"{self._path}: the file is gone; restore it, or make a new ledger with `uploadguard ledger upgrade`"
            )

    def _after(self, _: object, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info[_IDENTITY] = self._identity()
        self._was_there = True

    def _look(self, _: object, record: sa.pool.ConnectionPoolEntry, __: object) -> None:
        if self._identity() != record.info[_IDENTITY]:
            raise sa.exc.DisconnectionError(f"{self._path}: is another file than the one that is open")

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def database_url(settings: Settings) -> str | None:
    """The URL that the settings name, by themselves or in the environment; None where there is no ledger.

    Raises :class:`~uploadguard.errors.ConfigError`.
    """
    ledger = settings.ledger
    if ledger.path is None:
        if ledger.url is not None or ledger.url_env is not None:
            raise settings.error([(("ledger", "path"), "is needed beside the URL: decisions wait there in an outage")])
        return None
    if ledger.url is not None and ledger.url_env is not None:
        raise settings.error([(("ledger", "url_env"), "stands beside ledger.url; give one of the two")])
    if ledger.url_env is not None:
        found = os.environ.get(ledger.url_env)
        if not found:
            raise settings.error([(("ledger", "url_env"), "the environment variable that it names is not set")])
        return found
    if ledger.url is not None:
        return ledger.url
    return f"sqlite:///{ledger.path / SQLITE_NAME}"


def open_database(
    settings: Settings, *, create: bool = False, timeout_s: float | None = None, check: bool = True
) -> Database:
    """The ledger's database, which must be there and of this version; ``create`` makes it, or brings it up to date.

    Without ``check`` it is not looked at now. ``timeout_s`` bounds each wait for it, 10 by default.

    Raises :class:`~uploadguard.errors.LedgerError`, :class:`~uploadguard.errors.ConfigError`.
    """
    from uploadguard.ledger.migrations import require_current, upgrade

    url = database_url(settings)
    if url is None or settings.ledger.path is None:
        raise ConfigError("there is no ledger: ledger.path is not set")
    path = settings.ledger.path
    if create:
        _make_private(path)
    elif not path.is_dir():
        raise LedgerError(f"{path}: no ledger there; `uploadguard init` or `uploadguard ledger upgrade` makes it")
    database = Database(url, timeout_s=timeout_s if timeout_s is not None else 10.0)
    try:
        if create:
            upgrade(database)
            if database.is_sqlite:
                (path / SQLITE_NAME).chmod(0o600)
        elif check:
            require_current(database, path / SQLITE_NAME if database.is_sqlite else None)
    except BaseException:
        database.close()
        raise
    return database


def _make_private(path: Path) -> None:
    """The directory, for this user alone if it is new."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not stat.S_ISDIR(path.stat().st_mode):
            raise LedgerError(f"{path}: is not a directory")
    except OSError as error:
        raise LedgerError(f"{path}: cannot be made: {error.strerror}") from error
