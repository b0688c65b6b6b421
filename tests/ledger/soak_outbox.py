"""Soaks of the outbox: workers that are killed and stopped at random, a destination that loses answers.

    python -m tests.ledger.soak_outbox --reports 100000 --workers 8 --kill 2 --database postgresql
    python -m tests.ledger.soak_outbox --kills 2000 --database sqlite --database postgresql

Workers and destination are processes of their own. The first form drains the reports with that many workers, of which
``--kill`` are killed at random points and replaced, and before that, as far as ``--scaling`` says, with fewer, to
compare. The second kills and, now and then, stops and wakes workers at random points until it has done so ``--kills``
times, under a destination that breaks off every tenth conversation. In the end each report must have been filed, and
finished exactly once at the destination. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.ledger.servers import a_database
from tests.ledger.soak_destinations import Counts, NcmecDestination, PlainDestination, SoakDestination
from tests.ledger.twophase import add_reports_at_once
from uploadguard.config_ledger import OutboxSettings
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.outbox_worker import OutboxWorker

Make = Callable[[float, int], SoakDestination]
"""The destination with this share of misbehaviour, and a seed for it."""

LEASE_S = 2.0
DESTINATIONS: dict[str, Make] = {"plain": PlainDestination, "ncmec": NcmecDestination}
CHAOS = 0.1
STUCK_S = 120.0


class Workers:
    """Forked worker processes. To be used by a process with a single thread."""

    def __init__(self, url: str, there: SoakDestination, threads: int) -> None:
        self._url, self._there, self._threads = url, there, threads
        self.pids: list[int] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                try:
                    _work(self._url, self._there, self._threads)
                finally:
                    os._exit(0)
            self.pids.append(pid)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.pids.remove(pid)

    def stop(self) -> None:
        """End all, in good order."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
        for pid in self.pids:
            os.waitpid(pid, 0)
        self.pids.clear()


def _work(url: str, there: SoakDestination, threads: int) -> None:
    random.seed()
    logging.disable(logging.ERROR)  # of pauses, lost leases and the like there are many
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = OutboxSettings(threads=threads, lease_s=LEASE_S, first_wait_s=0.02, max_wait_s=1.0)
    action = there.make_action()
    OutboxWorker(Database(url), {action.name: action}, settings).run(stop)


def _left(url: str) -> int:
    """Reports not filed yet, asked for on a connection of its own, so that nothing is open when a worker is forked."""
    database = Database(url)
    try:
        with database.reading() as connection:
            query = sa.select(sa.func.count()).select_from(schema.tasks).where(schema.OPEN_TASKS)
            return int(connection.execute(query).scalar_one())
    finally:
        database.close()


def _add(url: str, first: int, count: int) -> None:
    """Reports numbered from ``first``."""
    database = Database(url)
    try:
        add_reports_at_once(database, count, first=first)
    finally:
        database.close()


def _problems(url: str, there: Counts) -> list[str]:
    """What is wrong in the end, compared with the destination's counts."""
    database = Database(url)
    try:
        with database.reading() as connection:
            rows = connection.execute(
                sa.select(schema.tasks.c.key, schema.tasks.c.state, schema.tasks.c.remote_id, schema.tasks.c.lease)
            ).all()
            audited = connection.execute(
                sa.select(sa.func.count()).select_from(schema.audit).where(schema.audit.c.entry.like('%"task.filed"%'))
            ).scalar_one()
    finally:
        database.close()
    keys = Counter(there.keys)
    ids = Counter({row.remote_id: keys[row.key] for row in rows} if there.ids is None else there.ids)
    states = Counter(row.state for row in rows)
    found = {
        "reports not filed": len(rows) - states["filed"],
        "reports lost: filed here, never finished there": sum(keys[row.key] == 0 for row in rows),
        "reports finished more than once": sum(count > 1 for count in keys.values()),
        "ids finished more than once": sum(count > 1 for count in ids.values()),
        "reports filed under an id that was not finished": sum(
            ids[row.remote_id] != 1 for row in rows if row.state == "filed"
        ),
        "leases left": sum(row.lease is not None for row in rows),
        "reports without, or with two, audit entries": abs(audited - states["filed"]),
    }
    return [f"{count:,} {what}" for what, count in found.items() if count]


