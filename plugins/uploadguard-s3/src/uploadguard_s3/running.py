"""A worker with all that it needs: the checker, the queue, the record of dead letters, and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uploadguard import Guard
from uploadguard.errors import ConfigError
from uploadguard.logs import log
from uploadguard_s3.checker import ObjectChecker
from uploadguard_s3.dead_letters import DeadLetterFile
from uploadguard_s3.handling import MessageHandler, Tally
from uploadguard_s3.metrics import ObjectMetrics
from uploadguard_s3.options import S3Options
from uploadguard_s3.queue_metrics import QueueMetrics
from uploadguard_s3.queues import Queue, QueueDownError, open_queue
from uploadguard_s3.worker import QueueWorker, WorkerLimits

__all__ = ["run_worker"]

_SHOW_S = 30.0


async def run_worker(
    guard: Guard,
    options: S3Options,
    stop: asyncio.Event,
    *,
    session: Any = None,
    tell: Callable[[QueueWorker], None] | None = None,
) -> QueueWorker:
    """Run a worker until ``stop`` is set; returns it, for its tally. ``session`` is aioboto3's.

    ``tell`` is called when the worker is about to start. Where the Guard's settings have metrics, the worker has too.
    Raises :class:`~uploadguard.errors.ConfigError` where a queue is missing, and
    :class:`~uploadguard_s3.model.S3Error` where one or the state's database cannot be reached at the start.
    """
    settings = options.queue
    if settings.url is None:
        raise ConfigError("queue.url is missing: the queue that a worker reads")
    has_metrics = guard.settings.telemetry.metrics
    metrics = QueueMetrics() if has_metrics else None
    tally = Tally(metrics)
    async with (
        ObjectChecker.open(
            guard, options, session=session, metrics=ObjectMetrics() if has_metrics else None
        ) as checker,
        open_queue(
            settings.url,
            dead_letter_url=settings.dead_letter_url,
            wait_s=settings.wait_s,
            session=session,
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
        ) as queue,
    ):
        await queue.find_dead_letters()
        limits = WorkerLimits(
            at_once=checker.at_once,
            visibility_s=settings.visibility_s,
            wait_s=settings.wait_s,
            max_receives=settings.max_receives,
            stop_s=settings.stop_s,
        )
        worker = QueueWorker(
            queue,
            MessageHandler(checker, encoding=settings.key_encoding, watcher=tally),
            DeadLetterFile(settings.dead_letters, queue.name),
            limits=limits,
            tally=tally,
        )
        if tell is not None:
            tell(worker)
        showing = asyncio.create_task(_show(queue, worker, metrics)) if metrics is not None else None
        try:
            await worker.run(stop)
        finally:
            if showing is not None:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
    return worker


async def _show(queue: Queue, worker: QueueWorker, metrics: QueueMetrics) -> None:
    """Keep showing how the queue stands."""
    while True:
        try:
            waiting, _ = await queue.depth()
            metrics.show(held=worker.held, waiting=waiting)
        except QueueDownError as error:
            log.info("how the queue stands is not known: %s", error)
        await asyncio.sleep(_SHOW_S)
