"""Review cases: claiming, deciding, the two-person rule, what is refused and why."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from uploadguard.actions import Occasion
from uploadguard.errors import CaseStateError, LedgerDownError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.cases import CLAIM_LASTS, Cases, CaseStatus, Decided
from uploadguard.ledger.database import Database
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import Plan, record
from uploadguard.models import Context

ANN = Person("ann", frozenset({Role.REVIEW}))
BOB = Person("bob", frozenset({Role.REVIEW}))
LEA = Person("lea", frozenset({Role.REVIEW, Role.LEAD}))
STRANGER = Person("stranger", frozenset({Role.AUDIT}))
PLAN = Plan({"authority": frozenset({Occasion.REPORT}), "host": frozenset({*Occasion} - {Occasion.REPORT})})


def new_case(database: Database, **values: Any) -> int:
    with database.writing() as connection:
        (made,) = record(connection, [made_up_record(**values)], PLAN)
    assert made.case_id is not None
    return made.case_id


def events(cases: Cases, case_id: int) -> list[tuple[str, str]]:
    return [(event.actor, event.kind) for event in cases.show(case_id).events]


def audited(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(sa.select(schema.audit.c.entry).order_by(schema.audit.c.seq)).scalars())


def change_case(database: Database, case_id: int, **values: object) -> None:
    with database.changing() as connection:
        connection.execute(sa.update(schema.cases).where(schema.cases.c.id == case_id).values(**values))


@pytest.fixture
def cases(database: Database) -> Cases:
    return Cases(database, PLAN)


def test_a_case_shows_all_that_is_known_of_it(database: Database, cases: Cases) -> None:
    context = Context(uploader="u-1", tenant="forum", object_id="obj-9", ip="192.0.2.1")
    case_id = new_case(database, context=context)
    assert new_case(database, context=context) == case_id
    detail = cases.show(case_id)
    assert (detail.case.status, detail.case.uploader, detail.case.tenant) == (CaseStatus.OPEN, "u-1", "forum")
    assert (detail.case.verdict, detail.case.reason, detail.case.uploads) == ("queue", "digest_match", 2)
    assert [upload.recorded.context.object_id for upload in detail.uploads] == ["obj-9", "obj-9"]
    assert detail.uploads[0].recorded.decision.matches[0].entry_id == "entry-1"
    assert detail.uploads[0].evidence is None
    assert detail.events == ()
    assert detail.tasks == ()
    assert "u-1" not in repr(detail.case)


def test_the_preserved_file_is_told_of(database: Database, cases: Cases) -> None:
    found = made_up_record()
    stored = datetime(2026, 1, 1, tzinfo=UTC)
    found["evidence"] = {
        "file": "x",
        "sha256": "00" * 32,
        "size_bytes": 77,
        "media_type": "image/png",
        "stored_at": stored.isoformat(),
        "keep_until": (stored + timedelta(days=365)).isoformat(),
    }
    with database.writing() as connection:
        (made,) = record(connection, [found], PLAN)
    assert made.case_id is not None
    evidence = cases.show(made.case_id).uploads[0].evidence
    assert evidence is not None
    assert (evidence.size_bytes, evidence.media_type) == (77, "image/png")
    assert evidence.keep_until == stored + timedelta(days=365)
    assert evidence.destroyed_at is None
    assert not evidence.held
    change_case(database, made.case_id, legal_hold=True)
    detail = cases.show(made.case_id)
    assert detail.case.legal_hold
    assert detail.uploads[0].evidence is not None
    assert detail.uploads[0].evidence.held


def test_claiming_keeps_others_off(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    assert cases.claim(case_id, ANN).claimed_by == "ann"
    assert cases.claim(case_id, ANN).claimed_by == "ann"
    with pytest.raises(CaseStateError, match=r"claimed by ann until \d{4}-.* UTC; ask for it to be unclaimed"):
        cases.claim(case_id, BOB)
    for act in (cases.decide, lambda ids, _, who: cases.unclaim(ids[0], who)):
        with pytest.raises(CaseStateError, match="claimed by ann"):
            act([case_id], "confirm", BOB)
    with pytest.raises(CaseStateError, match="claimed by ann"):
        cases.escalate(case_id, BOB, "")
    assert cases.unclaim(case_id, ANN).claimed_by is None
    assert cases.unclaim(case_id, ANN).claimed_by is None
    assert cases.claim(case_id, BOB).claimed_by == "bob"
    assert events(cases, case_id) == [("ann", "claim"), ("ann", "unclaim"), ("bob", "claim")]


def test_a_lead_decides_and_frees_what_another_has_claimed(database: Database, cases: Cases) -> None:
    first, second = new_case(database), new_case(database, entry="entry-2")
    cases.claim(first, ANN)
    cases.claim(second, ANN)
    assert cases.decide([first], "dismiss", LEA)[0].status is CaseStatus.DISMISSED
    assert cases.unclaim(second, LEA).claimed_by is None
    assert cases.show(second).events[-1].note == "ann"


def test_an_old_claim_can_be_taken_over(database: Database, cases: Cases) -> None:
    case_id, other = new_case(database), new_case(database, entry="entry-2")
    for claimed in (case_id, other):
        cases.claim(claimed, ANN)
        change_case(database, claimed, claimed_at=datetime.now(UTC) - CLAIM_LASTS)
    assert cases.claim(case_id, BOB).claimed_by == "bob"
    assert cases.show(case_id).events[-1].note == "ann had it before"
    assert cases.decide([other], "dismiss", BOB)[0].status is CaseStatus.DISMISSED


@pytest.mark.parametrize("outcome", ["confirm", "dismiss"])
def test_the_second_to_decide_learns_who_was_first(database: Database, cases: Cases, outcome: str) -> None:
    case_id = new_case(database)
    (decided,) = cases.decide([case_id], outcome, ANN, note="as the list says")  # type: ignore[arg-type]
    status = CaseStatus(f"{outcome}ed")
    assert decided == Decided(case_id, status, tasks=2 if outcome == "confirm" else 1)
    case = cases.show(case_id).case
    assert (case.status, case.decided_by, case.claimed_by) == (status, "ann", None)
    assert cases.show(case_id).events[-1].note == "as the list says"
    for again in (
        lambda: cases.decide([case_id], "dismiss", LEA),
        lambda: cases.claim(case_id, BOB),
        lambda: cases.escalate(case_id, LEA, ""),
    ):
        with pytest.raises(CaseStateError, match=rf"was {status} by ann at .* UTC; a lead can requeue it"):
            again()


def test_who_may_not(database: Database, cases: Cases) -> None:
    case_id, other = new_case(database), new_case(database, entry="entry-2")
    for act in (
        lambda: cases.claim(case_id, STRANGER),
        lambda: cases.unclaim(case_id, STRANGER),
        lambda: cases.decide([case_id], "confirm", STRANGER),
        lambda: cases.escalate(case_id, STRANGER, ""),
        lambda: cases.requeue(case_id, STRANGER, ""),
        lambda: cases.comment(case_id, STRANGER, "hello"),
    ):
        with pytest.raises(NotPermittedError, match="'review'"):
            act()
    with pytest.raises(NotPermittedError, match="'lead'"):
        cases.decide([case_id, other], "confirm", ANN)
    cases.decide([case_id], "confirm", ANN)
    with pytest.raises(NotPermittedError, match="'lead'"):
        cases.requeue(case_id, ANN, "")
    assert cases.counts() == {"open": 1, "proposed": 0, "confirmed": 1, "dismissed": 0}


def test_there_is_no_such_case(cases: Cases) -> None:
    for case_id in (1, 0, -1, 2**63, 2**70):
        with pytest.raises(UnknownRecordError, match=f"no case {case_id}"):
            cases.show(case_id)
        with pytest.raises(UnknownRecordError):
            cases.decide([case_id], "confirm", ANN)


def test_wrong_calls(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    with pytest.raises(ValueError, match="not an outcome"):
        cases.decide([case_id], "ignore", ANN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only where a case is confirmed"):
        cases.decide([case_id], "dismiss", ANN, ban=True)
    with pytest.raises(ValueError, match="must say something"):
        cases.comment(case_id, ANN, " \n")
    assert cases.decide([], "confirm", ANN) == []


def test_an_escalated_case_waits_for_a_lead(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    cases.claim(case_id, ANN)
    case = cases.escalate(case_id, ANN, "cannot tell")
    assert (case.status, case.escalated, case.claimed_by) == (CaseStatus.OPEN, True, None)
    with pytest.raises(CaseStateError, match="escalated already"):
        cases.escalate(case_id, BOB, "")
    with pytest.raises(NotPermittedError, match="escalated: deciding it needs the role 'lead'"):
        cases.decide([case_id], "dismiss", BOB)
    with pytest.raises(NotPermittedError, match="'lead'"):
        cases.requeue(case_id, BOB, "")
    assert not cases.requeue(case_id, LEA, "look at the match of frame 2").escalated
    cases.escalate(case_id, BOB, "")
    cases.decide([case_id], "dismiss", LEA)
    assert not cases.show(case_id).case.escalated


def test_two_who_agree(database: Database) -> None:
    cases = Cases(database, PLAN, two_person="confirm")
    case_id = new_case(database)
    cases.claim(case_id, ANN)
    assert cases.decide([case_id], "confirm", ANN) == [Decided(case_id, CaseStatus.PROPOSED, proposed=True)]
    case = cases.show(case_id).case
    assert (case.proposed, case.proposed_by, case.claimed_by, case.decided_by) == ("confirm", "ann", None, None)
    assert cases.show(case_id).tasks == ()
    with pytest.raises(CaseStateError, match="you proposed to confirm it, so somebody else must decide"):
        cases.decide([case_id], "confirm", ANN)
    assert cases.decide([case_id], "confirm", BOB, ban=True) == [Decided(case_id, CaseStatus.CONFIRMED, tasks=3)]
    case = cases.show(case_id).case
    assert (case.proposed, case.proposed_by, case.decided_by) == (None, None, "bob")
    assert events(cases, case_id)[-2:] == [("ann", "propose"), ("bob", "confirm")]


@pytest.mark.parametrize("name", ["Ann", "ANN", " ann", "\uff41nn"])
def test_another_spelling_is_no_second_person(database: Database, name: str) -> None:
    cases = Cases(database, PLAN, two_person="all")
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    for outcome in ("confirm", "dismiss"):
        with pytest.raises(CaseStateError, match="somebody else must decide"):
            cases.decide([case_id], outcome, Person(name, ANN.roles))  # type: ignore[arg-type]


def test_two_who_disagree(database: Database) -> None:
    cases = Cases(database, PLAN, two_person="confirm")
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    assert cases.decide([case_id], "dismiss", BOB, note="a cartoon") == [Decided(case_id, CaseStatus.OPEN)]
    case = cases.show(case_id).case
    assert (case.status, case.escalated, case.proposed, case.proposed_by) == (CaseStatus.OPEN, True, None, None)
    assert cases.show(case_id).tasks == ()
    assert events(cases, case_id) == [("ann", "propose"), ("bob", "disagree")]
    assert cases.decide([case_id], "dismiss", LEA)[0].status is CaseStatus.DISMISSED


@pytest.mark.parametrize(
    ("rule", "alone"),
    [("none", {"confirm", "dismiss"}), ("confirm", {"dismiss"}), ("dismiss", {"confirm"}), ("all", ())],
)
def test_which_decisions_need_two(database: Database, rule: str, alone: Collection[str]) -> None:
    cases = Cases(database, PLAN, two_person=rule)
    for number, outcome in enumerate(("confirm", "dismiss")):
        (decided,) = cases.decide([new_case(database, entry=f"e-{number}")], outcome, ANN)  # type: ignore[arg-type]
        assert decided.proposed == (outcome not in alone)


def test_a_proposal_is_withdrawn_by_its_author_or_a_lead(database: Database) -> None:
    cases = Cases(database, PLAN, two_person="all")
    case_id = new_case(database)
    for person in (ANN, LEA):
        cases.decide([case_id], "dismiss", ANN)
        with pytest.raises(CaseStateError, match="only ann, who proposed to dismiss it, or a lead"):
            cases.requeue(case_id, BOB, "")
        case = cases.requeue(case_id, person, "")
        assert (case.status, case.round, case.escalated, case.proposed_by) == (CaseStatus.OPEN, 1, False, None)
    with pytest.raises(CaseStateError, match="in the queue already"):
        cases.requeue(case_id, LEA, "")


def test_an_upload_that_comes_while_a_case_is_proposed_opens_another(database: Database) -> None:
    cases = Cases(database, PLAN, two_person="all")
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    assert new_case(database) != case_id


def test_many_at_once_each_for_itself(database: Database, cases: Cases) -> None:
    ids = [new_case(database, entry=f"e-{number}") for number in range(4)]
    cases.decide([ids[1]], "dismiss", ANN)
    cases.claim(ids[2], BOB)
    results = cases.decide([*ids, 99, ids[0]], "confirm", LEA)
    assert [result.case_id for result in results] == [*ids, 99]
    assert [result.status for result in results] == ["confirmed", None, "confirmed", "confirmed", None]
    assert results[1].error is not None
    assert "dismissed by ann" in results[1].error
    assert results[4].error == "there is no case 99"
    assert cases.counts()[CaseStatus.CONFIRMED] == 3


def test_where_the_database_fails_the_rest_is_not_tried(
    database: Database, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [new_case(database, entry=f"e-{number}") for number in range(3)]
    writing, calls = database.writing, []

    def failing() -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise LedgerDownError("the disk is full")
        return writing()

    monkeypatch.setattr(database, "writing", failing)
    results = cases.decide(ids, "confirm", LEA)
    assert [result.error for result in results] == [None, "the disk is full", "was not tried: the disk is full"]
    assert len(calls) == 2


def test_all_is_in_the_audit_log_and_nothing_of_the_uploader(database: Database) -> None:
    cases = Cases(database, PLAN, two_person="confirm")
    case_id = new_case(database, list_name="hotline-x", context=Context(uploader="u-secret"))
    before = len(audited(database))
    cases.claim(case_id, ANN)
    cases.claim(case_id, ANN)
    cases.comment(case_id, ANN, "note-secret")
    cases.decide([case_id], "confirm", ANN, note="note-secret")
    cases.requeue(case_id, ANN, "note-secret")
    cases.escalate(case_id, ANN, "note-secret")
    cases.decide([case_id], "confirm", LEA)
    cases.decide([case_id], "confirm", BOB)
    cases.requeue(case_id, LEA, "note-secret")
    entries = [entry for entry in audited(database)[before:] if '"case:' in entry]
    kinds = ["claim", "comment", "propose", "withdraw", "escalate", "propose", "confirm", "requeue"]
    assert [kind for _, kind in events(cases, case_id)] == kinds
    for entry, kind in zip(entries, kinds, strict=True):
        assert f'"action":"case.{kind}"' in entry
    for secret in ("u-secret", "note-secret", "hotline-x", "entry-1"):
        assert not any(secret in entry for entry in audited(database))


def test_a_note_of_any_text_is_kept(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    cases.comment(case_id, ANN, " a\0b\ud800 " + "x" * 10_000)
    note = cases.show(case_id).events[0].note
    assert note.startswith("a\ufffdb?")
    assert len(note) == 4000
