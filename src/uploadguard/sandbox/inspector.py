"""Inspections in worker processes: what a check asks for, and what becomes of a worker that fails at it."""

from __future__ import annotations

import logging
import os
import signal
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from uploadguard.config import SandboxSettings
from uploadguard.errors import SandboxError
from uploadguard.logs import log
from uploadguard.media.codecs import RefusingDecoder
from uploadguard.media.inspect import Inspection
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.models import Failure, FailureCode, Media
from uploadguard.plugins import Plugins
from uploadguard.sandbox import wire
from uploadguard.sandbox.lockdown import REQUIRED, Layers, available
from uploadguard.sandbox.parts import Job, dump_job
from uploadguard.sandbox.pool import NoWorker, PoolStatus, WorkerPool
from uploadguard.sandbox.process import Worker, WorkerSpec, interpreter, status_text

__all__ = [
    "THREADS_BYTES",
    "Inspecting",
    "InspectionCancelled",
    "SandboxStatus",
    "SandboxedInspector",
    "required_layers",
    "uninspected",
]

_WATCH_S: Final = 0.02
_WAITING_SHARE: Final = 0.5
"""How much of a check's time may go by before a worker is free for it."""
THREADS_BYTES: Final = 256 << 20
"""Address space for stacks and the C library's arenas, beside the memory that a worker may really use."""
_DEATH_S: Final = 0.25
_LAST_RESERVE_S: Final = 0.02
_TRIES: Final = 2
_TRIES_WITH_THE_DEAD: Final = 5


class InspectionCancelled(Exception):
    """The caller no longer wants the answer."""


class _TimeIsUp(Exception):
    """The check's time is over."""


class _Fault(Exception):
    """A worker failed at an upload. ``why`` is what is counted, ``again`` whether a fresh worker may try."""

    def __init__(self, code: FailureCode, why: str, detail: str, *, again: bool = True) -> None:
        super().__init__(detail)
        self.code = code
        self.why = why
        self.detail = detail
        self.again = again


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """How uploads are isolated, and how the workers are doing.

    ``isolation`` is the setting. ``layers`` are those in force in the worker that started last; before the first, those
    that this system offers. ``pool`` is None where there are no workers.
    """

    isolation: str
    layers: Layers
    pool: PoolStatus | None


class SandboxedInspector:
    """Hands uploads to worker processes. Safe to share between threads; survives ``fork``.

    Raises :class:`SandboxError` where the system does not offer what ``settings.isolation`` asks for, and
    :class:`~uploadguard.errors.PluginError` for a plugin's part that cannot be taken into another process.
    """

    def __init__(self, settings: SandboxSettings, job: Job, plugins: Plugins, *, max_upload_bytes: int) -> None:
        self._settings = settings
        required = required_layers(settings.isolation)
        self.expected = wire.Expected(
            signals={signal_type.name: signal_type.length_bytes for signal_type in job.signals},
            decoders=frozenset({RefusingDecoder.name, *(decoder.name for decoder in job.decoders)}),
            max_frames=job.limits.max_frames_hashed,
        )
        extra = {"memory_bytes": settings.max_memory_bytes + THREADS_BYTES, "required": required}
        spec = WorkerSpec(
            python=interpreter(settings.python),
            payload=dump_job(job, plugins, extra),
            max_upload_bytes=max_upload_bytes,
            max_answer_bytes=self.expected.max_bytes,
        )
        self.pool = WorkerPool(
            spec,
            self.expected,
            required=required,
            workers=settings.workers or _cpus(),
            max_waiting=settings.max_waiting,
            max_files=settings.max_files,
            idle_s=settings.idle_s,
        )
        weakref.finalize(self, self.pool.close_soon).atexit = False

    @property
    def max_at_once(self) -> int:
        """How many checks there can be that are at work or waiting."""
        return self.pool.workers + self._settings.max_waiting

    def prewarm(self) -> None:
        """Start a worker and wait until it is ready. Raises :class:`SandboxError`."""
        if (problem := self.pool.wait_ready()) is not None:
            raise SandboxError(f"no worker process could be started: {problem}")

    def inspection(
        self, data: bytes | memoryview, until: float, cancelled: Callable[[], bool] | None = None
    ) -> Inspecting:
        """An inspection to be made until the clock (:func:`time.monotonic`) reaches ``until``."""
        return Inspecting(self, data, until, cancelled, self._settings)

    def status(self) -> SandboxStatus:
        """How the workers are doing."""
        pool = self.pool.status()
        return SandboxStatus(self._settings.isolation, pool.layers or available(), pool)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


