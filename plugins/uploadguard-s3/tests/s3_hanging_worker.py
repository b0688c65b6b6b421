"""A worker whose checks hang, to be killed: says ``begun`` when the first one runs."""

from __future__ import annotations

import asyncio
import sys

from s3_queues import Records, client_options

from uploadguard_s3.handling import MessageHandler
from uploadguard_s3.model import Checked, ObjectRef
from uploadguard_s3.queues import open_queue
from uploadguard_s3.worker import QueueWorker, WorkerLimits


class Hanging:
    """Never ends."""

    async def check(self, ref: ObjectRef) -> Checked:  # noqa: ARG002 - the contract's
        """Wait."""
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.sleep(3600)
        raise AssertionError("not reached")


async def main(url: str, queue_url: str) -> None:
    """Work until killed."""
    async with open_queue(queue_url, wait_s=1, **client_options(url)) as queue:
        await queue.find_dead_letters()
        limits = WorkerLimits(wait_s=1, visibility_s=1, at_once=2)
        await QueueWorker(queue, MessageHandler(Hanging()), Records(), limits=limits).run(asyncio.Event())


asyncio.run(main(*sys.argv[1:]))
