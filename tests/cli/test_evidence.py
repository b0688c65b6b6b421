"""``uploadguard evidence`` on a ledger with two preserved pictures."""

from __future__ import annotations

import io
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from PIL import Image

from tests.cli.conftest import Deployment, run
from tests.conftest import photo
from tests.ledger.conftest import made_up_record
from uploadguard.config import Settings
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.recording import Plan, record
from uploadguard.ledger.vault import open_vault

COFFEE = photo("coffee.png").read_bytes()
WHY = ("--reason", "case 1")


@dataclass(frozen=True)
class Kept:
    path: Path
    database: Database
    ids: list[int]


@pytest.fixture
def kept(empty: Deployment) -> Any:
    config = empty.path / "uploadguard.toml"
    assert run("evidence", "newkey", "evidence.key").exit_code == 0
    text = config.read_text()
    keys = 'path = "vault"\nkey_file = "evidence.key"\n'
    text = text.replace("[evidence]\n", f"[evidence]\n{keys}", 1)
    config.write_text(text)
    settings = Settings.load(config)
    database = open_database(settings, create=True)
    vault = open_vault(settings)
    assert vault is not None
    ids = []
    for data in (COFFEE, b"no picture"):
        made: dict[str, Any] = dict(made_up_record(entry=os.urandom(4).hex()))
        made["evidence"] = vault.store(made["reference"], data, "image/png")
        with database.writing() as connection:
            ids.append(record(connection, [made], Plan({}))[0].decision_id)
    yield Kept(empty.path, database, ids)
    database.close()


def ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def log(kept: Kept) -> list[dict[str, Any]]:
    with kept.database.reading() as connection:
        entries = map(json.loads, connection.execute(sa.select(schema.audit.c.entry)).scalars())
        return [one for one in entries if one["action"].startswith("evidence.")]


def test_the_files_are_listed(kept: Kept) -> None:
    lines = ok(run("evidence", "list")).stdout.splitlines()
    assert " ".join(lines[0].split()) == "Decision Case Size Media type Stored Keep until Viewed State"
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    first, second = map(json.loads, ok(run("evidence", "list", "--json")).stdout.splitlines())
    assert (first["decision"], first["size_bytes"], first["viewed"], first["held"]) == (1, len(COFFEE), None, False)
    assert second["media_type"] == "image/png"
    assert "--after 1" in ok(run("evidence", "list", "--limit", "1")).stdout
    assert ok(run("evidence", "list", "--after", "2")).stdout == "There are no such files.\n"
    assert len(ok(run("evidence", "list", "--case", "2", "--json")).stdout.splitlines()) == 1


def test_a_preview_is_written_for_this_user_alone(kept: Kept) -> None:
    ok(run("evidence", "preview", "1", "look.png", *WHY, "--as", "ada"))
    path = kept.path / "look.png"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (512, 341))
    (entry,) = log(kept)
    assert (entry["actor"], entry["action"], entry["detail"]["note"]) == ("ada", "evidence.reveal", "case 1")
    result = ok(run("evidence", "preview", "1", "clear.png", *WHY, "--clear", "--frame", "0", "--json"))
    assert json.loads(result.stdout) == {
        "decision": 1, "file": "clear.png", "size_bytes": (kept.path / "clear.png").stat().st_size,
    }  # fmt: skip
    assert json.loads(ok(run("evidence", "list", "--json")).stdout.splitlines()[0])["viewed"] is not None


def test_an_export_is_the_file(kept: Kept) -> None:
    ok(run("evidence", "export", "1", "it.png", *WHY))
    assert (kept.path / "it.png").read_bytes() == COFFEE
    assert stat.S_IMODE((kept.path / "it.png").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", ["preview", "export"])
def test_nothing_is_overwritten_and_nothing_opened_for_it(kept: Kept, command: str) -> None:
    (kept.path / "there").write_text("mine")
    (kept.path / "link").symlink_to("nowhere")
    for out in ("there", "link", "no/such/directory"):
        result = run("evidence", command, "1", out, *WHY)
        assert result.exit_code == 1
        assert "kept as it is" in result.stderr or "is not there" in result.stderr
    assert (kept.path / "there").read_text() == "mine"
    assert not (kept.path / "nowhere").exists()
    assert log(kept) == []


def test_a_reason_must_be_given(kept: Kept) -> None:
    for words in ([], ["--reason", "  "]):
        assert run("evidence", "preview", "1", "out.png", *words).exit_code == 2
        assert run("evidence", "export", "1", "out.png", *words).exit_code == 2
    assert run("evidence", "destroy", "1", "--order", " ").exit_code == 2
    assert log(kept) == []


def test_what_cannot_be_shown_is_an_error(kept: Kept) -> None:
    result = run("evidence", "preview", "2", "out.png", *WHY)
    assert result.exit_code == 1
    assert result.stderr == "error: no preview can be made: the file is of no known media type\n"
    assert not (kept.path / "out.png").exists()
    assert "no file is preserved for decision 77" in run("evidence", "export", "77", "out.png", *WHY).stderr


def test_a_file_is_destroyed_on_order(kept: Kept) -> None:
    result = ok(run("evidence", "destroy", "1", "--order", "court 17", "--as", "ada", "--json"))
    assert json.loads(result.stdout) == {"decision": 1, "destroyed": True}
    again = run("evidence", "destroy", "1", "--order", "court 17")
    assert again.exit_code == 1
    assert "was destroyed on" in again.stderr
    assert "destroyed 2" in ok(run("evidence", "list", "--destroyed")).stdout
    assert len(ok(run("evidence", "list", "--json")).stdout.splitlines()) == 1
    assert [entry["action"] for entry in log(kept)] == ["evidence.destroy", "evidence.erased"]
    assert "The file of decision 2 is destroyed." in ok(run("evidence", "destroy", "2", "--order", "x")).stdout


def test_a_sweep_removes_what_is_over(kept: Kept) -> None:
    assert ok(run("evidence", "sweep")).stdout == "0 files removed.\n"
    with kept.database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="dismissed"))
        over = datetime.now(UTC) - timedelta(days=1)
        connection.execute(sa.update(schema.evidence).values(keep_until=over, stored_at=over - timedelta(days=365)))
    assert json.loads(ok(run("evidence", "sweep", "--json")).stdout) == {"removed": 2}


def test_a_new_key_takes_over(kept: Kept) -> None:
    ok(run("evidence", "newkey", "new.key"))
    both = (kept.path / "new.key").read_text() + (kept.path / "evidence.key").read_text()
    (kept.path / "evidence.key").write_text(both)
    assert ok(run("evidence", "renew")).stdout == "2 files encrypted anew.\n"
    assert json.loads(ok(run("evidence", "renew", "--json", "--as", "ada")).stdout) == {"renewed": 0}
    (kept.path / "evidence.key").write_text((kept.path / "new.key").read_text())
    ok(run("evidence", "export", "1", "it.png", *WHY))
    assert Image.open(io.BytesIO((kept.path / "it.png").read_bytes())).size == (600, 400)


def test_a_key_file_is_not_overwritten(empty: Deployment) -> None:
    result = ok(run("evidence", "newkey", "a.key"))
    assert "only this user can read it" in result.stdout
    assert stat.S_IMODE((empty.path / "a.key").stat().st_mode) == 0o600
    before = (empty.path / "a.key").read_text()
    assert run("evidence", "newkey", "a.key").exit_code == 1
    assert (empty.path / "a.key").read_text() == before
