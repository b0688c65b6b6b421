"""The outbox's own workers, killed again and again while the CyberTipline misbehaves."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ncmec_worker
from ncmec_stubs import DATA, DECIDED_AT, made_up_decision

from uploadguard.actions import State
from uploadguard.ledger.codec import to_record
from uploadguard.ledger.database import open_database
from uploadguard.ledger.ledger import plan_of
from uploadguard.ledger.outbox import Outbox
from uploadguard.ledger.recording import record
from uploadguard.models import Context
from uploadguard.plugins import Plugins
from uploadguard.testing import fakes
from uploadguard.testing.fakes.ncmec import FakeNcmec

REPORTS = 60
KILLS = 6


def test_killed_workers_neither_lose_nor_double_a_report(fake: FakeNcmec, tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - nothing secret
    settings = ncmec_worker.make_settings(tmp_path / "ledger", fake.url)
    database = open_database(settings, create=True)
    records = [
        to_record(made_up_decision(reference=f"reference-{n}"), Context(uploader=f"user-{n}"), DECIDED_AT)
        for n in range(REPORTS)
    ]
    with database.writing() as connection:
        record(connection, records, plan_of(settings, Plugins(settings).actions))
    outbox = Outbox(database, settings.outbox)
    # Slow enough that a worker dies in the middle.
    fake.misbehave(*fakes.CHAOS, times=None, probability=0.2)
    fake.misbehave(fakes.Slow(0.05), times=None)
    for turn in range(KILLS + 1):
        if turn == KILLS:
            fake.behave()
        with start_worker(settings.ledger.path, fake.url) as worker:
            try:
                wait_until_filed(outbox, 60.0 if turn == KILLS else chance.uniform(0.05, 0.8))
            finally:
                worker.kill()
    tasks = {task.key: task for task in outbox.list(limit=REPORTS + 1)}
    database.close()
    assert Counter(task.state for task in tasks.values()) == {State.FILED: REPORTS}
    assert fake.finished_by_reference == dict.fromkeys(tasks, 1)
    for report in fake.finished:
        task = tasks[report.reference or ""]
        assert task.remote_id == str(report.id)
        assert [file.data for file in report.files.values()] == ([DATA] if task.decision_id % 2 else [])


def start_worker(path: Path | None, url: str) -> subprocess.Popen[bytes]:
    """A worker that has begun."""
    script = Path(ncmec_worker.__file__)
    worker = subprocess.Popen([sys.executable, script, str(path), url], stdout=subprocess.PIPE)  # noqa: S603 - ours
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"working\n"
    return worker


def wait_until_filed(outbox: Outbox, longest_s: float) -> None:
    """Wait until nothing is left to do, at most so long."""
    until = time.monotonic() + longest_s
    while time.monotonic() < until and outbox.list(states=[State.PENDING, State.OPENED, State.FINISHING], limit=1):
        time.sleep(0.05)
