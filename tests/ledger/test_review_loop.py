"""From a queued picture to its re-upload on another host's process, and back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.conftest import made_up_record
from tests.ledger.test_cases import LEA
from uploadguard import Context, Decision, Guard, Verdict
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.ledger.case_effects import Remember
from uploadguard.ledger.cases import Cases
from uploadguard.ledger.database import Database
from uploadguard.ledger.locallists import apply_local_lists
from uploadguard.ledger.recording import Plan, record
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist
from uploadguard.testing.picture import variant_bytes

KINDS = lookup_kinds((*DIGESTS, Pdq()))
PICTURE = variant_bytes("mirrored")


@pytest.fixture
def hashset(settings: Settings) -> HashSet:
    made = HashSet.create(settings.hashset.path)
    made.add_list("hotline", testlist.entries(), KINDS)
    return made


@pytest.fixture
def cases(database: Database) -> Cases:
    return Cases(database, Plan({}))


@pytest.fixture
def guard(settings: Settings, database: Database, hashset: HashSet) -> Iterator[Guard]:
    with Guard(settings) as opened:
        yield opened


def queued(guard: Guard, cases: Cases) -> int:
    assert guard.check(PICTURE, context=Context(uploader="u")).verdict is Verdict.QUEUE
    return cases.list().cases[-1].id


def check(guard: Guard, database: Database, hashset: HashSet, data: bytes = PICTURE) -> Decision:
    apply_local_lists(database, hashset, KINDS)
    guard.refresh()
    return guard.check(data)


def test_a_confirmed_picture_is_blocked_by_its_digest(
    guard: Guard, cases: Cases, database: Database, hashset: HashSet
) -> None:
    case_id = queued(guard, cases)
    cases.decide([case_id], "confirm", LEA)
    decision = check(guard, database, hashset)
    assert (decision.verdict, decision.reasons[0]) == (Verdict.BLOCK, "digest_match")
    assert {(match.list_name, match.category) for match in decision.matches} == {("uploadguard-confirmed", "confirmed")}
    upload_id = cases.show(case_id).uploads[0].decision_id
    assert {match.entry_id for match in decision.matches} == {f"case-{case_id}-{upload_id}"}
    cases.requeue(case_id, LEA, "")
    assert check(guard, database, hashset).verdict is Verdict.QUEUE


def test_a_reencoded_copy_of_a_confirmed_picture_is_queued(
    guard: Guard, cases: Cases, database: Database, hashset: HashSet
) -> None:
    cases.decide([queued(guard, cases)], "confirm", LEA)
    decision = check(guard, database, hashset, PICTURE + b"\0")
    assert decision.verdict is Verdict.QUEUE
    local = [match for match in decision.matches if match.list_name == "uploadguard-confirmed"]
    assert [(match.signal_type, match.distance_bits, match.variant) for match in local] == [("pdq", 0, "original")]


@pytest.mark.parametrize("remember", [True, "perceptual"])
def test_a_dismissed_picture_is_allowed_and_its_copies_only_if_asked(
    guard: Guard, cases: Cases, database: Database, hashset: HashSet, remember: Remember
) -> None:
    case_id = queued(guard, cases)
    cases.decide([case_id], "dismiss", LEA, remember=remember)
    assert check(guard, database, hashset).verdict is Verdict.ALLOW
    copy = check(guard, database, hashset, PICTURE + b"\0")
    assert copy.verdict is (Verdict.ALLOW if remember == "perceptual" else Verdict.QUEUE)
    cases.requeue(case_id, LEA, "")
    assert check(guard, database, hashset).verdict is Verdict.QUEUE


def test_a_picture_that_is_confirmed_after_a_dismissal_is_blocked(
    guard: Guard, cases: Cases, database: Database, hashset: HashSet
) -> None:
    first = queued(guard, cases)
    cases.escalate(first, LEA, "")
    guard.check(PICTURE, context=Context(uploader="another"))
    second = cases.list().cases[-1].id
    assert second != first
    cases.decide([first], "dismiss", LEA, remember="perceptual")
    assert check(guard, database, hashset).verdict is Verdict.ALLOW
    cases.decide([second], "confirm", LEA)
    assert check(guard, database, hashset).verdict is Verdict.BLOCK


OTHER_PROCESS = """
    import sys, time
    from pathlib import Path
    from uploadguard import Guard

    picture = Path(sys.argv[2]).read_bytes()
    with Guard.open(sys.argv[1]) as guard:
        print(guard.check(picture).verdict, flush=True)
        until = time.monotonic() + 60
        while guard.check(picture).verdict.label == "queue" and time.monotonic() < until:
            time.sleep(0.05)
        print(guard.check(picture).verdict, flush=True)
"""


@pytest.mark.parametrize(("outcome", "verdict"), [("confirm", "block"), ("dismiss", "allow")])
def test_another_process_has_it_by_itself(
    settings: Settings, cases: Cases, hashset: HashSet, tmp_path: Path, outcome: str, verdict: str
) -> None:
    """Its Guard looks into the ledger now and then; nobody tells it."""
    config, picture = tmp_path / "guard.toml", tmp_path / "picture.jpg"
    url = f'url = "{settings.ledger.url}"\n' if settings.ledger.url else ""
    config.write_text(f'[hashset]\npath = "{hashset.directory}"\n[ledger]\npath = "{settings.ledger.path}"\n{url}')
    picture.write_bytes(PICTURE)
    command = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), str(config), str(picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "queue\n"
        for case in cases.list().cases:
            cases.decide([case.id], outcome, LEA)  # type: ignore[arg-type]
        assert process.stdout.readline() == f"{verdict}\n"
    assert process.returncode == 0


def test_what_reviewers_decide_does_not_pass_for_news_of_the_lists(
    settings: Settings, database: Database, cases: Cases
) -> None:
    with database.writing() as connection:
        record(connection, [made_up_record()], Plan({}))
    cases.decide([1], "confirm", LEA)
    apply_local_lists(database, HashSet.create(settings.hashset.path), KINDS)
    with Guard(settings) as guard:
        assert guard.ready
        assert guard.status().updated_at is None
