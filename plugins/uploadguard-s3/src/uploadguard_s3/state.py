"""What was decided and done already, kept so that it survives a crash at any point.

One row for each key, with the newest version dealt with and who works on the key now (a lease), and one for each
version, with its verdict. Names of buckets and keys are kept only as SHA-256, so the database tells nobody what was
uploaded. SQLite for the workers of one host, PostgreSQL for those of several.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from uploadguard.errors import ConfigError, LedgerError
from uploadguard.ledger.database import Database
from uploadguard.models import Verdict
from uploadguard_s3.model import ObjectRef, S3Retry
from uploadguard_s3.options import StateOptions

__all__ = ["Begun", "Known", "Moment", "State", "content_id", "key_id", "version_id", "version_of"]

T = TypeVar("T")

_PURGE_EVERY_S = 3600.0
_PURGE_ROWS = 5000
_DAY_S = 86400.0

_metadata = sa.MetaData()

_keys = sa.Table(
    "uploadguard_s3_keys",
    _metadata,
    sa.Column("key_id", sa.LargeBinary(32), primary_key=True),
    sa.Column("owner", sa.Text),
    sa.Column("leased_until", sa.Double, nullable=False),
    sa.Column("newest", sa.LargeBinary(32)),
    sa.Column("sequencer", sa.Text),
    sa.Column("modified", sa.Double),
    sa.Column("touched", sa.Double, nullable=False, index=True),
)

_versions = sa.Table(
    "uploadguard_s3_versions",
    _metadata,
    sa.Column("version_id", sa.LargeBinary(32), primary_key=True),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("modified", sa.Double, nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("effects", sa.Text, nullable=False),
    sa.Column("published", sa.Boolean, nullable=False),
    sa.Column("content", sa.LargeBinary(32)),
    sa.Column("touched", sa.Double, nullable=False, index=True),
)


def key_id(bucket: str, key: str) -> bytes:
    """What the state knows a key by."""
    return hashlib.sha256(f"{bucket}\0{key}".encode("utf-8", "surrogatepass")).digest()


def version_id(bucket: str, key: str, token: str) -> bytes:
    """What the state knows a version by; ``token`` tells it from the others of its key."""
    return hashlib.sha256(f"{bucket}\0{key}\0{token}".encode("utf-8", "surrogatepass")).digest()


def version_of(ref: ObjectRef) -> bytes | None:
    """The same of an object version; None where ``ref`` names none."""
    if ref.is_fixed:
        return version_id(ref.bucket, ref.key, f"version {ref.version_id}")
    return version_id(ref.bucket, ref.key, f"etag {ref.etag}") if ref.etag is not None else None


def content_id(version: bytes, sha256: bytes) -> bytes:
    """What the state knows a version's bytes by: their digest, which looked up alone tells nothing."""
    return hashlib.sha256(version + sha256).digest()


@dataclass(frozen=True, slots=True)
class Moment:
    """When a version came to be: its ``sequencer``, where an event told one, and ``modified``, in seconds."""

    version: bytes
    sequencer: str | None
    modified: float

    def before(self, other: Moment) -> bool:
        """Whether this version is older: by the sequencers of both, else by their times."""
        if self.sequencer is not None and other.sequencer is not None:
            digits = max(len(self.sequencer), len(other.sequencer))
            mine, others = (one.upper().ljust(digits, "0") for one in (self.sequencer, other.sequencer))
            return mine < others
        return self.modified < other.modified


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a version that was checked. ``published`` is whether there was made a public copy of it.

    ``content`` is the :func:`content_id` of the bytes that were checked, if they were read.
    """

    verdict: Verdict
    reference: str
    generation: int
    modified: float
    done: bool
    effects: tuple[str, ...] = ()
    published: bool = False
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A key that this worker has for itself now: its newest version so far, and what is known of the one asked for."""

    key: bytes
    owner: str
    newest: Moment | None
    known: Known | None


