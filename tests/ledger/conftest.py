"""A ledger to test with, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.ledger.postgres import running_postgres
from uploadguard.config import Settings
from uploadguard.ledger.codec import to_record
from uploadguard.ledger.database import Database, open_database
from uploadguard.models import Context, Decision, Hash, Match, Media, Verdict


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a running server's maintenance database."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The URL of a database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    url = sa.make_url(postgres).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings with a ledger, of either database, that is not there yet."""
    ledger: dict[str, object] = {"path": tmp_path / "ledger"}
    if request.param == "postgresql":
        ledger["url"] = request.getfixturevalue("postgres_url")
    return Settings.load(ledger=ledger, hashset={"path": tmp_path / "hashset"})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """An empty ledger's database."""
    opened = open_database(settings, create=True)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> Settings:
    """Settings with a ledger on SQLite that is not there yet."""
    return Settings.load(ledger={"path": tmp_path / "ledger"}, hashset={"path": tmp_path / "hashset"})


def made_up_record(
    *,
    verdict: Verdict = Verdict.QUEUE,
    entry: str | None = "entry-1",
    list_name: str = "made-up",
    sha256: bytes | None = None,
    report_due: bool = True,
    decided_at: datetime | None = None,
    context: Context | None = None,
) -> dict[str, object]:
    """A record of a made-up decision, as the ledger takes it."""
    sha256 = sha256 if sha256 is not None else os.urandom(32)
    matches = (Match(list_name, entry, "A1", "sha256", 0, exact=True),) if entry is not None else ()
    decision = Decision(
        verdict=verdict,
        reasons=("digest_match",) if matches else ("timeout",),
        matches=matches,
        failures=(),
        hashes=(Hash("sha256", sha256), Hash("md5", sha256[:16]), Hash("pdq", sha256, quality=90)),
        media=Media(1234, "image/jpeg", 640, 480, frames_total=1, frames_hashed=1),
        generation=7,
        report_due=report_due,
        timings_ms={"total": 12.5},
    )
    context = context or Context(uploader="somebody", filename="a.jpg", ip="192.0.2.7", port=4711, object_id="obj-1")
    return to_record(decision, context, decided_at or datetime.now(UTC))
