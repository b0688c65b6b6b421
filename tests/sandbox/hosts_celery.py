"""A Celery application whose broker is a folder."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init

from uploadguard import Guard

FOLDER = Path(os.environ["BROKER"])
for name in ("queue", "control"):
    (FOLDER / name).mkdir(exist_ok=True)

app = Celery("hosts", broker="filesystem://", backend=f"file://{FOLDER}/results")
(FOLDER / "results").mkdir(exist_ok=True)
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "control_folder": str(FOLDER / "control"),
    },
    worker_send_task_events=False,
)
guards: list[Guard] = []


@worker_process_init.connect  # type: ignore[untyped-decorator]
def open_guard(**_: object) -> None:
    """In each process of the pool."""
    guards.append(Guard.open(hashset=os.environ["HASHSET"]))


@app.task(name="check")  # type: ignore[untyped-decorator]
def check(path: str) -> str:
    """The verdict on a file."""
    with Path(path).open("rb") as file:
        return guards[0].check(file).verdict.label
