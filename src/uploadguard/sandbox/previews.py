"""Previews in worker processes, one process for each: nothing of one preserved file is left when the next one comes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from uploadguard.config import SandboxSettings
from uploadguard.errors import EvidenceError, SandboxError
from uploadguard.plugins import Plugins
from uploadguard.sandbox import wire
from uploadguard.sandbox.crew import START_S
from uploadguard.sandbox.inspector import THREADS_BYTES, required_layers
from uploadguard.sandbox.parts import Job, dump_job
from uploadguard.sandbox.preview_wire import PreviewFailure, PreviewRequest, RawPicture, parse_preview
from uploadguard.sandbox.process import Worker, WorkerSpec, interpreter, status_text

__all__ = ["sandboxed_preview"]

_AT_ONCE: Final = 2
_WATCH_S: Final = 0.02
_MODULE: Final = "uploadguard.sandbox.preview_worker"

_places = threading.BoundedSemaphore(_AT_ONCE)


def _after_fork() -> None:
    global _places
    _places = threading.BoundedSemaphore(_AT_ONCE)


os.register_at_fork(after_in_child=_after_fork)


def sandboxed_preview(
    data: bytes | memoryview, settings: SandboxSettings, job: Job, plugins: Plugins, request: PreviewRequest
) -> RawPicture | PreviewFailure:
    """Have a worker make a small picture of a file, and end the worker.

    It is locked down as those of checks are, and bounded in time and memory like them. Raises
    :class:`~uploadguard.errors.SandboxError` where no worker can be had, :class:`~uploadguard.errors.PluginError` for a
    plugin's part that cannot be taken into another process, and :class:`~uploadguard.errors.EvidenceError` where all
    that may run at once do.
    """
    required = required_layers(settings.isolation)
    extra = {"memory_bytes": settings.max_memory_bytes + THREADS_BYTES, "required": required, "preview": request}
    spec = WorkerSpec(
        python=interpreter(settings.python),
        payload=dump_job(job, plugins, extra),
        max_upload_bytes=len(data),
        max_answer_bytes=max(request.max_answer_bytes, wire.MAX_HELLO_BYTES),
        module=_MODULE,
    )
    with _place(START_S + settings.deadline_s), _worker(spec) as worker:
        _await_start(worker, required)
        return _ask(worker, data, settings, request)


@contextmanager
def _place(timeout_s: float) -> Iterator[None]:
    places = _places
    if not places.acquire(timeout=timeout_s):
        raise EvidenceError("too many previews are being made; try again")
    try:
        yield
    finally:
        places.release()


@contextmanager
def _worker(spec: WorkerSpec) -> Iterator[Worker]:
    try:
        worker = Worker(spec)
    except OSError as error:
        raise SandboxError(f"no worker process could be started: {error.strerror or type(error).__name__}") from error
    try:
        yield worker
    finally:
        worker.kill("done")
        worker.exit_status()
        worker.empty()
        worker.close()


def _await_start(worker: Worker, required: frozenset[str]) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            problem = worker.greet()
        except BlockingIOError:
            if time.monotonic() < until:
                worker.wait(_WATCH_S)
                continue
            problem = f"it was not ready after {START_S:g} s"
        if problem is None and (missing := worker.layers.missing(required)):
            problem = f"it lacks {', '.join(missing)}"
        if problem is not None:
            raise SandboxError(f"no worker process could be started: {problem}")
        return


def _ask(
    worker: Worker, data: bytes | memoryview, settings: SandboxSettings, request: PreviewRequest
) -> RawPicture | PreviewFailure:
    until = time.monotonic() + settings.deadline_s
    try:
        number = worker.begin(data)
        while True:
            message = worker.message(max(0.0, min(until - time.monotonic(), _WATCH_S)))
            if message is not None:
                return parse_preview(message, number, request)
            if time.monotonic() >= until:
                return PreviewFailure(f"it could not be decoded within {settings.deadline_s:g} s")
            if worker.resident_bytes() > settings.max_memory_bytes + len(data):
                return PreviewFailure("the worker took more memory than sandbox.max_memory_bytes")
    except wire.ProtocolError as error:
        return PreviewFailure(f"the worker broke its protocol: {error}")
    except (EOFError, OSError):
        return PreviewFailure(f"the worker ended in the middle ({status_text(worker.exit_status())})")