class Inspecting:
    """One upload's inspection in a worker. Ends with :meth:`result` or :meth:`abandon`; for one thread.

    ``isolation_ms`` is what the worker's being another process has taken so far: waiting for it, copying, talking.
    """

    def __init__(
        self,
        inspector: SandboxedInspector,
        data: bytes | memoryview,
        until: float,
        cancelled: Callable[[], bool] | None,
        settings: SandboxSettings,
    ) -> None:
        self._pool = inspector.pool
        self._expected = inspector.expected
        self._data = data
        self._until = until
        self._cancelled = cancelled
        self._max_memory_bytes = settings.max_memory_bytes + len(data)
        self._deadline_s = settings.deadline_s
        self._worker: Worker | None = None
        self._sent = 0.0
        self.isolation_ms = 0.0

    def begin(self) -> None:
        """Let a worker begin, if one is free."""
        started = time.perf_counter()
        worker = self._pool.try_acquire()
        if worker is not None:
            try:
                self._send(worker)
            except _Fault as fault:
                self._give_up(fault)
        self.isolation_ms += (time.perf_counter() - started) * 1e3

    def abandon(self) -> None:
        """The result is no longer wanted, if it still was."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._pool.abandon(worker, len(self._data))

    def result(self) -> Inspection:
        """The inspection; where the workers failed at it, one that holds the failure.

        Raises :class:`InspectionCancelled`. ``begin`` may have been called before, or not.
        """
        failed = 0
        for _ in range(_TRIES_WITH_THE_DEAD):
            try:
                return self._try(fresh=failed > 0)
            except NoWorker as none:
                self._raise_cancelled()
                code, detail = none.code, none.detail
                break
            except _TimeIsUp:
                self.abandon()
                code, detail = FailureCode.TIMEOUT, f"it could not be inspected within {self._deadline_s:g} s"
                break
            except _Fault as fault:
                self._give_up(fault)
                code, detail = fault.code, fault.detail
                failed += fault.why != "died"
                if not fault.again or failed >= _TRIES or time.monotonic() > self._until - _LAST_RESERVE_S:
                    break
            except BaseException:
                self.abandon()
                raise
        return uninspected(self._data, code, detail)

    def _try(self, *, fresh: bool) -> Inspection:
        started = time.perf_counter()
        worker = self._worker
        if worker is None:
            try:
                worker = self._pool.acquire(self._worker_until(), self._cancelled, fresh=fresh)
                self._send(worker)
            finally:
                sent = time.perf_counter()
                self.isolation_ms += (sent - started) * 1e3
            started = sent
        answer = self._wait(worker)
        if answer.inspection is None:
            raise _Fault(FailureCode.DECODER_CRASHED, "protocol", "the worker stopped without being told to")
        answered = time.perf_counter()
        self._worker = None
        self._pool.release(worker)
        in_flight_ms = (answered - self._sent) * 1e3 - answer.elapsed_ms
        waited_ms = (answered - started) * 1e3
        # Where the answer had long come, only taking it counts.
        self.isolation_ms += max(0.0, min(in_flight_ms, waited_ms))
        return answer.inspection

    def _worker_until(self) -> float:
        now = time.monotonic()
        return self._until if self._pool.is_cold else now + (self._until - now) * _WAITING_SHARE

    def _send(self, worker: Worker) -> None:
        self._worker = worker
        try:
            worker.begin(self._data)
        except BrokenPipeError:
            raise _Fault(FailureCode.DECODER_CRASHED, "died", "the worker had died between two uploads") from None
        except OSError as error:
            detail = f"the upload could not be handed to a worker: {error.strerror}"
            raise _Fault(FailureCode.SANDBOX_FAILED, "unreachable", detail) from None
        self._sent = time.perf_counter()

    def _wait(self, worker: Worker) -> wire.Answer:
        while True:
            remaining_s = self._until - time.monotonic()
            try:
                answer = worker.answer(len(self._data), self._expected, max(0.0, min(remaining_s, _WATCH_S)))
            except EOFError:
                raise self._death(worker) from None
            except wire.ProtocolError as error:
                detail = f"the worker broke its protocol: {error}"
                raise _Fault(FailureCode.DECODER_CRASHED, "protocol", detail) from None
            if answer is not None:
                return answer
            self._raise_cancelled()
            if remaining_s <= 0:
                raise _TimeIsUp
            if worker.resident_bytes() > self._max_memory_bytes:
                detail = "the worker took more memory than sandbox.max_memory_bytes"
                raise _Fault(FailureCode.OUT_OF_MEMORY, "memory", detail)

    def _death(self, worker: Worker) -> _Fault:
        """What a worker's end means."""
        if worker.ended_for == "closed":
            return _Fault(FailureCode.SANDBOX_FAILED, "closed", "the workers have been closed", again=False)
        # One that has hung up and lives on must not take the check past its time.
        remaining_s = self._until - time.monotonic()
        status = worker.exit_status(max(_LAST_RESERVE_S, min(_DEATH_S, remaining_s)))
        if status == -signal.SIGSYS:
            detail = "the worker was killed for a call that only an exploit makes"
            return _Fault(FailureCode.SANDBOX_VIOLATION, "violation", detail, again=False)
        if status == -signal.SIGKILL:
            return _Fault(FailureCode.OUT_OF_MEMORY, "memory", "the system killed the worker, most likely for memory")
        return _Fault(FailureCode.DECODER_CRASHED, "crashed", f"the worker ended in the middle ({status_text(status)})")

    def _give_up(self, fault: _Fault) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._pool.lost(worker, fault.why)
        level = logging.ERROR if fault.code is FailureCode.SANDBOX_VIOLATION else logging.WARNING
        media_type = sniff(bytes(self._data[:HEAD_BYTES]))
        log.log(level, "%s, at an upload of %s", fault.detail, media_type or "an unknown media type")

    def _raise_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            self.abandon()
            raise InspectionCancelled


def uninspected(data: bytes | memoryview, code: FailureCode, detail: str) -> Inspection:
    """An inspection that failed as a whole. The media type is what the first bytes show."""
    media = Media(len(data), media_type=sniff(bytes(data[:HEAD_BYTES])))
    return Inspection(media, (), (Failure(code, detail),), {})


def required_layers(isolation: str) -> frozenset[str]:
    """The layers that there must be. Raises :class:`SandboxError` where this system does not have them."""
    offered = available()
    if not hasattr(os, "memfd_create") or not hasattr(os, "eventfd"):
        raise SandboxError(
            'worker processes need Linux; sandbox.isolation = "none" decodes in this process, for trusted input only'
        )
    missing = offered.missing(REQUIRED)
    if isolation == "process":
        if missing:
            log.warning("uploads are decoded in processes that are not sandboxed in full: without %s", _joined(missing))
        return frozenset()
    if missing:
        raise SandboxError(
            f"uploads cannot be decoded in a sandbox here: this system does not offer {_joined(missing)}. "
            'sandbox.isolation = "process" takes what it does offer'
        )
    return REQUIRED


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
