"""Who may open a preserved file, what the log says of it first, and when it goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Journal, Occasion, Receipt, State, Task
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import EvidenceError, LedgerError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.evidence import EvidenceRoom
from uploadguard.ledger.holds import hold, release_hold
from uploadguard.ledger.outbox_worker import OutboxWorker
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, record
from uploadguard.ledger.vault import Vault
from uploadguard.models import Verdict
from uploadguard.storage.keys import Key, Keys

KEY = Key(bytes(32))
PLAN = Plan({"police": frozenset({Occasion.REPORT})})
ALL = Person("ada", frozenset(Role))
DATA = b"the upload's bytes"
YEAR = timedelta(days=365)
Recording = Callable[..., int]


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    path = tmp_path / "vault"
    path.mkdir()
    return Vault(path, Keys([KEY]), keep=YEAR)


@pytest.fixture
def room(database: Database, vault: Vault) -> EvidenceRoom:
    return EvidenceRoom(database, vault, lambda data, clear, frame: b"%s clear=%d frame=%d" % (data, clear, frame))


@pytest.fixture
def recorded(database: Database, vault: Vault) -> Recording:
    def make(data: bytes = DATA, *, frames: int = 1, **options: Any) -> int:
        made: dict[str, Any] = dict(made_up_record(**{"entry": os.urandom(4).hex(), **options}))
        made["media"] = {**made["media"], "frames_total": frames}
        made["evidence"] = vault.store(made["reference"], data, "image/jpeg")
        with database.writing() as connection:
            return record(connection, [made], PLAN)[0].decision_id

    return make


def log(database: Database) -> list[dict[str, Any]]:
    with database.reading() as connection:
        entries = connection.execute(sa.select(schema.audit.c.entry).order_by(schema.audit.c.seq)).scalars()
        return [one for one in map(json.loads, entries) if one["action"] != "decision.record"]


def break_the_log(database: Database) -> None:
    with database.changing() as connection:
        connection.execute(sa.delete(schema.audit_head))


def settle(database: Database, decision_id: int, done_at: datetime | None = None) -> None:
    """Close the decision's case, and file its reports."""
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="confirmed"))
        connection.execute(
            sa.update(schema.tasks)
            .where(schema.tasks.c.decision_id == decision_id)
            .values(state=State.FILED.value, done_at=done_at)
        )


