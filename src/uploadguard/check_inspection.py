"""The digests of an upload and its inspection, side by side where the process has a CPU to spare.

On this thread while a worker process decodes, on a second thread where this one does. As soon as the digests decide the
upload by themselves, decoding is given up in the middle: what it would have found cannot change the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from uploadguard.check_decision import Decider
from uploadguard.check_order import Check, CheckCancelled, CheckOrder
from uploadguard.matching import Asking
from uploadguard.media.inspect import Inspection, inspect_media
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.models import Failure, FailureCode, Hash, Match, Media
from uploadguard.sandbox.inspector import InspectionCancelled, SandboxedInspector, uninspected
from uploadguard.sandbox.parts import Job
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Upload

__all__ = ["Digested", "UploadInspector"]

_SMALL_BYTES = 256 * 1024
"""Below this, hashing the digests takes less time than handing them to another thread is worth."""

_DIGEST_BYTES = 1 << 18
"""How much is digested between two looks at the clock; of smaller uploads the digests are always computed."""

_STOPPABLE = frozenset({"image/jpeg", "image/png"})
"""Decoded piece by piece, so that a digest match can stop it. Of others the digests are waited for first."""

_UNINSPECTED = "it could not be inspected within sandbox.deadline_s"


class _Abandoned(Exception):
    """The digests have decided; decoding can stop."""


class _TimeIsUp(Exception):
    """The check's time is over."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class Digested:
    """An upload's digests, and what they match.

    ``decides``: nothing else could change the verdict. ``late``: the check's time was over before all was digested, so
    there are none. ``stages`` is milliseconds by stage.
    """

    hashes: tuple[Hash, ...]
    matches: list[Match]
    decides: bool
    late: bool = False
    stages: dict[str, float] = field(default_factory=dict)


class _DecodeSource:
    """The upload's bytes for the decoder, which asks ``check()`` between reads."""

    def __init__(self, data: bytes | memoryview, decided: threading.Event, order: CheckOrder) -> None:
        self.data = data
        self._decided = decided
        self._cancelled = order.cancelled or _never
        self._until = order.until

    def check(self) -> None:
        """Raise when the answer is no longer needed."""
        if self._decided.is_set():
            raise _Abandoned
        if self._cancelled():
            raise CheckCancelled
        if time.monotonic() > self._until:
            raise _TimeIsUp


class UploadInspector:
    """Digests and inspects the uploads of one Guard; holds no state between them.

    ``job`` is what they are decoded and hashed with, ``sandbox`` where: None is this process. ``digest_pool`` gives the
    executor for digests, or None where they should run in line. All raise :class:`CheckCancelled`.
    """

    def __init__(
        self,
        job: Job,
        sandbox: SandboxedInspector | None,
        decider: Decider,
        digest_pool: Callable[[], Executor | None],
    ) -> None:
        self._job = job
        self._sandbox = sandbox
        self._decider = decider
        self._digest_pool = digest_pool

    def inspect_isolated(self, upload: Upload, check: Check, asking: Asking) -> tuple[Digested, Inspection | None]:
        """Digests and inspection, in a worker process. No inspection where the digests decide."""
        assert self._sandbox is not None
        assert upload.content is not None
        timings = check.timings
        inspecting = self._sandbox.inspection(upload.content, check.order.until, check.order.cancelled)
        try:
            if not upload.digested and self._digests_overlap(upload.content):
                inspecting.begin()
                timings.lap("dispatch")
            digested = self._digest(upload, check, asking, threading.Event())
            timings.lap("digests")
            if digested.decides:
                return digested, None
            if digested.late:
                return digested, uninspected(upload.content, FailureCode.TIMEOUT, _UNINSPECTED)
            inspection = inspecting.result()
        except InspectionCancelled:
            raise CheckCancelled from None
        finally:
            inspecting.abandon()
            timings.stages["sandbox"] = inspecting.isolation_ms
        return digested, inspection

    def inspect_in_line(self, upload: Upload, check: Check, asking: Asking) -> tuple[Digested, Inspection | None]:
        """Digests and inspection, in this process. No inspection where the digests stop it."""
        decided = threading.Event()
        task = self._start_digests(upload, check, asking, decided)
        check.timings.lap("digests" if task.done() else "dispatch")
        try:
            inspection = self._inspect(upload, check.order, decided)
        except _Abandoned:
            inspection = None
        finally:
            digested = task.result()
        return digested, inspection

    def _digests_overlap(self, content: bytes | memoryview) -> bool:
        """Whether to compute the digests beside decoding: where there is a CPU for it, and it could be stopped."""
        return self._digest_pool() is not None and sniff(bytes(content[:HEAD_BYTES])) in _STOPPABLE

    def _start_digests(
        self, upload: Upload, check: Check, asking: Asking, decided: threading.Event
    ) -> Future[Digested]:
        if not upload.digested and upload.size_bytes > _SMALL_BYTES and upload.content is not None:
            pool = self._digest_pool()
            if pool is not None and self._digests_overlap(upload.content):
                return pool.submit(self._digest, upload, check, asking, decided)
        done: Future[Digested] = Future()
        done.set_result(self._digest(upload, check, asking, decided))
        return done

    def _digest(self, upload: Upload, check: Check, asking: Asking, decided: threading.Event) -> Digested:
        """Compute the digests and look them up. Sets ``decided``, or has match services asked that go by them."""
        started = time.perf_counter()
        content = upload.content
        if not upload.digested and content is not None and not _take_in(upload.digest, content, check.order):
            stages = {"digests": (time.perf_counter() - started) * 1e3}
            return Digested((), [], decides=False, late=True, stages=stages)
        hashes = tuple(Hash(name, value) for name, value in upload.digest.digests())
        hashed = time.perf_counter()
        matches = check.generation.match(hashes, self._decider.limits(check.context))
        decides = bool(matches) and self._decider.settles(matches, check)
        if decides:
            decided.set()
        else:
            asking.begin(hashes)
        stages = {"digests": (hashed - started) * 1e3, "match_digests": (time.perf_counter() - hashed) * 1e3}
        return Digested(hashes, matches, decides, stages=stages)

    def _inspect(self, upload: Upload, order: CheckOrder, decided: threading.Event) -> Inspection:
        """Inspect an upload in this process. Raises :class:`_Abandoned` where ``decided`` is set meanwhile."""
        if upload.content is None:
            looked_at = "only its digests were looked up" if upload.digested else "it was not read"
            detail = f"{upload.size_bytes} bytes, over media.max_file_bytes; {looked_at}"
            failure = Failure(FailureCode.TOO_LARGE, detail)
            return Inspection(Media(upload.size_bytes), (), (failure,), {})
        if order.overloaded:
            return uninspected(upload.content, FailureCode.OVERLOADED, "too many checks were waiting already")
        job, source = self._job, _DecodeSource(upload.content, decided, order)
        try:
            source.check()
            return inspect_media(source, job.decoders, job.signals, job.options, job.limits)
        except _TimeIsUp:
            return uninspected(upload.content, FailureCode.TIMEOUT, _UNINSPECTED)


def _take_in(digest: MultiDigest, content: bytes | memoryview, order: CheckOrder) -> bool:
    """Digest an upload while there is time; returns whether all of it was. Raises :class:`CheckCancelled`."""
    view = memoryview(content)
    for start in range(0, len(view), _DIGEST_BYTES):
        if len(view) > _DIGEST_BYTES and time.monotonic() > order.until:
            return False
        if order.cancelled is not None and order.cancelled():
            raise CheckCancelled
        digest.update(view[start : start + _DIGEST_BYTES])
    return True
