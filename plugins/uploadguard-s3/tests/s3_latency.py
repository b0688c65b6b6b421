"""What a check of an object takes beside a bare check of the same bytes, on a real S3-compatible server.

``python plugins/uploadguard-s3/tests/s3_latency.py --count 200`` prints a table. All run by turns in one process, one
at a time, so that what else the machine does hits them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import quantiles
from typing import Any

import aioboto3
from s3_objects import open_guard, placed
from s3_server import S3Server, running_s3

from uploadguard import Guard
from uploadguard.testing.picture import unrelated_picture
from uploadguard_s3 import Outcome

_TAGS_ONLY: Mapping[str, Any] = {"allow": ("tag",), "public_bucket": None, "public_prefix": None}


async def measure(server: S3Server, guard: Guard, directory: Path, count: int) -> dict[str, list[float]]:
    """Milliseconds of each check, by what it was: ``bare``, ``tag`` and ``promote``."""
    data = unrelated_picture()
    taken: dict[str, list[float]] = {"bare": [], "tag": [], "promote": []}
    async with (
        aioboto3.Session().client("s3", **server.client_options()) as client,
        placed(client, "tag/", guard, directory / "tag.db", route=_TAGS_ONLY) as tag,
        placed(client, "promote/", guard, directory / "promote.db") as promote,
    ):
        for number in range(count + 5):
            started = time.perf_counter()
            await guard.acheck(data)
            rounds = {"bare": time.perf_counter() - started}
            for name, place in (("tag", tag), ("promote", promote)):
                ref = await place.put(f"in/{number}.jpg", data)
                started = time.perf_counter()
                checked = await place.checker.check(ref)
                rounds[name] = time.perf_counter() - started
                assert checked.outcome is Outcome.ALLOWED
            if number >= 5:  # the first ones open connections
                for name, seconds in rounds.items():
                    taken[name].append(seconds * 1e3)
    return taken


def table(taken: Mapping[str, list[float]]) -> str:
    """The figures as Markdown."""
    shares = {name: quantiles(values, n=100, method="inclusive") for name, values in taken.items()}
    bare = shares["bare"]
    rows = ["| | p50, ms | p99, ms | added p50, ms | added p99, ms |", "|---|---|---|---|---|"]
    for name, share in shares.items():
        added = [f"{share[place] - bare[place]:.1f}" if name != "bare" else "" for place in (49, 98)]
        rows.append(f"| {name} | {share[49]:.1f} | {share[98]:.1f} | {added[0]} | {added[1]} |")
    return "\n".join(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time checks of objects beside bare checks.")
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    os.environ["UPLOADGUARD_SANDBOX__ISOLATION"] = "none"
    logging.getLogger("uploadguard").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as path, running_s3() as server, open_guard(Path(path) / "hashset") as guard:
        print(table(asyncio.run(measure(server, guard, Path(path), count))))  # noqa: T201


if __name__ == "__main__":
    main()
