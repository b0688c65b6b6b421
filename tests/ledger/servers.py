"""An empty ledger's database by its URL, for programs outside of pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ledger.postgres import running_postgres
from uploadguard.config import Settings
from uploadguard.ledger.database import database_url, open_database

__all__ = ["a_database"]


@contextmanager
def a_database(kind: str, directory: Path) -> Iterator[str]:
    """``sqlite``, in the directory, or ``postgresql``, on a server of its own; its URL."""
    if kind == "sqlite":
        yield _made({"path": directory / "ledger"})
        return
    with running_postgres() as url:
        yield _made({"path": directory / "ledger", "url": url})


def _made(ledger: dict[str, object]) -> str:
    settings = Settings.load(ledger=ledger)
    open_database(settings, create=True).close()
    url = database_url(settings)
    assert url is not None
    return url
