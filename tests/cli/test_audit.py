"""``uploadguard audit``."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Deployment, run, start
from tests.cli.test_documentation import JSON_BLOCK, SECTIONS
from uploadguard.config import Settings
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database, open_database


@pytest.fixture
def log(empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of a deployment with a ledger, a signing key, and an audit log of five entries."""
    monkeypatch.setenv("UPLOADGUARD_LEDGER__PATH", str(empty.path / "books"))
    monkeypatch.setenv("UPLOADGUARD_LEDGER__SIGNING_KEY_FILE", str(empty.path / "own.key"))
    assert run("audit", "newkey", "own.key", "--public", "own.pub").exit_code == 0
    assert run("ledger", "upgrade").exit_code == 0
    database = open_database(Settings.load(empty.path / "uploadguard.toml"))
    with database.writing() as connection:
        for number in range(4):
            audit.append(connection, "guard", "decision.record", f"decision:{number}", verdict="queue")
        audit.append(connection, "anna\x1b[31m", "case.claim", "case:1")
    yield database
    database.close()


def edit(database: Database, seq: int) -> None:
    with database.changing() as connection:
        entry = schema.audit.c.entry
        changed = sa.update(schema.audit).where(schema.audit.c.seq == seq)
        connection.execute(changed.values(entry=sa.func.replace(entry, "queue", "block")))


def test_a_key_is_made(empty: Deployment) -> None:
    result = run("audit", "newkey", "own.key", "--public", "own.pub")
    assert result.exit_code == 0
    assert stat.S_IMODE(Path("own.key").stat().st_mode) == 0o600
    assert result.stdout.endswith(Path("own.pub").read_text())
    assert "PRIVATE" not in result.output
    again = run("audit", "newkey", "own.key")
    assert again.exit_code == 1
    assert "own.key: there is a file of that name" in again.stderr


def test_the_public_key_can_be_had_later(log: Database) -> None:
    assert (
        run("audit", "publickey").stdout == run("audit", "publickey", "own.key").stdout == Path("own.pub").read_text()
    )


def test_a_whole_log_verifies(log: Database) -> None:
    assert run("audit", "checkpoint", "--export", "kept.ndjson").exit_code == 0
    result = run("audit", "verify", "--checkpoints", "kept.ndjson")
    assert result.exit_code == 0, result.output
    assert "entries               6: 1 to 6" in result.stdout
    assert "signed up to          entry 6" in result.stdout
    assert result.stderr == ""


def test_an_edit_is_an_alarm(log: Database) -> None:
    run("audit", "checkpoint")
    edit(log, 3)
    result = run("audit", "verify")
    assert result.exit_code == 4
    assert "NOT WHOLE" in result.stdout
    assert "error: the audit log is not whole; the first fault is at entry 3" in result.stderr
    record = json.loads(run("audit", "verify", "--json").stdout)
    (fault,) = record["faults"]
    assert (fault["seq"], fault["kind"]) == (3, "altered")
    (shown,) = (json.loads(block) for block in JSON_BLOCK.findall(SECTIONS["audit verify"]))
    assert list(shown) == list(record)
    assert list(shown["faults"][0]) == list(fault)


def test_a_log_that_was_set_back_is_an_alarm_with_exported_checkpoints(log: Database) -> None:
    run("audit", "checkpoint", "--export", "kept.ndjson")
    with log.changing() as connection:
        for table in (schema.audit, schema.audit_checkpoints):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(schema.audit_head).values(seq=0, digest=b""))
    warned = run("audit", "verify")
    assert warned.exit_code == 0
    assert "warning: no exported checkpoint is given" in warned.stderr
    result = run("audit", "verify", "--checkpoints", "kept.ndjson")
    assert result.exit_code == 4
    assert "the log ends with 0: cut off" in result.stdout
    refused = run("audit", "checkpoint", "--export", "kept.ndjson")
    assert refused.exit_code == 1
    assert "holds checkpoints that this log has not" in refused.stderr


