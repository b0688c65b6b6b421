"""Accounts and sessions, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from uploadguard.errors import LedgerError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.accounts import LIFETIME, Accounts
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role

ADMIN = Person("root", frozenset({Role.ADMIN}))


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    return Accounts(database, idle=timedelta(minutes=30), clock=clock)


def audited(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(sa.select(schema.audit.c.entry).order_by(schema.audit.c.seq)).scalars())


def test_an_account_signs_in_with_its_generated_password(accounts: Accounts, database: Database) -> None:
    password = accounts.add("ada", [Role.REVIEW, Role.REVEAL], ADMIN)
    assert accounts.verify("ada", password) == Person("ada", frozenset({Role.REVIEW, Role.REVEAL}))
    assert accounts.verify("ada", password + "x") is None
    assert accounts.verify("bob", password) is None
    with database.reading() as connection:
        stored = connection.execute(sa.select(schema.accounts.c.password)).scalar_one()
    assert stored.startswith("$argon2id$")
    assert password not in stored
    assert '"account.add"' in audited(database)[0]
    assert not any(password in entry or stored in entry for entry in audited(database))
    (listed,) = accounts.list()
    assert (listed.name, listed.disabled) == ("ada", False)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_names_that_are_none(accounts: Accounts, name: str) -> None:
    with pytest.raises(LedgerError, match="letters"):
        accounts.add(name, [Role.REVIEW], ADMIN)


def test_a_name_is_taken_once_and_only_admins_make_accounts(accounts: Accounts) -> None:
    accounts.add("ada", [Role.REVIEW], ADMIN)
    for name in ("ada", "Ada"):
        with pytest.raises(LedgerError, match="already"):
            accounts.add(name, [Role.ADMIN], ADMIN)
    for name in ("guard", "System", "OUTBOX"):
        with pytest.raises(LedgerError, match="no person's name"):
            accounts.add(name, [Role.REVIEW], ADMIN)
    with pytest.raises(NotPermittedError):
        accounts.add("eve", [Role.ADMIN], Person("mallory", frozenset({Role.REVIEW})))
    with pytest.raises(UnknownRecordError):
        accounts.disable("nobody", ADMIN)


def test_a_session_ends_when_idle_when_old_and_when_signed_out(accounts: Accounts, clock: Clock) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    token = accounts.sign_in("ada", password)
    assert token is not None
    session = accounts.session(token)
    assert session is not None
    assert session.person.name == "ada"
    assert session.csrf not in repr(session)
    assert accounts.session("x" + token) is None
    for _ in range(3):
        clock.forward(minutes=29)
        assert accounts.session(token) is not None, "each request keeps it alive"
    clock.forward(minutes=30)
    assert accounts.session(token) is None

    busy = accounts.sign_in("ada", password)
    assert busy is not None
    started = clock.now
    while clock.now - started < LIFETIME - timedelta(minutes=20):
        clock.forward(minutes=20)
        assert accounts.session(busy) is not None
    clock.forward(minutes=20)
    assert accounts.session(busy) is None, "the longest life is over"

    out = accounts.sign_in("ada", password)
    assert out is not None
    accounts.sign_out(out)
    assert accounts.session(out) is None


def test_what_is_stored_of_a_session_is_no_use_to_a_thief(accounts: Accounts, database: Database) -> None:
    token = accounts.sign_in("ada", accounts.add("ada", [Role.REVIEW], ADMIN))
    assert token is not None
    with database.reading() as connection:
        stored = connection.execute(sa.select(schema.sessions.c.token)).scalar_one()
    assert len(stored) == 32
    assert stored != token.encode()
    assert accounts.session(stored.hex()) is None


def test_disabling_and_new_passwords_end_sessions_and_roles_change_at_once(accounts: Accounts) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    token = accounts.sign_in("ada", password)
    assert token is not None
    accounts.set_roles("ada", [Role.AUDIT], ADMIN)
    session = accounts.session(token)
    assert session is not None
    assert session.person.roles == {Role.AUDIT}
    renewed = accounts.set_password("ada", ADMIN)
    assert accounts.session(token) is None
    assert accounts.verify("ada", password) is None
    token = accounts.sign_in("ada", renewed)
    assert token is not None
    accounts.disable("ada", ADMIN)
    assert accounts.session(token) is None
    assert accounts.sign_in("ada", renewed) is None
    accounts.enable("ada", ADMIN)
    assert accounts.session(token) is None, "an ended session stays so"
    assert accounts.sign_in("ada", renewed) is not None


def test_an_old_password_opens_no_session_that_the_new_one_should_have_ended(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    compare = accounts._compare

    def renewed_meanwhile(hashed: str | None, text: str) -> bool:
        right = compare(hashed, text)
        accounts.set_password("ada", ADMIN)
        return right

    monkeypatch.setattr(accounts, "_compare", renewed_meanwhile)
    assert accounts.sign_in("ada", password) is None


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_many_who_sign_in_hold_few_threads(accounts: Accounts, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    go_on, refused = threading.Event(), threading.Event()

    class Slow:
        def hash(self, _password: str) -> str:
            return "x" if go_on.wait(30) else ""

        def verify(self, _hashed: str, _password: str) -> bool:
            return go_on.wait(30)

        def check_needs_rehash(self, _hashed: str) -> bool:
            return False

    monkeypatch.setattr(accounts, "_hasher", Slow())

    def attempt() -> bool:
        try:
            accounts.verify(name, password)
            return True
        except LedgerError:
            refused.set()
            return False

    with ThreadPoolExecutor(16) as pool:
        attempts = [pool.submit(attempt) for _ in range(16)]
        # While none that were let in is done.
        was_refused = refused.wait(8)
        go_on.set()
        let_in = sum(one.result() for one in attempts)
    assert was_refused
    assert let_in >= 4


def test_sessions_that_are_over_are_removed_at_the_next_sign_in(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    for _ in range(3):
        accounts.sign_in("ada", password)
        clock.forward(hours=1)
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.sessions)).scalar_one() == 1


def test_an_old_hash_is_renewed_at_the_next_sign_in(accounts: Accounts, database: Database) -> None:
    from argon2 import PasswordHasher

    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
    with database.changing() as connection:
        connection.execute(sa.update(schema.accounts).values(password=weak))
    assert accounts.verify("ada", password) is not None
    with database.reading() as connection:
        stored = connection.execute(sa.select(schema.accounts.c.password)).scalar_one()
    assert stored != weak
    assert not PasswordHasher().check_needs_rehash(stored)
    assert accounts.verify("ada", password) is not None


def test_an_unknown_name_costs_as_much_as_a_known_one(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    password = accounts.add("ada", [Role.REVIEW], ADMIN)
    accounts.add("bob", [Role.REVIEW], ADMIN)
    accounts.disable("bob", ADMIN)
    compared: list[str] = []
    hasher = accounts._argon2()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(hasher, name)

        def verify(self, hashed: str, text: str) -> bool:
            compared.append(hashed)
            return hasher.verify(hashed, text)

    monkeypatch.setattr(accounts, "_hasher", Watched())
    for name in ("ada", "bob", "nobody"):
        assert accounts.verify(name, "wrong") is None
    assert accounts.verify("ada", password * 20) is None
    assert len(compared) == 4
    assert len({hashed.rsplit("$", 2)[0] for hashed in compared}) == 1, "with the same parameters"