class State:
    """The state's database. All methods raise :class:`~uploadguard_s3.model.S3Retry` where it cannot be used.

    Raises :class:`~uploadguard.errors.ConfigError` for a URL that is none.
    """

    def __init__(self, options: StateOptions) -> None:
        url = os.environ[options.url_env] if options.url_env is not None else f"sqlite:///{options.path.absolute()}"
        try:
            self._database = Database(url)
        except ConfigError:
            raise ConfigError(
                "the variable that state.url_env names holds no URL of a PostgreSQL database, or its driver is "
                "missing: pip install 'uploadguard-s3[postgresql]'"
            ) from None
        self._options = options
        self._threads = ThreadPoolExecutor(
            1 if self._database.is_sqlite else 4, thread_name_prefix="uploadguard-s3-state"
        )
        self._purge_at = 0.0

    @property
    def lease_s(self) -> float:
        """How long a key stays reserved without being renewed."""
        return self._options.lease_s

    async def open(self) -> None:
        """Make the tables, where there are none."""
        await self._run(lambda connection: _metadata.create_all(connection), locked=True)

    async def close(self) -> None:
        """Let go of the database."""
        await asyncio.to_thread(self._threads.shutdown)
        self._database.close()

    async def begin(self, key: bytes, version: bytes | None) -> Begun | None:
        """Reserve a key. None where another worker has it."""
        owner = secrets.token_hex(8)
        return await self._run(functools.partial(self._begin, key, version, owner))

    async def known(self, versions: Sequence[bytes]) -> Mapping[bytes, Known]:
        """What is known of these versions."""
        return await self._run(lambda connection: _known(connection, versions), writes=False)

    async def newest(self, key: bytes) -> Moment | None:
        """The newest version of a key that was dealt with."""
        return await self._run(lambda connection: _newest(connection, key), writes=False)

    async def renew(self, begun: Begun) -> None:
        """Reserve the key for longer. Raises :class:`S3Retry` where another worker has it by now."""
        await self._run(functools.partial(self._hold, begun, self._options.lease_s))

    async def decide(self, begun: Begun, version: bytes, known: Known) -> None:
        """Keep a verdict, before anything is done by it. Raises as :meth:`renew`."""
        await self._run(functools.partial(self._decide, begun, version, known))

    async def finish(self, begun: Begun, version: bytes, known: Known, moment: Moment) -> None:
        """All is done: keep that, and which version is the newest, and let others have the key."""
        await self._run(functools.partial(self._finish, begun, version, known, moment))

    async def release(self, begun: Begun, moment: Moment | None = None) -> None:
        """Let others have the key. ``moment`` is of a version that was seen again, maybe with a sequencer now."""
        await self._run(functools.partial(self._release, begun, moment))

    async def purge(self) -> None:
        """Forget what is older than the settings say, a part at a time. Does nothing if it did within the hour."""
        if time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + _PURGE_EVERY_S
            await self._run(self._purge)

    async def _run(self, work: Callable[[Connection], T], *, writes: bool = True, locked: bool = False) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work, writes, locked)

    def _do(self, work: Callable[[Connection], T], writes: bool, locked: bool) -> T:
        try:
            with self._database.changing() if writes else self._database.reading() as connection:
                if locked and not self._database.is_sqlite:  # two workers that start at once make the tables once
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                return work(connection)
        except LedgerError as error:
            raise S3Retry("the database of the state cannot be used") from error

    def _now(self, connection: Connection) -> float:
        """By the clock that all workers share."""
        if self._database.is_sqlite:
            return time.time()
        clock = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))
        return float(connection.execute(clock).scalar_one())

    def _begin(self, key: bytes, version: bytes | None, owner: str, connection: Connection) -> Begun | None:
        now = self._now(connection)
        row = {"key_id": key, "owner": owner, "leased_until": now + self._options.lease_s, "touched": now}
        insert = _insert(connection, _keys).values(row)
        taken = insert.on_conflict_do_update(
            index_elements=[_keys.c.key_id],
            set_={name: insert.excluded[name] for name in ("owner", "leased_until", "touched")},
            where=_keys.c.leased_until < now,
        ).returning(_keys.c.key_id)
        if connection.execute(taken).one_or_none() is None:
            return None
        known = _known(connection, [version]) if version is not None else {}
        return Begun(key, owner, _newest(connection, key), known.get(version) if version is not None else None)

    def _hold(self, begun: Begun, lease_s: float, connection: Connection) -> None:
        until = self._now(connection) + lease_s if lease_s else 0.0
        mine = (_keys.c.key_id == begun.key) & (_keys.c.owner == begun.owner)
        if connection.execute(_keys.update().where(mine).values(leased_until=until)).rowcount == 0:
            raise S3Retry("it took so long that another worker has the key now")

    def _decide(self, begun: Begun, version: bytes, known: Known, connection: Connection) -> None:
        self._hold(begun, self._options.lease_s, connection)
        row = {
            "version_id": version,
            "verdict": known.verdict.label,
            "reference": known.reference,
            "generation": known.generation,
            "modified": known.modified,
            "done": known.done,
            "effects": " ".join(known.effects),
            "published": known.published,
            "content": known.content,
            "touched": self._now(connection),
        }
        insert = _insert(connection, _versions).values(row)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[_versions.c.version_id],
                set_={name: insert.excluded[name] for name in row if name != "version_id"},
            )
        )

    def _finish(self, begun: Begun, version: bytes, known: Known, moment: Moment, connection: Connection) -> None:
        self._decide(begun, version, known, connection)
        self._release(begun, moment, connection)

    def _release(self, begun: Begun, moment: Moment | None, connection: Connection) -> None:
        self._hold(begun, 0.0, connection)
        if moment is not None:
            _set_newest(connection, begun.key, moment)

    def _purge(self, connection: Connection) -> None:
        now = self._now(connection)
        before = now - self._options.retention_days * _DAY_S
        for table, column in ((_versions, _versions.c.version_id), (_keys, _keys.c.key_id)):
            old = sa.select(column).where(table.c.touched < before).limit(_PURGE_ROWS)
            connection.execute(table.delete().where(column.in_(old.scalar_subquery())))


