"""``uploadguard ledger``."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import Deployment, run
from tests.cli.test_documentation import JSON_BLOCK, SECTIONS
from tests.ledger.conftest import made_up_record
from uploadguard.config import Settings
from uploadguard.ledger import audit
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Verdict


@pytest.fixture
def database(empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of a deployment: an open case, and a decision of 40 days ago that nothing came of."""
    monkeypatch.setenv("UPLOADGUARD_LEDGER__PATH", str(empty.path / "books"))
    assert run("ledger", "upgrade").exit_code == 0
    database = open_database(Settings.load(empty.path / "uploadguard.toml"))
    old = datetime.now(UTC) - timedelta(days=40)
    with database.writing() as connection:
        made = [made_up_record(), made_up_record(verdict=Verdict.NOT_SCANNED, entry=None, decided_at=old)]
        record(connection, made, Plan({}))
    yield database
    database.close()


def test_a_ledger_that_is_not_there_says_how_to_make_it(empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADGUARD_LEDGER__PATH", str(empty.path / "books"))
    result = run("ledger", "status")
    assert result.exit_code == 1
    assert "uploadguard ledger upgrade" in result.stderr
    assert run("ledger", "upgrade").stdout == run("ledger", "upgrade").stdout
    assert run("ledger", "status").exit_code == 0


def test_the_status_counts(database: Database) -> None:
    found = json.loads(run("ledger", "status", "--json").stdout)
    assert (found["decisions"], found["cases"], found["held"], found["audit_entries"]) == (2, {"open": 1}, 0, 2)
    (shown,) = (json.loads(block) for block in JSON_BLOCK.findall(SECTIONS["ledger status"]))
    assert list(shown) == list(found)
    assert list(shown["spool"]) == list(found["spool"])
    assert "open cases        1" in run("ledger", "status").stdout


def test_what_waits_in_the_spool_is_an_alarm(database: Database, empty: Deployment) -> None:
    from uploadguard.ledger.spool import Spool

    spool = Spool(empty.path / "books" / "spool")
    spool.append(made_up_record())
    spool.close()
    result = run("ledger", "status")
    assert result.exit_code == 4
    assert "decisions wait in the spool" in result.stderr


def test_a_purge_asks_and_tells(database: Database) -> None:
    dry = json.loads(run("ledger", "purge", "--dry-run", "--json").stdout)
    assert (dry["dry_run"], dry["not_scanned"]["decisions"]) == (True, 1)
    (shown,) = (json.loads(block) for block in JSON_BLOCK.findall(SECTIONS["ledger purge"]))
    assert list(shown) == list(dry)
    assert list(shown["blocked"]) == list(dry["blocked"])
    refused = run("ledger", "purge")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    done = run("ledger", "purge", "--yes", "--as", "lena")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split()[-6:] == ["0", "1", "0", "0", "0", "0"]
    assert audit.list_entries(database)[0].actor == "lena"
    assert json.loads(run("ledger", "purge", "--yes", "--json").stdout)["not_scanned"]["decisions"] == 0


def test_holds_stop_a_purge(database: Database) -> None:
    result = run("ledger", "hold", "decision:2", "--note", "order 4711")
    assert result.stdout == "decision:2 is under a legal hold.\n"
    assert "as it was" in run("ledger", "hold", "decision:2", "--note", "order 4711").stdout
    entry = audit.list_entries(database)[0]
    assert (entry.actor, entry.action, entry.detail) == (getpass.getuser(), "decision.hold", {"note": "order 4711"})
    assert json.loads(run("ledger", "status", "--json").stdout)["held"] == 1
    report = json.loads(run("ledger", "purge", "--yes", "--json").stdout)
    assert (report["not_scanned"]["held"], report["not_scanned"]["decisions"]) == (1, 0)
    assert run("ledger", "unhold", "decision:2", "--note", "withdrawn", "--as", "lena").exit_code == 0
    report = json.loads(run("ledger", "purge", "--yes", "--json").stdout)
    assert report["not_scanned"]["decisions"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["case:1"], 2, "--note"),
        (["case:1", "--note", " "], 2, "say why"),
        (["1", "--note", "x"], 2, "give case:NUMBER"),
        (["case:99", "--note", "x"], 1, "there is no case 99"),
        (["case:1", "--note", "x", "--as", " "], 2, "give a name"),
        (["case:1", "--note", "x", "--as", "Outbox"], 2, "the library's own"),
    ],
)
def test_wrong_holds_are_refused(database: Database, arguments: list[str], code: int, said: str) -> None:
    result = run("ledger", "hold", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
