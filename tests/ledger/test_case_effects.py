"""What comes of a decision: tasks, entries of the local lists, feedback; and how requeueing takes them back."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from tests.ledger.test_cases import ANN, LEA, PLAN, new_case
from uploadguard.actions import State
from uploadguard.ledger import schema
from uploadguard.ledger.cases import Cases, CaseStatus
from uploadguard.ledger.codec import to_record
from uploadguard.ledger.database import Database
from uploadguard.ledger.recording import MAX_CASE_UPLOADS, Plan, record
from uploadguard.models import Context, Decision, Hash, Match, Media, Verdict

BLOCKING = Plan(PLAN.occasions, block_opens_case=True)


@pytest.fixture
def cases(database: Database) -> Cases:
    return Cases(database, PLAN)


def tasks(cases: Cases, case_id: int) -> Counter[tuple[str, str, str]]:
    """Action, occasion and state."""
    return Counter(
        (task.action, task.occasion.value, f"{task.state}{' cancelled' if task.cancelled else ''}")
        for task in cases.show(case_id).tasks
    )


def set_tasks(database: Database, case_id: int, **values: object) -> None:
    with database.changing() as connection:
        connection.execute(sa.update(schema.tasks).where(schema.tasks.c.case_id == case_id).values(**values))


def local_entries(database: Database) -> list[tuple[str, str, list[Any], bool]]:
    entries = schema.local_entries.c
    query = sa.select(entries.list_name, entries.entry_id, entries.hashes, entries.removed).order_by(entries.seq)
    with database.reading() as connection:
        return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


def blocked_case(database: Database) -> int:
    with database.writing() as connection:
        (made,) = record(connection, [made_up_record(verdict=Verdict.BLOCK)], BLOCKING)
    assert made.case_id is not None
    return made.case_id


def test_confirming_reports_and_deletes_each_upload_and_bans_once(database: Database, cases: Cases) -> None:
    case_id = new_case(database, report_due=False)
    assert new_case(database, report_due=True) == case_id
    (decided,) = cases.decide([case_id], "confirm", ANN, ban=True)
    assert decided.tasks == 5
    assert tasks(cases, case_id) == {
        ("authority", "report", "pending"): 2,
        ("host", "delete", "pending"): 2,
        ("host", "ban", "pending"): 1,
    }
    uploads = cases.show(case_id).uploads
    (ban,) = (task for task in cases.show(case_id).tasks if task.occasion == "ban")
    assert ban.decision_id == uploads[-1].decision_id
    assert all((task.due_at is not None) == (task.occasion == "report") for task in cases.show(case_id).tasks)


def test_dismissing_releases_each_upload(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    new_case(database)
    assert cases.decide([case_id], "dismiss", ANN)[0].tasks == 2
    assert tasks(cases, case_id) == {("host", "release", "pending"): 2}


def test_requeueing_takes_back_what_is_not_done(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    case = cases.requeue(case_id, LEA, "the wrong one")
    assert (case.status, case.round, case.decided_by, case.decided_at) == (CaseStatus.OPEN, 2, None, None)
    assert tasks(cases, case_id) == {
        ("authority", "report", "cancelled cancelled"): 1,
        ("host", "delete", "cancelled cancelled"): 1,
    }
    cases.decide([case_id], "confirm", ANN)
    assert tasks(cases, case_id) == {
        ("authority", "report", "pending"): 1,
        ("host", "delete", "cancelled cancelled"): 1,
        ("host", "delete", "pending"): 1,
    }


def test_an_opened_report_is_retracted_unless_the_case_is_confirmed_again(database: Database, cases: Cases) -> None:
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    set_tasks(database, case_id, state=State.OPENED.value, remote_id="r-1")
    cases.requeue(case_id, LEA, "")
    assert tasks(cases, case_id)[("authority", "report", "opened cancelled")] == 1
    cases.decide([case_id], "confirm", ANN)
    (report,) = (task for task in cases.show(case_id).tasks if task.occasion == "report")
    assert (report.state, report.cancelled, report.remote_id) == (State.OPENED, False, "r-1")


def test_a_report_whose_retraction_was_refused_goes_on_where_the_case_is_confirmed_again(
    database: Database, cases: Cases
) -> None:
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    set_tasks(database, case_id, state=State.OPENED.value, remote_id="r-1")
    cases.requeue(case_id, LEA, "")
    set_tasks(database, case_id, state=State.REFUSED.value, refused_in=State.OPENED.value)
    cases.decide([case_id], "confirm", ANN)
    assert tasks(cases, case_id)[("authority", "report", "opened")] == 1


@pytest.mark.parametrize("state", [State.FINISHING, State.FILED])
def test_what_is_filed_stays_filed_and_is_not_filed_twice(database: Database, cases: Cases, state: State) -> None:
    case_id = new_case(database)
    cases.decide([case_id], "confirm", ANN)
    set_tasks(database, case_id, state=state.value)
    cases.requeue(case_id, LEA, "")
    cases.decide([case_id], "confirm", ANN)
    assert tasks(cases, case_id) == {
        ("authority", "report", state.value): 1,
        ("host", "delete", state.value): 1,
        ("host", "delete", "pending"): 1,
    }


def test_a_report_due_by_rule_lives_unless_the_case_is_dismissed(database: Database, cases: Cases) -> None:
    case_id = blocked_case(database)
    due = ("authority", "report", "pending")
    gone = ("authority", "report", "cancelled cancelled")
    assert tasks(cases, case_id)[due] == 1
    cases.decide([case_id], "dismiss", ANN)
    assert (tasks(cases, case_id)[due], tasks(cases, case_id)[gone]) == (0, 1)
    cases.requeue(case_id, LEA, "")
    assert (tasks(cases, case_id)[due], tasks(cases, case_id)[gone]) == (1, 0)
    cases.decide([case_id], "confirm", ANN)
    cases.requeue(case_id, LEA, "")
    assert (tasks(cases, case_id)[due], tasks(cases, case_id)[gone]) == (1, 0)


def test_a_case_takes_in_no_more_uploads_than_can_be_decided_at_once(database: Database, cases: Cases) -> None:
    with database.writing() as connection:
        made = record(connection, [made_up_record() for _ in range(MAX_CASE_UPLOADS + 1)], PLAN)
    sizes = Counter(one.case_id for one in made)
    assert sorted(sizes.values()) == [1, MAX_CASE_UPLOADS]
    case_id = made[0].case_id
    assert case_id is not None
    assert cases.decide([case_id], "confirm", ANN)[0].tasks == 2 * MAX_CASE_UPLOADS
    detail = cases.show(case_id)
    assert (len(detail.uploads), detail.case.uploads) == (100, MAX_CASE_UPLOADS)
    cases.requeue(case_id, LEA, "")
    removed = [entry[3] for entry in local_entries(database)]
    assert removed == [False] * MAX_CASE_UPLOADS + [True] * MAX_CASE_UPLOADS


def picture(
    sha256: bytes,
    *frames: tuple[bytes, int],
    matched: tuple[int, ...] = (),
    list_name: str = "made-up",
) -> dict[str, object]:
    """A record of an upload with these frames' PDQ hashes and qualities, and matches of some of the frames."""
    hashes = [Hash("sha256", sha256), Hash("md5", sha256[:16]), Hash("sha1", sha256[:20])]
    for number, (value, quality) in enumerate(frames):
        hashes += [
            Hash("pdq", value, quality, frame=number),
            Hash("pdq", value[::-1], quality, "mirrored", number),
            Hash("pdq", value[1:] + b"t", quality, "thumbnail.original", number),
        ]
    decision = Decision(
        verdict=Verdict.QUEUE,
        reasons=("perceptual_match",),
        matches=tuple(Match(list_name, f"e-{frame}", None, "pdq", 20, frame=frame) for frame in matched),
        failures=(),
        hashes=tuple(hashes),
        media=Media(10),
        generation=1,
    )
    return to_record(decision, Context(uploader="u"), datetime.now(UTC))