def drain(make: Make, url: str, workers: int, threads: int, kills: int, reports: int) -> tuple[float, int]:
    """Drain the reports, killing some workers on the way; returns the seconds, and how many problems there were."""
    there = make(0.005, 0)
    crew = Workers(url, there, threads)
    kill_at = sorted(random.uniform(0.1, 0.8) * reports for _ in range(kills))
    started = last_news = time.monotonic()
    crew.start(workers)
    before = reports
    try:
        while (left := _left(url)) > 0:
            if left != before:
                before, last_news = left, time.monotonic()
            elif time.monotonic() - last_news > STUCK_S:
                print(f"nothing happens any more, with {left:,} reports left")
                break
            while kill_at and reports - left >= kill_at[0]:
                kill_at.pop(0)
                crew.kill(random.choice(crew.pids))
                print(f"  killed a worker with {left:,} reports left", flush=True)
                crew.start(1)
            time.sleep(0.25 if left > 1000 else 0.02)
        took_s = time.monotonic() - started
        crew.stop()
        problems = _problems(url, there.counts())
    finally:
        for pid in [*crew.pids]:
            crew.kill(pid)
        there.close()
    for problem in problems:
        print(f"  WRONG: {problem}")
    return took_s, len(problems)


def kill_often(
    make: Make, url: str, kills: int, threads: int, pauses_share: float, life_s: float, reports: int, seed: int
) -> int:
    """Kill workers at random points that many times; returns how many problems there were."""
    chance = random.Random(seed)
    there = make(CHAOS, seed)
    crew = Workers(url, there, threads)
    stopped: dict[int, float] = {}
    pauses = added = done = 0
    started = time.monotonic()
    try:
        while done < kills:
            if done % 50 == 0 and (left := _left(url)) < reports / 2:
                print(f"  {done:,} kills, {added - left:,} reports filed", flush=True)
                # One that stands still may have the audit log's lock.
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                stopped.clear()
                _add(url, added, reports)
                added += reports
            crew.start(3 - len(crew.pids) + len(stopped))
            time.sleep(chance.uniform(0.0, life_s))
            now = time.monotonic()
            for pid in [pid for pid, until in stopped.items() if until < now]:
                os.kill(pid, signal.SIGCONT)
                del stopped[pid]
            awake = [pid for pid in crew.pids if pid not in stopped]
            if len(awake) > 1 and chance.random() < pauses_share:
                pid = chance.choice(awake)
                os.kill(pid, signal.SIGSTOP)
                # Most are paused beyond their lease.
                stopped[pid] = now + chance.uniform(0.5, 2.0) * LEASE_S
                pauses += 1
            else:
                crew.kill(chance.choice(awake))
                done += 1
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        there.calm()
        crew.start(2)
        deadline = time.monotonic() + STUCK_S
        while _left(url) and time.monotonic() < deadline:
            time.sleep(0.1)
        crew.stop()
        counts = there.counts()
        problems = _problems(url, counts)
    finally:
        for pid in [*crew.pids]:
            crew.kill(pid)
        there.close()
    print(
        f"{added:,} reports, {done:,} kills, {pauses:,} pauses, {time.monotonic() - started:.0f} s; "
        f"at the destination {counts.calls}, {len(counts.keys):,} finished: "
        f"{'; '.join(problems) or '0 lost, 0 finished twice'}"
    )
    return len(problems)


@contextmanager
def _fresh(kind: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory, a_database(kind, Path(directory)) as url:
        yield url


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"])
    parser.add_argument("--reports", type=int, default=0)
    parser.add_argument("--destination", choices=sorted(DESTINATIONS), default="plain")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--kill", type=int, default=2)
    parser.add_argument("--scaling", type=int, default=5000, help="reports for each smaller number of workers; 0: none")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pauses", type=float, default=0.03, help="with --kills: the share of stops in place of kills")
    parser.add_argument("--life", type=float, default=0.12, help="with --kills: the longest time between two, in s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    make = DESTINATIONS[options.destination]
    wrong = 0
    for kind in options.database or ["postgresql"]:
        print(f"{kind}:", flush=True)
        if options.kills:
            with _fresh(kind) as url:
                wrong += kill_often(
                    make,
                    url,
                    options.kills,
                    options.threads,
                    options.pauses,
                    options.life,
                    options.reports or 2000,
                    options.seed,
                )
        elif options.reports:
            rows = []
            smaller = [one for one in (1, 2, 4) if one < options.workers and options.scaling]
            for workers in [*smaller, options.workers]:
                last = workers == options.workers
                reports, kills = (options.reports, options.kill) if last else (options.scaling, 0)
                with _fresh(kind) as url:
                    _add(url, 0, reports)
                    took_s, problems = drain(make, url, workers, options.threads, kills, reports)
                wrong += problems
                rows.append((workers, reports, kills, took_s, problems))
            print("workers  reports  killed  seconds  reports/s  result")
            for workers, reports, kills, took_s, problems in rows:
                said = "each filed once" if not problems else "WRONG"
                print(f"{workers:>7}  {reports:>7,}  {kills:>6}  {took_s:>7.1f}  {reports / took_s:>9.0f}  {said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
