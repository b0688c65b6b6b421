"""Kills recording processes, and fails their disk, at every writing call; then looks what became of the records.

    python -m tests.ledger.soak_record [--rounds N] [--database sqlite|postgresql]...

Each run is a process of its own that records six decisions: into a database that is down, so that they go to the
spool; then the database comes back and the spool is drained; then into the database. At its n-th writing call
(``write``, ``fsync``, ``rename``, ``unlink``, ..., SQLite's own among them, and what is sent to PostgreSQL) it is
killed, or the disk is full, or broken, for once or for good. n goes through all of them. Afterwards a sound process
drains what is left, and every decision that was acknowledged must be in the database, once, with its case and its
tasks.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.ledger.conftest import made_up_record
from tests.ledger.faultlib import Fault, arm, reexec, seen
from tests.ledger.postgres import running_postgres
from uploadguard.actions import Occasion
from uploadguard.config import Settings
from uploadguard.errors import LedgerDownError, LedgerError, NotRecordedError
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database, database_url, open_database
from uploadguard.ledger.recorder import Recorder, drain_spool
from uploadguard.ledger.recording import Plan
from uploadguard.ledger.spool import Spool
from uploadguard.logs import log
from uploadguard.models import Context, Verdict

PLAN = Plan({"police": frozenset({Occasion.REPORT})})
MODES = (
    (Fault.KILL_BEFORE, 0, "killed before"),
    (Fault.KILL_AFTER, 0, "killed after"),
    (Fault.FAIL_ONCE, errno.ENOSPC, "disk full, once"),
    (Fault.FAIL_ONCE, errno.EIO, "disk broken, once"),
    (Fault.FAIL_FROM, errno.ENOSPC, "disk full for good"),
    (Fault.FAIL_FROM, errno.EIO, "disk broken for good"),
    (Fault.SHORT_THEN_FAIL, errno.ENOSPC, "half written, then full"),
)
NEVER = 1 << 40
DRAIN_EVERY = 20


class Switched(Database):
    """A database that can be made to look down."""

    down = False

    @contextmanager
    def changing(self) -> Iterator[sa.Connection]:
        if self.down:
            raise LedgerDownError("switched off")
        with super().changing() as connection:
            yield connection


@dataclass
class Result:
    """What the runs of one database came to."""

    runs: int = 0
    killed: int = 0
    acknowledged: set[str] = field(default_factory=set)
    refused: int = 0
    by_mode: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    incomplete: int = 0
    steps: int = 0


def record_some(settings: Settings, answers: int, at: int, fault: Fault, error: int) -> None:
    """The process that is killed, or whose disk fails. Writes what was acknowledged to ``answers``."""
    path = settings.ledger.path
    url = database_url(settings)
    assert path is not None
    assert url is not None
    database = Switched(url, timeout_s=5.0)
    recorder = Recorder(database, Spool(path / "spool"), PLAN, timeout_s=10.0, alarm=lambda _: None)
    arm(path, at, fault, error)

    def one(verdict: Verdict, entry: str) -> None:
        found = made_up_record(verdict=verdict, entry=entry, context=Context(uploader=f"u{entry}"))
        reference = str(found["reference"])
        try:
            recorder.record(found)
        except NotRecordedError:
            os.write(answers, b"- \n")
        else:
            os.write(answers, f"+{reference}\n".encode())

    database.down = True
    one(Verdict.QUEUE, "a")
    one(Verdict.BLOCK, "b")
    database.down = False
    recorder._work._retry_at = 0.0  # as if the wait were over
    with suppress(LedgerError):
        recorder.tend()
    threads = [threading.Thread(target=one, args=(Verdict.QUEUE, str(i))) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one(Verdict.BLOCK, "c")
    os.write(answers, f"={seen()}\n".encode())


def drain_and_list(settings: Settings, answers: int) -> None:
    """The sound process: drains, and writes what is in the database, with its case's and its tasks' number."""
    database = open_database(settings)
    assert settings.ledger.path is not None
    spool = Spool(settings.ledger.path / "spool")
    drain_spool(database, spool, PLAN)
    status = spool.status()
    tasks = sa.select(sa.func.count()).where(schema.tasks.c.decision_id == schema.decisions.c.id).scalar_subquery()
    columns = schema.decisions.c
    with database.reading() as connection:
        rows = connection.execute(sa.select(columns.reference, columns.verdict, columns.case_id, tasks)).all()
    record = {"files": status.files, "damaged": status.damaged, "rows": [list(row) for row in rows]}
    with os.fdopen(os.dup(answers), "w") as file:
        json.dump(record, file)


def forked(work: Any, *arguments: Any) -> tuple[str, int]:
    """Run ``work`` in a forked child, with a pipe; gives what it wrote, and its wait status."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            work(arguments[0], writing, *arguments[1:])
            code = 0
        except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
            print(f"child: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    return text, os.waitpid(pid, 0)[1]


def check(settings: Settings, result: Result) -> None:
    """Drain what the runs left, and compare."""
    text, status = forked(drain_and_list, settings)
    if status:
        raise SystemExit("draining failed")
    found = json.loads(text)
    if found["files"] or found["damaged"]:
        raise SystemExit(f"{found['files']} files left in the spool, {found['damaged']} damaged")
    present = {row[0]: row for row in found["rows"]}
    assert len(present) == len(found["rows"])
    result.lost = sorted(result.acknowledged - present.keys())
    result.incomplete = sum(
        (verdict == "queue") != (case is not None) or (verdict == "block") != (tasks == 1)
        for _, verdict, case, tasks in present.values()
    )


def one_run(settings: Settings, result: Result, at: int, fault: Fault, error: int, mode: str) -> int:
    """One process; gives how many writing calls it made, if it came to its end."""
    text, status = forked(record_some, settings, at, fault, error)
    calls = 0
    for line in text.splitlines():
        if line.startswith("+"):
            result.acknowledged.add(line[1:])
        elif line.startswith("="):
            calls = int(line[1:])
        else:
            result.refused += 1
    killed = os.WIFSIGNALED(status)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a recording process failed: call {at}, {mode}")
    result.runs += 1
    result.killed += killed
    result.by_mode[mode] += 1
    return calls


def soak(settings: Settings, rounds: int, *, stride: int = 1) -> Result:
    """Go through every mode at every writing call (every ``stride``-th), ``rounds`` times."""
    open_database(settings, create=True).close()
    result = Result()
    result.steps = max(one_run(settings, result, NEVER, Fault.FAIL_ONCE, 0, "none") for _ in range(3)) + 2
    places = range(1, result.steps + 1, stride)
    for number, (_, at, (fault, error, mode)) in enumerate(itertools.product(range(rounds), places, MODES)):
        one_run(settings, result, at, fault, error, mode)
        if number % DRAIN_EVERY == 0:
            check(settings, result)
            if result.lost or result.incomplete:
                break
        if sys.stderr.isatty():
            print(f"\r{result.runs} runs, {len(result.acknowledged)} acknowledged", end="", file=sys.stderr)
    check(settings, result)
    return result


@contextmanager
def made_settings(database: str) -> Iterator[Settings]:
    """Settings with a new ledger."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        directory = Path(made)
        if database == "sqlite":
            yield Settings.load(ledger={"path": directory / "ledger"})
            return
        with running_postgres() as url:
            yield Settings.load(ledger={"path": directory / "ledger", "url": url})


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stride", type=int, default=1, help="go through every n-th call only")
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    reexec("tests.ledger.soak_record")
    log.setLevel(logging.CRITICAL)
    wrong = False
    print(
        f"{'database':<12}{'calls':>6}{'runs':>7}{'killed':>8}{'kept':>8}{'refused':>9}{'lost':>6}{'half':>6}{'s':>7}"
    )
    for database in options.database or ["sqlite", "postgresql"]:
        started = time.monotonic()
        with made_settings(database) as settings:
            result = soak(settings, options.rounds, stride=options.stride)
        print(
            f"{database:<12}{result.steps:>6}{result.runs:>7}{result.killed:>8}{len(result.acknowledged):>8}"
            f"{result.refused:>9}{len(result.lost):>6}{result.incomplete:>6}{time.monotonic() - started:>7.0f}"
        )
        wrong = wrong or bool(result.lost or result.incomplete or not result.killed or not result.refused)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
