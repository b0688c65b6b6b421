"""The worker as a program: signals, progress, metrics."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo
from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.guard import Guard
from uploadguard.logs import log
from uploadguard_s3.options import S3Options
from uploadguard_s3.running import run_worker
from uploadguard_s3.worker import QueueWorker

__all__ = ["run"]

_SHOW_S = 0.5


def run(settings: Settings, options: S3Options, metrics_port: int | None, metrics_host: str) -> Exit:
    """Run a worker until a signal comes; then say what it did. A second signal interrupts."""
    if metrics_port is not None:
        _serve_metrics(settings, metrics_port, metrics_host)
    with Guard(settings) as guard:
        worker = asyncio.run(_until_stopped(guard, options))
    tally = worker.tally
    echo(", ".join(_counts(worker)) or "there were no messages")
    if tally.objects:
        echo("objects: " + ", ".join(f"{count:,} {outcome.value}" for outcome, count in sorted(tally.objects.items())))
    return Exit.OK


async def _until_stopped(guard: Guard, options: S3Options) -> QueueWorker:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stopped(number: signal.Signals) -> None:
        if stop.is_set():
            task.cancel()
            return
        stop.set()
        log.warning("%s: finishing what is under way", number.name)

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopped, number)
    showing: list[asyncio.Task[None]] = []
    try:
        return await run_worker(guard, options, stop, tell=lambda worker: showing.append(_show(worker)))
    except asyncio.CancelledError:
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        for one in showing:
            one.cancel()


def _show(worker: QueueWorker) -> asyncio.Task[None]:
    """A line on the terminal, kept up to date; elsewhere one line at the start."""
    if not sys.stderr.isatty():
        echo("the queue is read; SIGTERM or SIGINT ends it", err=True)
        return asyncio.create_task(asyncio.sleep(0))
    from rich.console import Console

    line = Console(stderr=True, highlight=False).status("waiting for messages")
    return asyncio.create_task(_keep(worker, line.start, line.update, line.stop))


async def _keep(
    worker: QueueWorker, start: Callable[[], None], update: Callable[[str], None], stop: Callable[[], None]
) -> None:
    start()
    try:
        while True:
            update(", ".join([*_counts(worker), f"{worker.held:,} held"]))
            await asyncio.sleep(_SHOW_S)
    finally:
        stop()


def _counts(worker: QueueWorker) -> list[str]:
    return [f"{count:,} messages {ending.value}" for ending, count in sorted(worker.tally.messages.items())]


def _serve_metrics(settings: Settings, port: int, host: str) -> None:
    if not settings.telemetry.metrics:
        raise ConfigError("--metrics-port needs telemetry.metrics = true in uploadguard's settings")
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError("metrics need the prometheus-client package: pip install 'uploadguard[metrics]'") from error
    prometheus_client.start_http_server(port, host)