def test_another_key_is_an_alarm(log: Database) -> None:
    run("audit", "checkpoint")
    run("audit", "newkey", "other.key", "--public", "other.pub")
    assert run("audit", "verify", "--key", "other.pub").exit_code == 4
    assert run("audit", "verify", "--key", "other.pub", "--key", "own.pub").exit_code == 0
    missing = run("audit", "verify", "--key", "nope.pub")
    assert missing.exit_code == 1
    assert "nope.pub: cannot be read" in missing.stderr


def test_an_export_verifies_without_ledger_and_configuration(
    log: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("audit", "checkpoint")
    file = Path("audit.ndjson").absolute()
    key = Path("own.pub").absolute()
    assert run("audit", "export", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "--resume" in run("audit", "export", file).stderr
    assert file.read_bytes() == run("audit", "export").stdout_bytes
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPLOADGUARD_LEDGER__PATH")
    monkeypatch.delenv("UPLOADGUARD_LEDGER__SIGNING_KEY_FILE")
    assert run("audit", "verify", file, "--key", key).exit_code == 0
    assert run("audit", "verify", "-", "--key", key, input=file.read_bytes()).exit_code == 0
    assert run("audit", "verify", "-", "--key", key, input=file.read_bytes()[:-100]).exit_code == 4
    assert run("audit", "verify", file, "--key", key, "--from", "2").exit_code == 4


def test_an_export_goes_on(log: Database) -> None:
    run("audit", "export", "audit.ndjson")
    run("audit", "checkpoint")
    with Path("audit.ndjson").open("ab") as file:
        file.write(b'{"seq":6,"dig')
    assert run("audit", "export", "audit.ndjson", "--resume").exit_code == 0
    assert json.loads(run("audit", "verify", "audit.ndjson", "--json").stdout)["last"] == 6
    assert run("audit", "export", "piece.ndjson", "--from", "4").exit_code == 0
    assert run("audit", "verify", "piece.ndjson", "--from", "4").exit_code == 0
    assert run("audit", "export", "--resume").exit_code == 2
    assert run("audit", "verify", "--from", "4").exit_code == 2


def test_entries_are_listed(log: Database) -> None:
    result = run("audit", "list", "--limit", "2")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()[1:]
    assert first.split()[0] == "5"
    assert "anna\\x1b[31m" in first
    assert second.endswith('decision.record  decision:3  {"verdict":"queue"}')
    records = [json.loads(line) for line in run("audit", "list", "--json", "--actor", "guard").stdout.splitlines()]
    assert [one["seq"] for one in records] == [4, 3, 2, 1]
    (shown,) = (json.loads(block) for block in JSON_BLOCK.findall(SECTIONS["audit list"]))
    assert list(shown) == list(records[0])
    assert run("audit", "list", "--subject", "case:9").stdout == "No such entry.\n"


def test_checkpoints_are_made_and_printed(log: Database) -> None:
    record = json.loads(run("audit", "checkpoint", "--export", "kept.ndjson", "--json").stdout)
    (shown,) = (json.loads(block) for block in JSON_BLOCK.findall(SECTIONS["audit checkpoint"]))
    assert list(shown) == list(record)
    assert (record["made"], record["seq"], record["exported"]) == (True, 6, 1)
    assert "Nothing came since" in run("audit", "checkpoint").stdout
    assert run("audit", "checkpoint", "--export", "-").stdout == Path("kept.ndjson").read_text()


def test_without_a_key_nothing_is_signed(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run("audit", "checkpoint")
    monkeypatch.delenv("UPLOADGUARD_LEDGER__SIGNING_KEY_FILE")
    config = Path("uploadguard.toml")
    config.write_text(re.sub(r"^signing_key_file", "#signing_key_file", config.read_text(), flags=re.MULTILINE))
    assert run("audit", "checkpoint").exit_code == 1
    assert run("audit", "checkpoint", "--export", "kept.ndjson").exit_code == 0
    assert run("audit", "verify", "--key", "own.pub", "--checkpoints", "kept.ndjson").exit_code == 0


def test_a_tail_that_nobody_signs_is_warned_of(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(hours=5)

    monkeypatch.setattr("uploadguard.ledger.audit_verify.datetime", Later)
    assert "checkpoints are not made, or were taken out" in run("audit", "verify").stderr


def test_a_process_ends_with_the_code(log: Database) -> None:
    edit(log, 2)
    assert start("audit", "verify").returncode == 4
