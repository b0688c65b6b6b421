"""A worker's life: load the decoders, warm them up, give up everything else, and inspect one upload after the other."""

from __future__ import annotations

import gc
import importlib
import logging
import mmap
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NoReturn, Protocol

from uploadguard.media.codecs import without_holes
from uploadguard.media.inspect import Inspection, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.models import Failure, FailureCode, Media
from uploadguard.sandbox import wire
from uploadguard.sandbox.lockdown import lock_down
from uploadguard.sandbox.parts import Job, load_job
from uploadguard.sandbox.samples import SAMPLES

__all__ = ["ArenaSource", "Duty", "Stopped", "main", "run"]

_MODULES: Final = (
    *(
        f"PIL.{name}"
        for name in (
            "AvifImagePlugin",
            "BmpImagePlugin",
            "GifImagePlugin",
            "ImageFile",
            "ImageOps",
            "ImagePalette",
            "ImageSequence",
            "JpegImagePlugin",
            "PngImagePlugin",
            "TiffImagePlugin",
            "WebPImagePlugin",
        )
    ),
    *(
        f"encodings.{name}"
        for name in ("ascii", "cp1252", "latin_1", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_8_sig")
    ),
    "linecache",
    "traceback",
)
"""What libraries import only where a file gives them a reason to: once locked down, a worker can import nothing."""

_MAX_CODEC_THREADS: Final = 4


class Stopped(Exception):
    """The host no longer wants the answer."""


class ArenaSource:
    """An upload in the arena."""

    def __init__(self, arena: mmap.mmap, number: int, size_bytes: int) -> None:
        self.data = memoryview(arena)[wire.DATA_OFFSET : wire.DATA_OFFSET + size_bytes]
        self._arena = arena
        self._cancelled = wire.CANCEL_WORD.pack(number)

    def check(self) -> None:
        """Raise where the host has written this request's number into the cancel word."""
        if self._arena[: wire.CANCEL_WORD.size] == self._cancelled:
            raise Stopped


class Duty(Protocol):
    """What a worker does with uploads."""

    def warm_up(self, data: bytes) -> None:
        """Do it with a sample, so that all code is loaded."""

    def answer(self, source: ArenaSource, number: int) -> bytes:
        """Do it with the upload of request ``number``; returns the answer, ready to be sent."""


def main(connection_fd: int, arena_fd: int, payload_at: int, payload_bytes: int, parent_pid: int) -> NoReturn:
    """The process that inspects uploads, to its end."""
    run(connection_fd, arena_fd, payload_at, payload_bytes, parent_pid, _Inspections)


def run(
    connection_fd: int,
    arena_fd: int,
    payload_at: int,
    payload_bytes: int,
    parent_pid: int,
    duty_of: Callable[[Job, Mapping[str, Any]], Duty],
) -> NoReturn:
    """A worker process, to its end. The payload of :func:`~uploadguard.sandbox.parts.dump_job` lies in the arena."""
    connection = socket.socket(fileno=connection_fd)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        job, values = load_job(os.pread(arena_fd, payload_bytes, payload_at))
        decoders, holes = without_holes(job.decoders, job.allow_codecs)
        job = replace(job, decoders=decoders)
        arena = mmap.mmap(arena_fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        duty = duty_of(job, values)
        _warm_up(duty)
        gc.collect()
        gc.freeze()
        layers = lock_down(
            memory_bytes=values["memory_bytes"],
            keep_fds=(connection_fd,),
            parent_pid=parent_pid,
            required=values["required"],
        )
        connection.sendall(wire.frame({"layers": layers.to_dict(), "holes": [str(hole) for hole in holes]}))
    except Exception as error:  # noqa: BLE001 - whatever it is, the host must hear of it
        text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            connection.sendall(wire.frame({"failed": "".join(c if c.isprintable() else " " for c in text[:500])}))
        os._exit(1)
    _serve(connection, arena, duty)
    os._exit(0)


def _warm_up(duty: Duty) -> None:
    """Decode one of everything, so that all code is loaded and all that is made once only is made."""
    for name in _MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    if (avif := sys.modules.get("PIL.AvifImagePlugin")) is not None:
        # Each thread takes address space, and there is a worker for each CPU anyway.
        avif.DEFAULT_MAX_THREADS = min(_MAX_CODEC_THREADS, os.cpu_count() or 1)  # type: ignore[attr-defined]
    for data in SAMPLES.values():
        duty.warm_up(data)


def _serve(connection: socket.socket, arena: mmap.mmap, duty: Duty) -> None:
    """Answer requests until the host hangs up."""
    while (request := _receive(connection)) is not None:
        number, size_bytes = wire.REQUEST.unpack(request)
        connection.sendall(duty.answer(ArenaSource(arena, number, size_bytes), number))


def _receive(connection: socket.socket) -> bytes | None:
    request = b""
    while len(request) < wire.REQUEST.size:
        chunk = connection.recv(wire.REQUEST.size - len(request))
        if not chunk:
            return None
        request += chunk
    return request


class _Inspections:
    """The inspection of uploads, for checks."""

    def __init__(self, job: Job, _: Mapping[str, Any]) -> None:
        self._job = job

    def warm_up(self, data: bytes) -> None:
        job = self._job
        inspect_media(BytesSource(data), job.decoders, job.signals, job.options, job.limits)

    def answer(self, source: ArenaSource, number: int) -> bytes:
        started = time.perf_counter()
        job = self._job
        try:
            inspection = inspect_media(source, job.decoders, job.signals, job.options, job.limits)
        except Stopped:
            return wire.stopped_answer(number, _since_ms(started))
        try:
            return wire.answer_of(number, inspection, _since_ms(started))
        except (TypeError, ValueError, OverflowError):
            failure = Failure(FailureCode.PLUGIN_FAILED, "a decoder or a signal type gave values of the wrong kind")
            nothing = Inspection(Media(len(source.data)), (), (failure,), {})
            return wire.answer_of(number, nothing, _since_ms(started))


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
