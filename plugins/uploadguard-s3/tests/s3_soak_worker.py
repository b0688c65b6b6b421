"""A worker process of the soak: takes events from its parent, checks their objects, and may be killed at any moment.

Its parent is at a Unix socket. A line of JSON is an event, and the answer to one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import aioboto3

from uploadguard import Guard
from uploadguard_s3 import ObjectChecker, ObjectRef, S3Options, S3Retry
from uploadguard_s3.state import State


def open_guard(hashset: Path) -> Guard:
    """The Guard that all processes of a soak check with."""
    os.environ["UPLOADGUARD_SANDBOX__ISOLATION"] = "none"
    return Guard.open(hashset=hashset, safety={"breaker_percent": 0.0})  # a tenth of the uploads match, on purpose


async def answer(checker: ObjectChecker, event: dict[str, Any]) -> dict[str, Any]:
    """What came of one event."""
    ref = ObjectRef(**event["ref"])
    try:
        checked = await checker.check(ref)
    except S3Retry as error:
        return {"id": event["id"], "retry": error.reason}
    return {
        "id": event["id"],
        "outcome": checked.outcome.value,
        "verdict": checked.verdict.label if checked.verdict is not None else None,
        "reference": checked.reference,
        "version_id": checked.ref.version_id,
        "etag": checked.ref.etag,
        "effects": checked.effects,
    }


async def work(socket: str, setup: dict[str, Any]) -> None:
    """Until the parent hangs up."""
    options = S3Options.of(**setup["options"])
    state = State(options.state)
    reader, writer = await asyncio.open_unix_connection(socket)
    with open_guard(Path(setup["hashset"])) as guard:
        async with aioboto3.Session().client("s3", **setup["client"]) as client:
            checker = ObjectChecker(guard, options, client=client, state=state)
            async with asyncio.TaskGroup() as group:

                async def one(event: dict[str, Any]) -> None:
                    writer.write(json.dumps(await answer(checker, event)).encode() + b"\n")

                while line := await reader.readline():
                    group.create_task(one(json.loads(line)))
    await state.close()


if __name__ == "__main__":
    logging.getLogger("uploadguard").setLevel(logging.ERROR)  # it warns that nothing is isolated
    asyncio.run(work(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
