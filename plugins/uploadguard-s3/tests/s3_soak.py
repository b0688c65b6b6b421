"""A soak against a real S3-compatible server: events doubled, shuffled and lost, overwrites, workers killed.

``python plugins/uploadguard-s3/tests/s3_soak.py --through queue --objects 10000 --kills 30`` sends notifications
through an emulator of SQS to ``uploadguard s3 worker``, and prints its figures; without ``--through`` events go to the
checks directly. ``--flat`` does without versions. Tests run tiny ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from pathlib import Path

from s3_queues import running_emulator
from s3_server import S3Server, running_s3
from s3_soak_direct import DirectSoak
from s3_soak_queue import QueueSoak
from s3_soak_run import Figures, Plan

__all__ = ["Plan", "soak"]


def soak(plan: Plan, server: S3Server, emulator: str | None = None) -> Figures:
    """Run one, in buckets of its own; through a queue of the emulator's, if one is given."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run = DirectSoak(plan, server, directory) if emulator is None else QueueSoak(plan, server, directory, emulator)
        return asyncio.run(run.run())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Soak the checks of objects on a real S3-compatible server.")
    parser.add_argument("--through", choices=["checks", "queue"], default="checks", help="where events go")
    parser.add_argument("--objects", type=int, default=Plan.objects)
    parser.add_argument("--kills", type=int, default=Plan.kills)
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--flat", action="store_true", help="a bucket that keeps no versions")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="upload no more after so long")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("s3_soak").setLevel(logging.INFO)
    logging.getLogger("uploadguard").setLevel(logging.ERROR)  # it warns that nothing is isolated
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and take the servers along
    plan = Plan(
        given.objects, given.kills, given.workers, versions=not given.flat, seed=given.seed, seconds=given.seconds
    )
    with tempfile.TemporaryDirectory() as directory, running_s3() as server:
        if given.through == "queue":
            with running_emulator(Path(directory)) as emulator:
                figures = soak(plan, server, emulator)
        else:
            figures = soak(plan, server)
    print(json.dumps(vars(figures), indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
