"""Exports of the audit log: they verify without the database, in pieces too, and any edit is found."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.soak_audit import make_log
from uploadguard.config import Settings
from uploadguard.errors import AuditError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.audit_files import end_of_export, export_log, verify_file
from uploadguard.ledger.audit_verify import AuditReport, FaultKind
from uploadguard.ledger.checkpoints import Checkpoint, SigningKey, load_checkpoints, write_signing_key
from uploadguard.ledger.database import Database


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return write_signing_key(tmp_path / "audit.key")


@pytest.fixture
def log(database: Database, settings: Settings, key: SigningKey, tmp_path: Path) -> Database:
    """A ledger with a signed log of some 60 entries."""
    ledger = settings.ledger.model_copy(update={"signing_key_file": tmp_path / "audit.key"})
    make_log(database, settings.model_copy(update={"ledger": ledger}), 60, random.Random(7))
    return database


def verified(data: bytes, key: SigningKey, **options: Any) -> AuditReport:
    return verify_file(io.BytesIO(data), public_keys=[key.public], **options)


def exported(database: Database, first: int = 1) -> bytes:
    return b"".join(export_log(database, first))


def test_an_export_verifies(log: Database, key: SigningKey) -> None:
    report = verified(exported(log), key)
    assert report.ok
    assert report.entries == report.last == report.signed_to >= 60
    assert report.checkpoints >= 3


def test_pieces_verify_together_and_apart(log: Database, key: SigningKey) -> None:
    before = exported(log)
    last = verified(before, key).last
    with log.writing() as connection:
        audit.append(connection, "anna", "case.claim", "case:1")
    after = exported(log, last + 1)
    whole = verified(before + after, key)
    assert whole.ok
    assert (whole.last, whole.unprotected) == (last + 1, 1)
    apart = verified(after, key, first=last + 1)
    assert apart.ok
    assert (apart.first, apart.entries) == (last + 1, 1)
    assert verified(after, key).faults[0].kind is FaultKind.MISSING
    assert verified(before + exported(log, last), key).faults[0].kind is FaultKind.HEAD
    with pytest.raises(AuditError, match=f"no entry {last + 5}"):
        exported(log, last + 6)


def test_any_changed_byte_is_found(log: Database, key: SigningKey) -> None:
    data = exported(log)
    chance = random.Random(3)
    for _ in range(400):
        at = chance.randrange(len(data))
        changed = bytearray(data)
        changed[at] = chance.choice([changed[at] ^ 0x20, changed[at] ^ 1 << chance.randrange(8), chance.randrange(256)])
        if bytes(changed) != data:
            assert not verified(bytes(changed), key).ok, at


def test_any_line_that_was_taken_out_put_in_or_moved_is_found(log: Database, key: SigningKey) -> None:
    lines = exported(log).splitlines(keepends=True)
    for at in range(len(lines)):
        assert not verified(b"".join(lines[:at] + lines[at + 1 :]), key).ok
        if b'"head"' not in lines[at]:  # to say once more where the log ends changes nothing
            assert not verified(b"".join([*lines[:at], lines[at], *lines[at:]]), key).ok
        if at:
            swapped = [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]]
            assert not verified(b"".join(swapped), key).ok, at
        assert not verified(b"".join(lines[:at]), key).ok


def test_an_export_that_was_made_anew_is_found_by_a_checkpoint(log: Database, key: SigningKey) -> None:
    with log.reading() as connection:
        kept = [one for one in load_checkpoints(connection) if isinstance(one, Checkpoint)]
    assert verified(exported(log), key, checkpoints=kept).ok
    digest, lines = b"", []
    for seq in range(1, 10):
        text = audit.canonical(
            {"seq": seq, "at": "2026-01-01T00:00:00+00:00", "actor": "a", "action": "b", "subject": "c", "detail": {}}
        )
        digest = audit.chained(digest, text)
        lines.append(f'{{"seq":{seq},"digest":"{digest.hex()}","entry":{text}}}\n')
    lines.append(f'{{"head":{{"digest":"{digest.hex()}","seq":9}}}}\n')
    data = "".join(lines).encode()
    assert verified(data, key).ok
    assert not verified(data, key, checkpoints=kept).ok


def test_what_was_tampered_with_is_exported_as_it_is(log: Database, key: SigningKey) -> None:
    with log.changing() as connection:
        for seq, entry in ((3, "no JSON"), (5, '{"seq": 5}'), (7, "\u00e9\n"), (9, "[]")):
            connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == seq).values(entry=entry))
        connection.execute(sa.update(schema.audit_head).values(seq=3))
    report = verified(exported(log), key)
    assert [one.seq for one in report.faults if one.kind is FaultKind.ALTERED] == [3, 5, 7, 9]
    assert all("line" not in one.text for one in report.faults)


def test_an_interrupted_export_is_resumed(log: Database, key: SigningKey, tmp_path: Path) -> None:
    data = exported(log)
    file = tmp_path / "audit.ndjson"
    chance = random.Random(5)
    for cut in [*chance.sample(range(len(data)), 60), 0, len(data)]:
        file.write_bytes(data[:cut])
        last, size_bytes = end_of_export(file)
        assert size_bytes <= cut
        report = verified(data[:size_bytes] + exported(log, last + 1), key)
        assert report.ok, cut
        assert report.last == verified(data, key).last


def test_what_is_no_export_is_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"something\n", b"{}\n", b"[]\n" * 3):
        file.write_bytes(content)
        with pytest.raises(AuditError, match="does not end as an export"):
            end_of_export(file)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"null\n", b"[" * 100_000, b'{"seq":1}\n', b'{"head":1}\n', b'{"checkpoint":{}}\n',
        b'{"seq":true,"digest":null,"text":null}\n', b'{"seq":1,"digest":"zz","entry":{}}\n', b"\xff" * 3_000_000,
        b'{"head":{"digest":"","seq":' + b"9" * 5000 + b"}}\n",
    ],
)  # fmt: skip
def test_anything_else_does_not_verify(line: bytes, key: SigningKey) -> None:
    assert not verified(line, key).ok