def decided(database: Database, cases: Cases, found: dict[str, object], outcome: Any, **options: Any) -> int:
    with database.writing() as connection:
        (made,) = record(connection, [found], PLAN)
    assert made.case_id is not None
    cases.decide([made.case_id], outcome, ANN, **options)
    return made.case_id


A, B, C = (bytes([value]) * 32 for value in (0xA, 0xB, 0xC))


def test_confirming_remembers_digests_and_the_frames_that_matched(database: Database, cases: Cases) -> None:
    digests = [["sha256", A.hex()], ["md5", A[:16].hex()], ["sha1", A[:20].hex()]]
    case_id = decided(database, cases, picture(A, (A, 90), (B, 90), matched=(1,)), "confirm")
    decided(database, cases, picture(B, (A, 50), (B, 49)), "confirm")
    (first, second) = local_entries(database)
    assert first == ("uploadguard-confirmed", f"case-{case_id}-1", [*digests, ["pdq", B.hex()]], False)
    assert [value for name, value in second[2] if name == "pdq"] == [A.hex()]


def test_dismissing_remembers_sha256_and_frames_only_if_asked(database: Database, cases: Cases) -> None:
    case_id = decided(database, cases, picture(A, (A, 90), (B, 90), matched=(1,)), "dismiss")
    decided(database, cases, picture(B, (A, 90), (B, 90), matched=(1,)), "dismiss", remember="perceptual")
    (first, second) = local_entries(database)
    assert first == ("uploadguard-dismissed", f"case-{case_id}-1", [["sha256", A.hex()]], False)
    assert second[2] == [["sha256", B.hex()], ["pdq", B.hex()]]


