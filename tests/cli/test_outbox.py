"""``uploadguard outbox``, with a destination that is a file."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Deployment, run
from tests.ledger.twophase import add_reports
from uploadguard.cli.exits import Exit
from uploadguard.config import Settings
from uploadguard.destinations.file import read_records
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database, open_database


@pytest.fixture
def ledger(empty: Deployment) -> Iterator[Database]:
    """The deployment's ledger, with the action ``drop``."""
    config = empty.path / "uploadguard.toml"
    config.write_text(config.read_text() + '\n[actions.drop]\nkind = "file"\npath = "reports.jsonl"\n')
    opened = open_database(Settings.load(config), create=True)
    yield opened
    opened.close()


def states(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(sa.select(schema.tasks.c.state).order_by(schema.tasks.c.id)).scalars())


def refuse(database: Database, *ids: int) -> None:
    with database.changing() as connection:
        refused = {"state": "refused", "refused_in": "pending", "error": "not like this"}
        connection.execute(sa.update(schema.tasks).where(schema.tasks.c.id.in_(ids)).values(**refused))


def test_reports_reach_the_file(ledger: Database) -> None:
    add_reports(ledger, 3, "drop")
    result = run("outbox", "run", "--once", "--threads", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout == "3 filed\n"
    assert len(list(read_records(Path("reports.jsonl")))) == 3
    assert states(ledger) == ["filed"] * 3
    assert run("outbox", "run", "--once").stdout == "nothing was carried out\n"


def test_status_tells_what_needs_attention(ledger: Database) -> None:
    assert run("outbox", "status").exit_code == Exit.OK
    add_reports(ledger, 2, "drop")
    result = run("outbox", "status")
    assert result.exit_code == Exit.OK
    assert re.search(r"^drop +2 +0 ", result.stdout, re.MULTILINE)
    refuse(ledger, 1)
    add_reports(ledger, 1, "drop", within=timedelta(hours=1))
    add_reports(ledger, 1, "gone")
    result = run("outbox", "status")
    assert result.exit_code == Exit.ALARM
    for said in ("1 report not filed", "1 task refused", "1 task waiting for gone"):
        assert said in result.stderr
    record = json.loads(run("outbox", "status", "--json").stdout)
    assert (record["needs_attention"], record["late"], record["refused"], record["no_action"]) == (True, 1, 1, 1)
    assert {one["action"]: one["known"] for one in record["actions"]} == {"drop": True, "gone": False}


def test_list_and_show(ledger: Database) -> None:
    assert "no such tasks" in run("outbox", "list").stdout
    add_reports(ledger, 3, "drop")
    refuse(ledger, 2)
    lines = run("outbox", "list", "--state", "refused").stdout.splitlines()
    assert len(lines) == 2
    assert "not like this" in lines[1]
    assert "--after 2" in run("outbox", "list", "--limit", "2").stdout
    (record,) = [json.loads(line) for line in run("outbox", "list", "--json", "--after", "2").stdout.splitlines()]
    assert record["id"] == 3
    shown = run("outbox", "show", "2")
    assert "not like this" in shown.stdout
    assert json.loads(run("outbox", "show", "2", "--json").stdout)["notes"] == {}
    missing = run("outbox", "show", "99")
    assert (missing.exit_code, missing.stderr) == (Exit.ERROR, "error: there is no task 99\n")


def test_retry(ledger: Database) -> None:
    add_reports(ledger, 4, "drop")
    refuse(ledger, 1, 2, 3)
    assert run("outbox", "retry", "1", "--as", "mona").stdout == "1 task to be tried again.\n"
    assert states(ledger) == ["pending", "refused", "refused", "pending"]
    assert run("outbox", "retry", "--refused", "--action", "other").stdout == "0 tasks to be tried again.\n"
    assert run("outbox", "retry", "--refused").stdout == "2 tasks to be tried again.\n"
    assert states(ledger) == ["pending"] * 4
    assert run("outbox", "retry", "99").exit_code == Exit.ERROR
    for wrong in ([], ["1", "--refused"], ["1", "--action", "drop"]):
        assert run("outbox", "retry", *wrong).exit_code == Exit.USAGE
    with ledger.reading() as connection:
        entries = connection.execute(sa.select(schema.audit.c.entry)).scalars().all()
    assert any('"actor":"mona"' in entry and '"action":"task.retry"' in entry for entry in entries)


def test_cancel(ledger: Database) -> None:
    add_reports(ledger, 2, "drop")
    with ledger.changing() as connection:
        connection.execute(sa.update(schema.tasks).where(schema.tasks.c.id == 2).values(state="opened", remote_id="R"))
    assert run("outbox", "cancel", "1").exit_code == Exit.USAGE
    assert run("outbox", "cancel", "1", "--note", "a mistake").stdout == "Task 1 is cancelled.\n"
    assert run("outbox", "cancel", "2", "--note", "a mistake").stdout == "Task 2 will be retracted.\n"
    again = run("outbox", "cancel", "1", "--note", "a mistake")
    assert again.exit_code == Exit.ERROR
    assert "cannot be taken back" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_worker_in_good_order(ledger: Database, number: signal.Signals) -> None:
    add_reports(ledger, 5, "drop")
    command = [sys.executable, "-W", "error", "-m", "uploadguard", "outbox", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "SIGTERM or SIGINT ends it" in process.stderr.readline()
    while states(ledger) != ["filed"] * 5:
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "5 filed\n")
    assert f"{number.name}: finishing what is under way" in err


def test_without_a_ledger(empty: Deployment) -> None:
    config = empty.path / "uploadguard.toml"
    config.write_text(re.sub(r'^path = "ledger"$', "", config.read_text(), flags=re.MULTILINE))
    for command in (["run"], ["status"], ["list"], ["show", "1"]):
        result = run("outbox", *command)
        assert result.exit_code == Exit.ERROR
        assert "ledger.path" in result.stderr
