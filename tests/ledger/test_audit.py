"""The audit log: what verifying it finds, its checkpoints, and that nothing happens that it cannot tell of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from tests.ledger.soak_audit import ROLLBACKS, TAMPERS, Bench, Log
from uploadguard.actions import Occasion
from uploadguard.config import Settings
from uploadguard.errors import AuditError, ConfigError, LedgerError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.audit_verify import AuditReport, FaultKind, Verifier, verify
from uploadguard.ledger.cases import Cases
from uploadguard.ledger.checkpoints import (
    Checkpoint,
    Checkpointer,
    SigningKey,
    checkpoint_line,
    export_checkpoints,
    load_checkpoints,
    read_checkpoints,
    read_public_keys,
    read_signing_key,
    write_signing_key,
)
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, record
from uploadguard.ledger.retention import hold, purge
from uploadguard.models import Verdict

ANNA = Person("anna", frozenset(Role))


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return write_signing_key(tmp_path / "audit.key")


@pytest.fixture
def signing(settings: Settings, key: SigningKey, tmp_path: Path) -> Settings:
    """The settings with a signing key, and a checkpoint after 10 entries."""
    values = {"signing_key_file": tmp_path / "audit.key", "checkpoint_every": 10}
    return settings.model_copy(update={"ledger": settings.ledger.model_copy(update=values)})


@pytest.fixture
def bench(database: Database, signing: Settings, key: SigningKey) -> Bench:
    return Bench(database, signing, key.public, entries=70, seed=4)


def write(database: Database, count: int) -> None:
    with database.writing() as connection:
        for number in range(count):
            audit.append(connection, "guard", "decision.record", f"decision:{number}", verdict="queue")


def all_rows(database: Database) -> dict[str, list[Any]]:
    with database.reading() as connection:
        return {table.name: connection.execute(sa.select(table)).all() for table in schema.metadata.sorted_tables}


# What verifying finds


def test_a_log_that_nobody_touched_verifies(bench: Bench) -> None:
    report = bench.verify(exported=True)
    assert report.ok
    assert report.faults == ()
    assert report.warnings == ()
    assert report.entries == report.last == report.signed_to == len(bench.rows["audit"])
    assert report.unprotected == 0
    assert report.unprotected_since is None


def test_an_empty_log_verifies(database: Database, key: SigningKey) -> None:
    report = verify(database, public_keys=[key.public])
    assert report.ok
    assert (report.entries, report.last, report.unprotected) == (0, 0, 0)


def test_what_the_log_shows_by_itself_is_found(bench: Bench) -> None:
    for tamper in TAMPERS * 2:
        bench.tampered(tamper)
        assert not bench.verify(exported=False).ok, tamper.__name__


def test_an_old_or_another_log_is_found_by_an_exported_checkpoint_alone(bench: Bench) -> None:
    for tamper in ROLLBACKS * 2:
        bench.tampered(tamper)
        assert bench.verify(exported=False).ok, tamper.__name__
        assert not bench.verify(exported=True).ok, tamper.__name__


def _edit(log: Log) -> None:
    log.entries[4]["entry"] = log.entries[4]["entry"].replace('"case:', '"Case:')


def _delete(log: Log) -> None:
    del log.entries[6:9]


def _swap(log: Log) -> None:
    log.entries[4]["seq"], log.entries[8]["seq"] = 9, 5


def _cut(log: Log) -> None:
    del log.entries[-3:]


def _cut_with_head(log: Log) -> None:
    del log.entries[-3:]
    log.head.update(seq=log.entries[-1]["seq"], digest=log.entries[-1]["digest"])


def _head(log: Log) -> None:
    log.head["digest"] = b"\0" * 32


def _head_back(log: Log) -> None:
    log.head.update(seq=log.entries[-2]["seq"], digest=log.entries[-2]["digest"])


def _no_head(log: Log) -> None:
    log.head["id"] = 1
    log.head["seq"] = -1


def _anew(log: Log) -> None:
    log.entries[4]["entry"] = log.entries[4]["entry"].replace('"case:', '"Case:')
    log.recompute(4)


def _checkpoint(log: Log) -> None:
    del log.checkpoints[0]


FIRST_FAULTS: list[tuple[Callable[[Log], None], int | None, FaultKind, str]] = [
    (_edit, 5, FaultKind.ALTERED, "entry 5 or its digest was changed"),
    (_delete, 7, FaultKind.MISSING, "entries 7 to 9 are missing"),
    (_swap, 5, FaultKind.MISNUMBERED, "under 5 stands what was written as entry 9"),
    (_cut, -2, FaultKind.MISSING, "cut off at the end"),
    (_cut_with_head, -2, FaultKind.MISSING, "the log ends with"),
    (_head, 0, FaultKind.HEAD, "does not agree with its last entry"),
    (_head_back, 0, FaultKind.HEAD, "put in after the log's end, or its head was set back"),
    (_no_head, None, FaultKind.HEAD, "its head was set back"),
    (_anew, None, FaultKind.REWRITTEN, "the log was written anew from there or earlier"),
    (_checkpoint, None, FaultKind.CHECKPOINT, "was taken out"),
]
"""What is done, the number of the first fault (below 1 it counts from the last entry), its kind, and words of it."""


def test_the_first_fault_is_named(bench: Bench) -> None:
    for tamper, seq, kind, words in FIRST_FAULTS:
        bench.tampered(tamper)
        fault = bench.verify(exported=False).faults[0]
        assert fault.kind is kind, tamper
        assert words in fault.text
        if seq is not None:
            assert fault.seq == (seq if seq > 0 else len(bench.rows["audit"]) + seq), tamper


def test_a_single_edit_is_a_single_fault(bench: Bench) -> None:
    bench.tampered(_edit)
    assert bench.verify(exported=True).faults_total == 1


def test_faults_beyond_a_hundred_are_counted() -> None:
    verifier = Verifier([], [])
    for seq in range(1, 151):
        verifier.entry(audit.Row(seq, "{}", b""))
    verifier.head(audit.Head(150, b""))
    report = verifier.finish()
    assert [one.seq for one in report.faults] == list(range(1, 101))
    assert report.faults_total == 150


def test_what_was_not_signed_yet_is_told(bench: Bench) -> None:
    """An attacker can write that anew without a trace, until it is signed."""
    write(bench.database, 7)
    signed = len(bench.rows["audit"])
    report = bench.verify(exported=True)
    assert report.ok
    assert (report.signed_to, report.unprotected) == (signed, 7)
    assert report.unprotected_since is not None
    assert datetime.now(UTC) - report.unprotected_since < timedelta(minutes=5)
    late = verify(bench.database, public_keys=[bench.key], now=datetime.now(UTC) + timedelta(hours=4))
    assert any("are not signed" in one for one in late.warnings)


def test_without_a_key_signatures_count_for_nothing(bench: Bench) -> None:
    report = verify(bench.database)
    assert report.ok
    assert report.signed_to == 0
    assert any("no public key" in one for one in report.warnings)


def test_the_log_may_be_written_to_while_it_is_verified(database: Database, signing: Settings, key: SigningKey) -> None:
    checkpointer = Checkpointer(database, signing)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            write(database, 3)
            checkpointer.run_if_due()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        reports = [verify(database, public_keys=[key.public]) for _ in range(15)]
    finally:
        stop.set()
        thread.join()
    assert [one.faults for one in reports] == [()] * 15
    assert reports[-1].entries > reports[0].entries


def test_rows_of_other_types_are_found(sqlite_database: Database, key: SigningKey) -> None:
    write(sqlite_database, 5)
    for change in (
        "UPDATE audit SET entry = CAST(entry AS BLOB) WHERE seq = 2",
        "UPDATE audit SET entry = CAST(x'ff' AS TEXT) WHERE seq = 2",
        "UPDATE audit SET digest = 'text' WHERE seq = 2",
        "UPDATE audit SET seq = 'two' WHERE seq = 2",
        "UPDATE audit SET seq = 2.5 WHERE seq = 2",
        "UPDATE audit SET seq = 9223372036854775807 WHERE seq = 5",
        "UPDATE audit SET seq = -9223372036854775807 - 1 WHERE seq = 1",
        "UPDATE audit_head SET seq = 'five'",
        "UPDATE audit_head SET digest = 5",
        "DELETE FROM audit_head",
        "INSERT INTO audit_head VALUES (2, 5, (SELECT digest FROM audit WHERE seq = 5))",
        "INSERT INTO audit_checkpoints VALUES ('x', 'x', 'x', 'x', 'x', 'x')",
        "INSERT INTO audit_checkpoints VALUES (3, x'00', '2026-01-01 00:00:00.000000', 'x', x'', x'')",
    ):
        with sqlite_database.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("CREATE TABLE kept AS SELECT * FROM audit")
            connection.exec_driver_sql("CREATE TABLE kept_head AS SELECT * FROM audit_head")
            connection.exec_driver_sql(change)
            connection.exec_driver_sql("COMMIT")
            assert not verify(sqlite_database, public_keys=[key.public]).ok, change
            for statement in (
                "DELETE FROM audit", "INSERT INTO audit SELECT * FROM kept", "DELETE FROM audit_head",
                "INSERT INTO audit_head SELECT * FROM kept_head", "DELETE FROM audit_checkpoints",
                "DROP TABLE kept", "DROP TABLE kept_head",
            ):  # fmt: skip
                connection.exec_driver_sql(statement)
            assert verify(sqlite_database, public_keys=[key.public]).ok


@pytest.fixture
def sqlite_database(sqlite_settings: Settings) -> Any:
    from uploadguard.ledger.database import open_database

    database = open_database(sqlite_settings, create=True)
    yield database
    database.close()


# Checkpoints


def test_a_checkpoint_is_made_when_it_is_due(database: Database, signing: Settings) -> None:
    checkpointer = Checkpointer(database, signing)
    assert checkpointer.run_if_due() is None
    write(database, 1)
    first = checkpointer.run_if_due()
    assert first is not None
    assert first.seq == 2
    assert checkpointer.run_if_due() is None
    write(database, 9)
    assert checkpointer.run_if_due() is None
    write(database, 1)
    second = checkpointer.run_if_due()
    assert second is not None
    assert second.seq == 13
    assert second.previous == first.link


@pytest.mark.parametrize("hours", [1, -1])
def test_a_checkpoint_is_due_after_an_hour(database: Database, signing: Settings, hours: int) -> None:
    """And where the last one is of a clock that went ahead."""
    checkpointer = Checkpointer(database, signing)
    write(database, 1)
    made = checkpointer.run_if_due()
    assert made is not None
    with database.changing() as connection:
        connection.execute(sa.update(schema.audit_checkpoints).values(at=made.at - timedelta(hours=1.01 * hours)))
    assert checkpointer.run_if_due() is None
    write(database, 1)
    assert checkpointer.run_if_due() is not None


def test_several_processes_make_one(database: Database, signing: Settings) -> None:
    write(database, 30)
    checkpointers = [Checkpointer(database, signing) for _ in range(6)]
    threads = [threading.Thread(target=one.run_if_due) for one in checkpointers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        assert len(load_checkpoints(connection)) == 1


def test_without_a_key_none_is_made(database: Database, settings: Settings) -> None:
    write(database, 2000)
    assert Checkpointer(database, settings).run_if_due() is None
    with pytest.raises(ConfigError, match="signing_key_file"):
        Checkpointer(database, settings).run()


def test_the_key_may_change(database: Database, signing: Settings, key: SigningKey, tmp_path: Path) -> None:
    write(database, 3)
    Checkpointer(database, signing).run()
    new = write_signing_key(tmp_path / "new.key")
    ledger = signing.ledger.model_copy(update={"signing_key_file": tmp_path / "new.key"})
    write(database, 3)
    Checkpointer(database, signing.model_copy(update={"ledger": ledger})).run()
    report = verify(database, public_keys=[key.public, new.public])
    assert report.ok
    assert report.signed_to == 8
    for keys, seq in (([key.public], 8), ([new.public], 4)):
        fault = verify(database, public_keys=keys).faults[0]
        assert (fault.seq, fault.kind) == (seq, FaultKind.SIGNATURE)
        assert "give that one's public key too" in fault.text


def test_keys_are_files(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_signing_key(path).public.id == key.public.id
    with pytest.raises(FileExistsError):
        write_signing_key(path)
    other = write_signing_key(tmp_path / "other.key")
    both = tmp_path / "both.pub"
    both.write_text(key.public.pem + "\n" + other.public.pem)
    assert [one.id for one in read_public_keys([both])] == [key.public.id, other.public.id]
    assert key.public.pem.split("\n")[1] not in repr(key) + repr(key.public)
    private = path.read_text().split("\n")[1]
    assert private not in repr(key)


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str, key: SigningKey) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ConfigError, match="file: "):
        read_public_keys([path])
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        read_signing_key(path)
    path.write_text(key.public.pem)
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        read_signing_key(path)
    with pytest.raises(ConfigError, match="is not a file of public keys"):
        read_public_keys([tmp_path / "audit.key"])


def test_checkpoints_are_exported_as_they_come(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "kept.ndjson"
    with bench.database.reading() as connection:
        found = [one for one in load_checkpoints(connection) if isinstance(one, Checkpoint)]
    assert export_checkpoints(found[:2], file) == 2
    assert export_checkpoints(found, file) == len(found) - 2
    assert export_checkpoints(found, file) == 0
    assert read_checkpoints(file) == found
    with pytest.raises(AuditError, match="holds checkpoints that this log has not"):
        export_checkpoints(found[:-1], file)
    file.write_text(checkpoint_line(found[0]) + "\n{}\n")
    with pytest.raises(AuditError, match=":2: is not a checkpoint"):
        read_checkpoints(file)


def test_every_part_of_an_exported_checkpoint_is_signed(bench: Bench) -> None:
    (good,) = bench.exported
    from dataclasses import replace

    for changed in (
        replace(good, seq=good.seq - 1),
        replace(good, digest=good.digest[::-1]),
        replace(good, at=good.at + timedelta(microseconds=1)),
        replace(good, previous=good.previous[::-1]),
        replace(good, signature=good.signature[::-1]),
        replace(good, key_id="0" * 16),
    ):
        report: AuditReport = verify(bench.database, public_keys=[bench.key], checkpoints=[changed])
        assert any(one.kind is FaultKind.SIGNATURE for one in report.faults)


# Entries


def test_entries_are_listed_from_the_last_one(database: Database) -> None:
    with database.writing() as connection:
        audit.append(connection, "guard", "decision.record", "decision:1")
        audit.append(connection, "anna", "case.claim", "case:1")
        audit.append(connection, 'an"na\\%_ø', "case.claim", "case:12", note="é")
        audit.append(connection, "ANNA", "case.decide", "case:1", note='"actor":"anna"')
    assert [one.seq for one in audit.list_entries(database)] == [4, 3, 2, 1]
    assert [one.seq for one in audit.list_entries(database, limit=2, before=4)] == [3, 2]
    assert [one.seq for one in audit.list_entries(database, actor="anna")] == [2]
    assert [one.seq for one in audit.list_entries(database, actor='an"na\\%_ø')] == [3]
    assert [one.seq for one in audit.list_entries(database, subject="case:1")] == [4, 2]
    assert audit.list_entries(database, action="case.claim", subject="case:12")[0].detail == {"note": "é"}
    assert audit.list_entries(database, action="case") == []


def test_an_entry_that_cannot_be_read_is_named(database: Database) -> None:
    write(database, 2)
    with database.changing() as connection:
        connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == 2).values(entry="[]"))
    with pytest.raises(AuditError, match="entry 2: not an entry"):
        audit.list_entries(database)


# No act without its entry


def break_by_check(database: Database) -> None:
    with database.changing() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql(
                "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE audit ADD CONSTRAINT broken CHECK (false) NOT VALID")


def break_head_update(database: Database) -> None:
    with database.changing() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql(
                "CREATE TRIGGER broken BEFORE UPDATE ON audit_head BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE audit_head ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID")


def break_head(database: Database) -> None:
    with database.changing() as connection:
        connection.execute(sa.delete(schema.audit_head))


def break_number(database: Database) -> None:
    """The next number is taken."""
    with database.changing() as connection:
        head = connection.execute(sa.select(schema.audit_head.c.seq)).scalar_one()
        connection.execute(sa.insert(schema.audit).values(seq=head + 1, entry="{}", digest=b""))


@pytest.mark.parametrize("break_it", [break_by_check, break_head_update, break_head, break_number])
def test_what_cannot_be_audited_does_not_happen(
    database: Database, settings: Settings, break_it: Callable[[Database], None]
) -> None:
    plan = Plan({"made-up": frozenset(Occasion)}, block_opens_case=True)
    old = datetime.now(UTC) - timedelta(days=400)
    with database.writing() as connection:
        first, second = record(connection, [made_up_record(), made_up_record(entry="other")], plan)
        case_id, other = first.case_id, second.case_id
        record(connection, [made_up_record(decided_at=old, verdict=Verdict.NOT_SCANNED, entry=None)], Plan({}))
    assert case_id is not None
    assert other is not None
    cases = Cases(database, plan)
    break_it(database)
    before = all_rows(database)
    acts: dict[str, Callable[[], object]] = {
        "claim": lambda: cases.claim(case_id, ANNA),
        "confirm": lambda: cases.decide([case_id], "confirm", ANNA),
        "dismiss": lambda: cases.decide([other], "dismiss", ANNA),
        "escalate": lambda: cases.escalate(case_id, ANNA, "look"),
        "hold": lambda: hold(database, "case", case_id, ANNA, "order"),
        "purge": lambda: purge(database, settings, now=datetime.now(UTC)),
        "record": lambda: _record(database, plan),
    }
    for name, act in acts.items():
        with pytest.raises(LedgerError):
            act()
        assert all_rows(database) == before, name


def test_what_finds_no_room_on_the_disk_does_not_happen(sqlite_database: Database) -> None:
    """The act itself fits; the audit log's entry, which comes last, does not."""
    with sqlite_database.changing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.execute(
            sa.insert(schema.counts).values(hour=datetime.now(UTC), name="allow", value=0)
        )  # so that changing it needs no page
    sqlite_database.close()

    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    sa.event.listen(sqlite_database.engine, "connect", limit)
    before = all_rows(sqlite_database)

    def act() -> None:
        with sqlite_database.writing() as connection:
            connection.execute(sa.update(schema.counts).values(value=1))
            audit.append(connection, "anna", "case.decide", "case:1", note="x" * 50_000)

    with pytest.raises(LedgerError, match="full"):
        act()
    assert all_rows(sqlite_database) == before


def _record(database: Database, plan: Plan) -> None:
    with database.writing() as connection:
        record(connection, [made_up_record()], plan)
