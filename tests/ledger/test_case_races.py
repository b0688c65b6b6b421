"""Several reviewers, several processes: of all who decide one is first, and no upload slips by a decision."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from tests.ledger.test_cases import PLAN, new_case
from uploadguard.config import Settings
from uploadguard.errors import CaseStateError
from uploadguard.ledger import schema
from uploadguard.ledger.cases import Cases, CaseStatus
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.recording import record


def person(number: int) -> Person:
    return Person(f"person-{number}", frozenset({Role.REVIEW}))


def decide_all(settings_path: object, url: str | None, number: int, ids: list[int], start: object, out: object) -> None:
    """In a process of its own: decide each case, and tell which ones this one decided."""
    settings = Settings.load(ledger={"path": settings_path, **({"url": url} if url else {})})
    database = open_database(settings, timeout_s=30)
    cases, mine = Cases(database, PLAN), []
    start.wait()  # type: ignore[attr-defined]
    for case_id in ids:
        try:
            cases.decide([case_id], "confirm" if number % 2 else "dismiss", person(number))
        except CaseStateError:
            continue
        mine.append(case_id)
    out.put((number, mine))  # type: ignore[attr-defined]
    database.close()


def test_of_processes_that_decide_one_is_first(settings: Settings, database: Database) -> None:
    ids = [new_case(database, entry=f"e-{number}") for number in range(12)]
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(3), context.Queue()
    arguments = (settings.ledger.path, settings.ledger.url)
    processes = [context.Process(target=decide_all, args=(*arguments, number, ids, start, out)) for number in range(3)]
    for process in processes:
        process.start()
    winners = {case_id: number for number, mine in (out.get(timeout=60) for _ in processes) for case_id in mine}
    for process in processes:
        process.join()
    assert sorted(winners) == ids
    cases = Cases(database, PLAN)
    for case_id, number in winners.items():
        detail = cases.show(case_id)
        assert detail.case.decided_by == f"person-{number}"
        assert detail.case.status == ("confirmed" if number % 2 else "dismissed")
        assert Counter(task.occasion.value for task in detail.tasks) == (
            {"report": 1, "delete": 1} if number % 2 else {"release": 1}
        )
        assert len(detail.events) == 1


def test_threads_that_claim(database: Database) -> None:
    case_id = new_case(database)
    cases, barrier = Cases(database, PLAN), threading.Barrier(6)

    def claim(number: int) -> bool:
        barrier.wait()
        try:
            return cases.claim(case_id, person(number)).claimed_by == f"person-{number}"
        except CaseStateError:
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(claim, range(6))) == 1


def test_two_who_propose_at_once(database: Database) -> None:
    cases, barrier = Cases(database, PLAN, two_person="all"), threading.Barrier(2)
    ids = [new_case(database, entry=f"e-{number}") for number in range(8)]

    def decide(number: int) -> list[bool]:
        barrier.wait()
        return [cases.decide([case_id], "confirm", person(number))[0].proposed for case_id in ids]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(decide, range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert cases.counts()[CaseStatus.CONFIRMED] == len(ids)


def test_no_upload_joins_a_case_that_is_decided(database: Database) -> None:
    """Uploads of one uploader stream in while the case they join is decided, again and again."""
    cases, done = Cases(database, PLAN), threading.Event()
    decisions = schema.decisions.c

    def upload() -> None:
        for _ in range(60):
            with database.writing() as connection:
                record(connection, [made_up_record()], PLAN)
        done.set()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(upload)
        while not done.is_set():
            for case in cases.list().cases:
                cases.decide([case.id], "confirm", person(0))
        running.result()
    for case in cases.list().cases:
        cases.decide([case.id], "confirm", person(0))
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.decisions)).scalar() == 60
        for occasion in ("report", "delete"):
            reported = sa.select(schema.tasks.c.decision_id).where(schema.tasks.c.occasion == occasion)
            missed = sa.select(sa.func.count()).select_from(schema.decisions).where(decisions.id.not_in(reported))
            assert connection.execute(missed).scalar() == 0
