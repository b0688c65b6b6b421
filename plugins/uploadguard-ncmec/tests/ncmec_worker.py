"""A worker as a process of its own: ``python ncmec_worker.py LEDGER URL`` carries tasks out until it is killed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from ncmec_stubs import DATA, table

from uploadguard.actions import Evidence
from uploadguard.config import Settings
from uploadguard.ledger.database import open_database
from uploadguard.ledger.outbox_worker import OutboxWorker
from uploadguard.plugins import Plugins


def make_settings(path: Path, url: str) -> Settings:
    """A SQLite ledger, and an outbox without patience."""
    return Settings.load(
        plugins=["ncmec"],
        ledger={"path": path},
        actions={"ncmec": table(url)},
        outbox={"lease_s": 1.0, "first_wait_s": 0.0, "max_wait_s": 0.0},
    )


def evidence(decision_id: int, _: str) -> Evidence | None:
    """Every second upload's file was preserved."""
    return Evidence(DATA, "image/png") if decision_id % 2 else None


def main() -> None:
    """Work until killed."""
    settings = make_settings(Path(sys.argv[1]), sys.argv[2])
    worker = OutboxWorker(
        open_database(settings), Plugins(settings).actions, settings.outbox, evidence=evidence, alarm=lambda _: None
    )
    print("working", flush=True)  # noqa: T201 - that it has begun
    worker.run(threading.Event())


if __name__ == "__main__":
    main()
