"""The console's own accounts, and who is signed in. Passwords are generated, and kept as Argon2id hashes only.

The package argon2-cffi (extra ``console``) is imported when the first password is made or compared.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import ConfigError, LedgerError, UnknownRecordError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role, is_machine

if TYPE_CHECKING:
    from argon2 import PasswordHasher

__all__ = ["LIFETIME", "Account", "Accounts", "Session"]

LIFETIME = timedelta(hours=12)
"""How long a session lives at most, however busy it is."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Nothing that is easily taken for another."""
_SEEN_EVERY = timedelta(seconds=30)
_MAX_PASSWORD = 256
_HASHES_AT_ONCE = 4
_TOO_MANY = "too many people are signing in at this moment"
_HASH_WAIT_S = 10.0
_HASHES_WAITING = 8


@dataclass(frozen=True, slots=True)
class Account:
    """One account, without its password."""

    name: str
    roles: frozenset[Role]
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. ``csrf`` is a secret that belongs to the session and never leaves the server."""

    person: Person
    csrf: str = field(repr=False)


class Accounts:
    """The accounts in the ledger's database, and their sessions. Shared between threads.

    ``idle`` is after how long without a request a session ends. ``clock`` is for tests.
    """

    def __init__(
        self,
        database: Database,
        *,
        idle: timedelta = timedelta(hours=1),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._idle = idle
        self._clock = clock
        self._hasher: PasswordHasher | None = None
        self._nobody: str | None = None
        self._hashing = threading.BoundedSemaphore(_HASHES_AT_ONCE)
        self._waiting = threading.BoundedSemaphore(_HASHES_AT_ONCE + _HASHES_WAITING)

    def add(self, name: str, roles: Collection[Role], by: Person) -> str:
        """Make an account; returns its password, which nobody can look up later.

        Raises :class:`~uploadguard.errors.LedgerError` for a name that is taken, also in other case, or none.
        """
        by.require(Role.ADMIN)
        if _NAME.fullmatch(name) is None:
            raise LedgerError("an account's name has 1 to 64 letters, digits and . _ @ -, the first not a mark")
        if is_machine(name):
            raise LedgerError(f"{name} is no person's name: the audit log has it for the library itself")
        password = _new_password()
        hashed = self._hash(password)
        row = {"name": name, "password": hashed, "roles": _stored(roles), "created_at": self._clock()}
        with self._database.writing() as connection:
            lowered = sa.func.lower(schema.accounts.c.name)
            if connection.execute(sa.select(schema.accounts.c.name).where(lowered == name.lower())).first() is not None:
                raise LedgerError("there is an account of that name already")
            connection.execute(sa.insert(schema.accounts).values(row))
            audit.append(connection, by.name, "account.add", f"account:{name}", roles=_stored(roles))
        return password

    def set_password(self, name: str, by: Person) -> str:
        """Give an account a new password, which is returned, and end its sessions. Raises ``UnknownRecordError``."""
        password = _new_password()
        self._change(name, by, "account.password", password=self._hash(password))
        return password

    def set_roles(self, name: str, roles: Collection[Role], by: Person) -> None:
        """Give an account other roles, from its next request on. Raises ``UnknownRecordError``."""
        self._change(name, by, "account.roles", roles=_stored(roles))

    def disable(self, name: str, by: Person) -> None:
        """Shut an account out, and end its sessions. Raises ``UnknownRecordError``."""
        self._change(name, by, "account.disable", disabled=True)

    def enable(self, name: str, by: Person) -> None:
        """Let an account in again. Raises ``UnknownRecordError``."""
        self._change(name, by, "account.enable", disabled=False)

    def list(self) -> tuple[Account, ...]:
        """All accounts, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(schema.accounts).order_by(schema.accounts.c.name)).all()
        return tuple(Account(row.name, _roles(row.roles), row.disabled, row.created_at) for row in rows)

    def verify(self, name: str, password: str) -> Person | None:
        """Who that is; None for a wrong password, and just as slowly for an unknown or disabled account."""
        found = self._verify(name, password)
        return None if found is None else found[0]

    def _verify(self, name: str, password: str) -> tuple[Person, str] | None:
        """As :meth:`verify`, and the hash that the account has now."""
        with self._database.reading() as connection:
            row = _row(connection, name)
        usable = row is not None and not row.disabled and len(password) <= _MAX_PASSWORD
        if row is None or not usable:
            self._compare(None, password[:_MAX_PASSWORD])
            return None
        if not self._compare(row.password, password):
            return None
        hashed: str = row.password
        if self._argon2().check_needs_rehash(hashed):
            hashed = self._rehash(name, hashed, password)
        return Person(name, _roles(row.roles)), hashed

    def sign_in(self, name: str, password: str) -> str | None:
        """The token of a new session, for a cookie; None as :meth:`verify`. The sign-in is in the audit log."""
        found = self._verify(name, password)
        if found is None:
            return None
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._database.writing() as connection:
            row = _row(connection, name)
            # A new password meanwhile has ended all sessions of the old one.
            if row is None or row.disabled or row.password != found[1]:
                return None
            connection.execute(
                sa.insert(schema.sessions).values(
                    token=_digest(token), account=name, csrf=secrets.token_urlsafe(32), created_at=now, seen_at=now
                )
            )
            connection.execute(sa.delete(schema.sessions).where(self._over(now)))
            audit.append(connection, name, "account.sign_in", f"account:{name}")
        return token

    def session(self, token: str) -> Session | None:
        """The session of that token, while it lasts; this counts as a sign of life."""
        sessions, now = schema.sessions.c, self._clock()
        query = (
            sa.select(schema.accounts.c.name, schema.accounts.c.roles, sessions.csrf, sessions.seen_at)
            .join_from(schema.sessions, schema.accounts)
            .where(sessions.token == _digest(token), ~schema.accounts.c.disabled, ~self._over(now))
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if now - row.seen_at >= min(_SEEN_EVERY, self._idle / 10):
            with self._database.changing() as connection:
                connection.execute(
                    sa.update(schema.sessions).where(sessions.token == _digest(token)).values(seen_at=now)
                )
        return Session(Person(row.name, _roles(row.roles)), row.csrf)

    def sign_out(self, token: str) -> None:
        """End a session, if there is one."""
        with self._database.changing() as connection:
            connection.execute(sa.delete(schema.sessions).where(schema.sessions.c.token == _digest(token)))

    def _over(self, now: datetime) -> sa.ColumnElement[bool]:
        sessions = schema.sessions.c
        return sa.or_(sessions.seen_at <= now - self._idle, sessions.created_at <= now - LIFETIME)

    def _change(self, name: str, by: Person, what: str, **values: object) -> None:
        by.require(Role.ADMIN)
        shown = {"roles": values["roles"]} if "roles" in values else {}
        with self._database.writing() as connection:
            if _row(connection, name) is None:
                raise UnknownRecordError("there is no account of that name")
            connection.execute(sa.update(schema.accounts).where(schema.accounts.c.name == name).values(values))
            if what in ("account.password", "account.disable"):
                connection.execute(sa.delete(schema.sessions).where(schema.sessions.c.account == name))
            audit.append(connection, by.name, what, f"account:{name}", **shown)

    def _rehash(self, name: str, old: str, password: str) -> str:
        hashed = self._hash(password)
        accounts = schema.accounts.c
        with self._database.changing() as connection:
            connection.execute(
                sa.update(schema.accounts)
                .where(accounts.name == name, accounts.password == old)
                .values(password=hashed)
            )
        return hashed

    def _hash(self, password: str) -> str:
        return self._argon2().hash(password)

    def _compare(self, hashed: str | None, password: str) -> bool:
        """Whether that is the password; without a hash it is compared with nobody's."""
        from argon2.exceptions import InvalidHashError, VerificationError

        hasher = self._argon2()
        # Each comparison takes 64 MiB: outsiders may ask for them, so few run at once. Few wait, too: each holds a
        # thread that people who are signed in need.
        if not self._waiting.acquire(blocking=False):
            raise LedgerError(_TOO_MANY)
        try:
            if not self._hashing.acquire(timeout=_HASH_WAIT_S):
                raise LedgerError(_TOO_MANY)
            try:
                return hasher.verify(hashed if hashed is not None else self._hash_of_nobody(), password)
            except (VerificationError, InvalidHashError):
                return False
            finally:
                self._hashing.release()
        finally:
            self._waiting.release()

    def _hash_of_nobody(self) -> str:
        if self._nobody is None:
            self._nobody = self._hash(_new_password())
        return self._nobody

    def _argon2(self) -> PasswordHasher:
        if self._hasher is None:
            try:
                from argon2 import PasswordHasher
            except ImportError as error:
                raise ConfigError("accounts need argon2-cffi: pip install 'uploadguard[console]'") from error
            self._hasher = PasswordHasher()
        return self._hasher


def _new_password() -> str:
    """Five groups of five letters: 123 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(5))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _stored(roles: Collection[Role]) -> list[str]:
    return sorted({role.value for role in roles})


def _roles(stored: Collection[str]) -> frozenset[Role]:
    """The roles of a row. What a later version knew and this one does not allows nothing."""
    return frozenset(role for role in Role if role.value in stored)


def _row(connection: Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(schema.accounts).where(schema.accounts.c.name == name)).one_or_none()