def test_a_preview_is_in_the_log_with_its_reason(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    decision_id = recorded()
    assert room.preview(decision_id, ALL, "case 1:\nwhat is it?") == DATA + b" clear=0 frame=0"
    assert room.preview(decision_id, ALL, "once more", clear=True, frame=3) == DATA + b" clear=1 frame=3"
    first, second, viewed = log(database)
    assert (first["actor"], first["action"], first["subject"]) == ("ada", "evidence.reveal", f"decision:{decision_id}")
    assert first["detail"] == {"note": "case 1: what is it?", "clear": False, "frame": 0}
    assert second["detail"] == {"note": "once more", "clear": True, "frame": 3}
    assert (viewed["action"], viewed["subject"]) == ("evidence.viewed", f"decision:{decision_id}")
    with database.reading() as connection:
        events = connection.execute(sa.select(schema.case_events)).all()
    assert [(one.actor, one.kind) for one in events] == [("ada", "reveal"), ("ada", "reveal")]


def test_an_export_gives_the_bytes(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    found = room.export(recorded(), ALL, "warrant 17")
    assert (found.data, found.media_type) == (DATA, "image/jpeg")
    assert DATA.decode() not in repr(found)
    assert [one["action"] for one in log(database)] == ["evidence.export"]


def test_an_action_gets_the_file_and_the_log_says_which(
    database: Database, room: EvidenceRoom, recorded: Recording
) -> None:
    decision_id = recorded()
    found = room.for_action(decision_id, "police")
    assert found is not None
    assert found.data == DATA
    (entry,) = log(database)
    assert (entry["actor"], entry["action"], entry["detail"]) == ("outbox", "evidence.send", {"to": "police"})
    room.destroy(decision_id, ALL, "an order")
    assert room.for_action(decision_id, "police") is None
    assert room.for_action(decision_id + 1, "police") is None


@pytest.mark.parametrize("missing", [Role.REVEAL, Role.EVIDENCE])
def test_each_needs_its_role(database: Database, room: EvidenceRoom, recorded: Recording, missing: Role) -> None:
    decision_id = recorded()
    person = Person("bob", frozenset(Role) - {missing})
    acts: list[Callable[[], object]] = (
        [lambda: room.preview(decision_id, person, "why not")]
        if missing is Role.REVEAL
        else [
            lambda: room.export(decision_id, person, "why not"),
            lambda: room.destroy(decision_id, person, "an order"),
            lambda: room.renew(person),
        ]
    )
    for act in acts:
        with pytest.raises(NotPermittedError, match=missing.value):
            act()
    assert log(database) == []


@pytest.mark.parametrize("reason", ["", "  ", "\n\t\0"])
def test_none_without_a_reason(database: Database, room: EvidenceRoom, recorded: Recording, reason: str) -> None:
    decision_id = recorded()
    for act in (room.preview, room.export, room.destroy):
        with pytest.raises(ValueError, match="this needs"):
            act(decision_id, ALL, reason)  # type: ignore[operator]
    assert log(database) == []


def test_strange_reasons_become_a_line(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    room.preview(recorded(), ALL, " a\0b\x1b[2J \udcff" + "x" * 5000)
    note = log(database)[0]["detail"]["note"]
    assert note.startswith("a b [2J ?xxx")
    assert len(note) == 1000
    assert note.isprintable()


def test_the_log_is_written_before_anything_is_decrypted(
    database: Database, room: EvidenceRoom, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = recorded()
    seen: list[list[str]] = []

    def read(*_: object, **__: object) -> bytes:
        seen.append([one["action"] for one in log(database)])
        raise EvidenceError("stop here")

    monkeypatch.setattr(Vault, "read", read)
    acts: list[Callable[[], object]] = [
        lambda: room.preview(decision_id, ALL, "why", clear=True),
        lambda: room.export(decision_id, ALL, "why"),
        lambda: room.for_action(decision_id, "police"),
    ]
    for act in acts:
        with pytest.raises(EvidenceError, match="stop here"):
            act()
    assert seen == [["evidence.reveal"], ["evidence.reveal", "evidence.export"],
                    ["evidence.reveal", "evidence.export", "evidence.send"]]  # fmt: skip
    info = room.info(decision_id)
    assert info is not None
    assert info.viewed_at is None


def test_where_the_log_cannot_be_written_nothing_is_shown_or_destroyed(
    database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = recorded()
    break_the_log(database)
    monkeypatch.setattr(Vault, "read", lambda *_, **__: pytest.fail("it was decrypted"))
    acts: list[Callable[[], object]] = [
        lambda: room.preview(decision_id, ALL, "why"),
        lambda: room.export(decision_id, ALL, "why"),
        lambda: room.for_action(decision_id, "police"),
        lambda: room.destroy(decision_id, ALL, "an order"),
        lambda: room.renew(ALL),
    ]
    for act in acts:
        with pytest.raises(LedgerError, match="audit log"):
            act()
    assert len(list(vault.files())) == 1
    info = room.info(decision_id)
    assert info is not None
    assert info.destroyed_at is None


@pytest.mark.parametrize(
    ("frames", "clear", "counts"), [(1, True, True), (1, False, False), (2, True, False), (0, True, False)]
)
def test_only_all_of_a_still_in_the_clear_counts_as_viewed(
    database: Database, room: EvidenceRoom, recorded: Recording, frames: int, clear: bool, counts: bool
) -> None:
    decision_id = recorded(frames=frames)
    other = recorded()
    room.preview(decision_id, ALL, "why", clear=clear)
    room.export(decision_id, ALL, "why")
    info, untouched = room.info(decision_id), room.info(other)
    assert info is not None
    assert untouched is not None
    assert (info.viewed_at is not None) is counts
    assert untouched.viewed_at is None
    with database.reading() as connection:
        viewed = connection.execute(sa.select(schema.cases.c.viewed).order_by(schema.cases.c.id)).scalars().all()
    assert viewed == [counts, False]


def test_a_report_says_viewed_of_that_file_alone(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    looked_at = recorded(b"looked at", verdict=Verdict.BLOCK)
    recorded(b"not looked at", verdict=Verdict.BLOCK)
    with database.changing() as connection:
        connection.execute(sa.insert(schema.cases).values(
            id=1, status="open", opened_at=datetime.now(UTC), updated_at=datetime.now(UTC), verdict="block", reason="",
            uploads=2,
        ))  # fmt: skip
        for table in (schema.decisions, schema.tasks):
            connection.execute(sa.update(table).values(case_id=1))
    room.preview(looked_at, ALL, "why", clear=True)

    class Police:
        name = "police"
        occasions = frozenset({Occasion.REPORT})

        def deliver(self, task: Task, journal: Journal) -> Receipt:
            evidence = journal.evidence()
            assert evidence is not None
            viewed.append((evidence.data, task.viewed))
            return Receipt()

    viewed: list[tuple[bytes, bool]] = []
    worker = OutboxWorker(database, {"police": Police()}, OutboxSettings(), evidence=room.for_action)
    worker.run_once()
    assert sorted(viewed) == [(b"looked at", True), (b"not looked at", False)]


def test_a_view_is_not_claimed_where_no_picture_could_be_made(
    database: Database, vault: Vault, recorded: Recording
) -> None:
    def fails(data: bytes, clear: bool, frame: int, /) -> bytes:
        raise EvidenceError("no preview can be made: broken")

    room = EvidenceRoom(database, vault, fails)
    decision_id = recorded()
    with pytest.raises(EvidenceError, match="no preview can be made"):
        room.preview(decision_id, ALL, "why", clear=True)
    info = room.info(decision_id)
    assert info is not None
    assert info.viewed_at is None
    assert [one["action"] for one in log(database)] == ["evidence.reveal"]


def test_the_first_view_stays_the_first(room: EvidenceRoom, database: Database, recorded: Recording) -> None:
    decision_id = recorded()
    room.preview(decision_id, ALL, "why", clear=True)
    first = room.info(decision_id)
    room.preview(decision_id, ALL, "why", clear=True)
    assert room.info(decision_id) == first
    assert [one["action"] for one in log(database)].count("evidence.viewed") == 1


def test_what_is_known_of_files(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    ids = [recorded(), recorded(verdict=Verdict.BLOCK), recorded()]
    infos = room.list()
    assert [one.decision_id for one in infos] == ids
    assert infos[0] == room.info(ids[0])
    assert infos[1].case_id is None
    assert infos[0].case_id is not None
    assert (infos[0].size_bytes, infos[0].media_type, infos[0].held) == (len(DATA), "image/jpeg", False)
    assert infos[0].keep_until == infos[0].stored_at + YEAR
    assert [one.decision_id for one in room.list(case_id=infos[2].case_id)] == [ids[2]]
    assert [one.decision_id for one in room.list(after=ids[0], limit=1)] == [ids[1]]
    hold(database, "case", infos[0].case_id, ALL, "an order")
    hold(database, "decision", ids[1], ALL, "an order")
    assert [one.held for one in room.list()] == [True, True, False]
    room.destroy(ids[2], ALL, "an order")
    assert [one.decision_id for one in room.list()] == ids[:2]
    assert [one.destroyed_at is None for one in room.list(destroyed=True)] == [True, True, False]
    assert room.info(10_000) is None


def test_a_file_that_is_not_there(database: Database, room: EvidenceRoom) -> None:
    with database.writing() as connection:
        bare = record(connection, [made_up_record()], PLAN)[0].decision_id
    for decision_id in (bare, 10_000):
        with pytest.raises(UnknownRecordError, match=f"no file is preserved for decision {decision_id}"):
            room.preview(decision_id, ALL, "why")
    assert log(database) == []


def test_without_a_vault_nothing_is_opened(database: Database, recorded: Recording) -> None:
    decision_id = recorded()
    room = EvidenceRoom(database, None, lambda *_: b"")
    assert room.info(decision_id) is not None
    assert room.sweep() == 0
    for act in (room.preview, room.export, room.destroy):
        with pytest.raises(EvidenceError, match=r"evidence\.path is not set"):
            act(decision_id, ALL, "why")  # type: ignore[operator]
    assert log(database) == []


# Destroying


def test_what_is_destroyed_is_gone(database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording) -> None:
    decision_id = recorded()
    room.destroy(decision_id, ALL, "court 4 Cs 17")
    assert list(vault.files()) == []
    info = room.info(decision_id)
    assert info is not None
    assert info.destroyed_at is not None
    assert [(one["action"], one["detail"]) for one in log(database)] == [
        ("evidence.destroy", {"note": "court 4 Cs 17"}),
        ("evidence.erased", {}),
    ]
    for act in (room.preview, room.export, room.destroy):
        with pytest.raises(EvidenceError, match="was destroyed on 2"):
            act(decision_id, ALL, "once more")  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["case", "decision"])
def test_a_hold_keeps_it(database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording, kind: Any) -> None:
    decision_id = recorded()
    settle(database, decision_id)
    info = room.info(decision_id)
    assert info is not None
    held = decision_id if kind == "decision" else info.case_id
    assert held is not None
    hold(database, kind, held, ALL, "an order")
    with pytest.raises(EvidenceError, match="legal hold"):
        room.destroy(decision_id, ALL, "another order")
    assert room.sweep(datetime.now(UTC) + 3 * YEAR) == 0
    assert len(list(vault.files())) == 1
    release_hold(database, kind, held, ALL, "it is over")
    assert room.sweep(datetime.now(UTC) + 3 * YEAR) == 1
    assert list(vault.files()) == []


def test_a_disk_that_will_not_remove_is_told_and_asked_again(
    database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = recorded()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(EvidenceError, match="cannot be destroyed: Input/output error"):
        room.destroy(decision_id, ALL, "an order")
    with pytest.raises(EvidenceError, match="was destroyed"):
        room.export(decision_id, ALL, "why")
    monkeypatch.undo()
    assert len(list(vault.files())) == 1
    assert room.sweep() == 1
    assert list(vault.files()) == []
    assert [one["action"] for one in log(database)] == ["evidence.destroy", "evidence.erased"]


# Time


def test_files_go_when_their_time_is_over(
    database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording
) -> None:
    ids = [recorded(verdict=Verdict.BLOCK, report_due=False) for _ in range(230)]
    now = datetime.now(UTC)
    assert room.sweep(now + YEAR - timedelta(hours=1)) == 0
    assert room.sweep(now + YEAR + timedelta(hours=1)) == len(ids)
    assert list(vault.files()) == []
    assert room.list() == []
    actions = [one["action"] for one in log(database)]
    assert (actions.count("evidence.expire"), actions.count("evidence.erased")) == (230, 230)
    assert room.sweep(now + 2 * YEAR) == 0


def test_files_of_open_matters_stay(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    late = datetime.now(UTC) + 2 * YEAR
    recorded(report_due=False)  # its case is open
    blocked = recorded(verdict=Verdict.BLOCK)  # its report is not filed
    assert room.sweep(late) == 0
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="proposed"))
        connection.execute(sa.update(schema.tasks).values(state=State.REFUSED.value))
    assert [one.decision_id for one in room.list()][-1] == blocked
    assert room.sweep(late) == 0
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).values(status="dismissed"))
        connection.execute(sa.update(schema.tasks).values(state=State.CANCELLED.value))
    room.sweep(late)
    assert room.list() == []


def test_a_year_counts_from_when_it_was_reported(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    decision_id = recorded(verdict=Verdict.BLOCK)
    now = datetime.now(UTC)
    settle(database, decision_id, done_at=now + timedelta(days=100))
    assert room.sweep(now + timedelta(days=370)) == 0
    assert room.sweep(now + timedelta(days=464)) == 0
    assert room.sweep(now + timedelta(days=466)) == 1


def test_for_ever_is_for_ever(database: Database, room: EvidenceRoom, recorded: Recording) -> None:
    decision_id = recorded(verdict=Verdict.BLOCK, report_due=False)
    with database.changing() as connection:
        connection.execute(sa.update(schema.evidence).values(keep_until=None))
    assert room.sweep(datetime.now(UTC) + 1000 * timedelta(days=1000)) == 0
    assert room.export(decision_id, ALL, "why").data == DATA


def age(path: Path, by: timedelta) -> None:
    at = path.stat().st_mtime - by.total_seconds()
    os.utime(path, (at, at))


def test_what_no_decision_leads_to_goes_after_a_day(
    database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording
) -> None:
    kept = recorded()
    for _ in range(3):
        vault.store("never recorded", DATA, None)
    young = vault.store("just being recorded", DATA, None)
    for one in vault.files():
        if one.name != young["file"]:
            age(one.path, timedelta(hours=25))
    assert room.sweep() == 3
    assert room.export(kept, ALL, "why").data == DATA
    assert {one.name for one in vault.files()} > {young["file"]}
    (entry,) = [one for one in log(database) if one["action"] == "evidence.orphans"]
    assert entry["detail"] == {"files": 3}


def test_while_decisions_wait_for_the_database_none_of_their_files_go(database: Database, vault: Vault) -> None:
    spooling = True
    room = EvidenceRoom(database, vault, lambda *_: b"", is_spooling=lambda: spooling)
    vault.store("in the spool", DATA, None)
    for one in vault.files():
        age(one.path, timedelta(days=30))
    assert room.sweep() == 0
    spooling = False
    assert room.sweep() == 1


def test_what_a_killed_writer_left_goes_after_an_hour(room: EvidenceRoom, vault: Vault) -> None:
    vault.store("reference", DATA, None)
    folder = next(vault.files()).path.parent
    old, young = folder / ".a.tmp", folder / ".b.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    age(old, timedelta(hours=2))
    (folder / "somebody's notes").write_text("left alone")
    (vault.path / "README").write_text("left alone")
    room.sweep()
    assert not old.exists()
    assert young.exists()
    assert (folder / "somebody's notes").exists()


def test_keys_are_changed_and_the_old_one_is_needed_no_more(
    database: Database, room: EvidenceRoom, vault: Vault, recorded: Recording
) -> None:
    ids = [recorded(b"file %d" % number) for number in range(120)]
    room.destroy(ids.pop(), ALL, "an order")
    new = Key(bytes([9]) * 32)
    both = EvidenceRoom(database, Vault(vault.path, Keys([new, KEY]), keep=None), lambda *_: b"")
    assert both.renew(ALL) == 119
    assert both.renew(ALL) == 0
    only_new = EvidenceRoom(database, Vault(vault.path, Keys([new]), keep=None), lambda *_: b"")
    assert only_new.export(ids[3], ALL, "why").data == b"file 3"
    with pytest.raises(EvidenceError, match="not among those"):
        room.export(ids[3], ALL, "why")


def test_renewing_stops_at_a_file_that_cannot_be_read(database: Database, vault: Vault, recorded: Recording) -> None:
    recorded()
    next(vault.files()).path.write_bytes(b"damaged")
    room = EvidenceRoom(database, Vault(vault.path, Keys([Key(bytes([9]) * 32), KEY]), keep=None), lambda *_: b"")
    with pytest.raises(EvidenceError, match="altered"):
        room.renew(ALL)