def test_nothing_is_remembered_if_so_asked_or_if_there_is_nothing(database: Database, cases: Cases) -> None:
    decided(database, cases, picture(A, (A, 90)), "confirm", remember=False)
    no_hashes = picture(A) | {"hashes": []}
    decided(database, cases, no_hashes, "confirm")
    assert local_entries(database) == []


def test_the_least_quality_is_a_setting(database: Database) -> None:
    decided(database, Cases(database, PLAN, min_quality=95), picture(A, (A, 94), (B, 95)), "confirm")
    assert [value for name, value in local_entries(database)[0][2] if name == "pdq"] == [B.hex()]


def test_the_same_bytes_are_remembered_once_for_each_case(database: Database, cases: Cases) -> None:
    sha256 = os.urandom(32)
    case_id = new_case(database, sha256=sha256)
    assert new_case(database, sha256=sha256) == case_id
    cases.decide([case_id], "confirm", ANN)
    assert len(local_entries(database)) == 1


def test_requeueing_takes_entries_back_and_deciding_again_brings_them_back(database: Database, cases: Cases) -> None:
    case_id = decided(database, cases, picture(A, (A, 90)), "dismiss")
    cases.requeue(case_id, LEA, "")
    cases.decide([case_id], "dismiss", ANN)
    cases.requeue(case_id, LEA, "")
    cases.decide([case_id], "confirm", ANN)
    names = [(name.removeprefix("uploadguard-"), removed) for name, _, _, removed in local_entries(database)]
    assert names == [*[("dismissed", False), ("dismissed", True)] * 2, ("confirmed", False)]
    assert len({entry_id for _, entry_id, _, _ in local_entries(database)}) == 1


def test_what_was_confirmed_is_on_no_allow_list(database: Database, cases: Cases) -> None:
    """An allow-list's digest would clear it, whatever the local block list says."""
    first = decided(database, cases, picture(A, (A, 90), matched=(0,)), "dismiss", remember="perceptual")
    second = decided(database, cases, picture(B, (A, 90), matched=(0,)), "confirm")
    assert [entry[1:] for entry in local_entries(database) if entry[3]] == [(f"case-{first}-1", [], True)]
    decided(database, cases, picture(B, (A, 90), matched=(0,)), "dismiss", remember="perceptual")
    assert len(local_entries(database)) == 3
    third = decided(database, cases, picture(C, (A, 90), (C, 90), matched=(0, 1)), "dismiss", remember="perceptual")
    assert local_entries(database)[-1][1:3] == (f"case-{third}-4", [["sha256", C.hex()], ["pdq", C.hex()]])
    cases.requeue(second, LEA, "")
    decided(database, cases, picture(B), "dismiss")
    assert local_entries(database)[-1][0] == "uploadguard-dismissed"


def opinions(cases: Cases, **options: bool) -> list[tuple[str, str, str, bool]]:
    return [(one.list_name, one.entry_id, one.opinion, one.sent_at is not None) for one in cases.feedback(**options)]


def test_feedback_is_kept_for_each_entry(database: Database, cases: Cases) -> None:
    case_id = decided(database, cases, picture(A, (A, 90), (B, 90), matched=(0, 1)), "dismiss", note="private")
    decided(database, cases, picture(B, (A, 90), matched=(0,), list_name="other"), "confirm")
    decided(database, cases, picture(C, (A, 90), matched=(0,), list_name="silent"), "confirm", feedback=False)
    decided(database, cases, picture(C, (A, 90), matched=(0,), list_name="uploadguard-confirmed"), "confirm")
    assert opinions(cases) == [
        ("made-up", "e-0", "wrong", False),
        ("made-up", "e-1", "wrong", False),
        ("other", "e-0", "right", False),
    ]
    first = cases.feedback()[:2]
    assert {(one.case_id, one.actor) for one in first} == {(case_id, "ann")}
    assert not any("private" in str(astuple(one)) for one in first)  # the note is of the case, not for those outside


def test_feedback_that_was_sent_is_overruled_by_newer(database: Database, cases: Cases) -> None:
    case_id = decided(database, cases, picture(A, (A, 90), matched=(0,)), "dismiss")
    cases.requeue(case_id, LEA, "")
    assert opinions(cases) == []
    for expected in ([("wrong", False)], []):  # once it was sent, it need not be sent again
        cases.decide([case_id], "dismiss", ANN)
        assert [one[2:] for one in opinions(cases)] == expected
        cases.feedback_sent([one.id for one in cases.feedback()])
        cases.requeue(case_id, LEA, "")
    for outcome, opinion in (("confirm", "right"), ("dismiss", "wrong")):
        cases.decide([case_id], outcome, ANN)  # type: ignore[arg-type]
        assert [one[2] for one in opinions(cases)] == [opinion]
        cases.feedback_sent([one.id for one in cases.feedback()])
        cases.requeue(case_id, LEA, "")
    assert [one[2:] for one in opinions(cases, unsent=False)] == [("right", True), ("wrong", True)]