_LOCK = int.from_bytes(hashlib.sha256(b"uploadguard-s3").digest()[:8], "big", signed=True)


def _insert(connection: Connection, table: sa.Table) -> Any:
    """An ``INSERT`` that may say what to do where the row is there."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _known(connection: Connection, versions: Iterable[bytes]) -> dict[bytes, Known]:
    found = connection.execute(_versions.select().where(_versions.c.version_id.in_(list(versions))))
    return {
        bytes(row.version_id): Known(
            verdict=Verdict.from_label(row.verdict),
            reference=row.reference,
            generation=row.generation,
            modified=row.modified,
            done=row.done,
            effects=tuple(row.effects.split()),
            published=row.published,
            content=bytes(row.content) if row.content is not None else None,
        )
        for row in found
    }


def _newest(connection: Connection, key: bytes) -> Moment | None:
    row = connection.execute(_keys.select().where(_keys.c.key_id == key)).one_or_none()
    if row is None or row.newest is None:
        return None
    return Moment(bytes(row.newest), row.sequencer, row.modified)


def _set_newest(connection: Connection, key: bytes, moment: Moment) -> None:
    newest = _newest(connection, key)
    if newest is not None:
        if moment.version == newest.version:
            sequencers = [one for one in (moment.sequencer, newest.sequencer) if one is not None]
            latest = max(sequencers, key=lambda one: one.upper().ljust(128, "0"), default=None)
            moment = Moment(moment.version, latest, max(moment.modified, newest.modified))
        elif moment.before(newest):
            return
    row = {"newest": moment.version, "sequencer": moment.sequencer, "modified": moment.modified}
    connection.execute(_keys.update().where(_keys.c.key_id == key).values(row))
