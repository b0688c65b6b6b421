"""One check, stage by stage: digests, inspection, match, decide. A Guard holds what a check needs and runs it.

The digests run beside decoding where the process has a CPU to spare: on this thread while a worker process decodes, on
a second thread where this one does. As soon as they decide the upload by themselves, decoding is given up in the
middle: what it would have found cannot change the answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import lru_cache

from uploadguard.errors import PluginError
from uploadguard.hashset import Generation
from uploadguard.matching import Asked, Asking, Matching
from uploadguard.media.inspect import Inspection, inspect_media
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media, Verdict
from uploadguard.plugins import Plugins
from uploadguard.policy import ALLOW_LISTED, Outcome, Policy, apply_answers, decide, in_shadow, limits
from uploadguard.sandbox.inspector import InspectionCancelled, SandboxedInspector, uninspected
from uploadguard.sandbox.parts import Job
from uploadguard.signals.base import DigestSignal
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Upload

__all__ = ["CheckCancelled", "CheckOrder", "CheckRunner", "Timings"]

_SMALL_BYTES = 256 * 1024
"""Below this, hashing the digests takes less time than handing them to another thread is worth."""

_DIGEST_BYTES = 1 << 18
"""How much is digested between two looks at the clock; of smaller uploads the digests are always computed."""

_STOPPABLE = frozenset({"image/jpeg", "image/png"})
"""Decoded piece by piece, so that a digest match can stop it. Of others the digests are waited for first."""

PLUGIN_VERDICT = "plugin_verdict"

_UNDIGESTED = "its digests could not be computed within sandbox.deadline_s"
_UNINSPECTED = "it could not be inspected within sandbox.deadline_s"


class CheckCancelled(Exception):
    """The caller no longer wants the answer."""


class _Abandoned(Exception):
    """The digests have decided; decoding can stop."""


class _TimeIsUp(Exception):
    """The check's time is over."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class CheckOrder:
    """How one check is to be made.

    ``until`` is when its time is over, by :func:`time.monotonic`. ``cancelled`` says whether the answer is no longer
    wanted; None where that cannot be. ``overloaded``: there is no room for decoding it, so only its digests count.
    ``failures`` are what stands against any check now, whatever is uploaded. ``tripped`` has the lists whose matches
    are only queued.
    """

    until: float = math.inf
    cancelled: Callable[[], bool] | None = None
    overloaded: bool = False
    failures: tuple[Failure, ...] = ()
    tripped: Container[str] = frozenset()


class Timings:
    """Wall-clock milliseconds by stage."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def finish(self) -> Mapping[str, float]:
        """All stages, with ``total``."""
        return {**self.stages, "total": (time.perf_counter() - self._started) * 1e3}


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


@dataclass(slots=True)
class _DigestResult:
    """``late``: the check's time was over before all was digested, so there are none."""

    hashes: tuple[Hash, ...]
    matches: list[Match]
    decides: bool
    late: bool = False
    stages: dict[str, float] = field(default_factory=dict)


class CheckRunner:
    """What every check of one Guard shares; holds no state between checks.

    ``job`` is what uploads are decoded and hashed with, ``sandbox`` where: None is this process. ``digest_pool`` gives
    the executor for digests, or None where they should run in line.
    """

    def __init__(
        self,
        *,
        digest_signals: Sequence[DigestSignal],
        job: Job,
        sandbox: SandboxedInspector | None,
        policy: Policy,
        plugins: Plugins,
        matching: Matching,
        digest_pool: Callable[[], Executor | None],
    ) -> None:
        self._digest_signals = tuple(digest_signals)
        self._min_quality = {signal.name: signal.min_quality for signal in job.signals}
        self._job = job
        self._sandbox = sandbox
        self._policy = policy
        self._plugins = plugins
        self._matching = matching
        self._digest_pool = digest_pool
        self._lengths = {signal.name: signal.length_bytes for signal in (*digest_signals, *job.signals)}
        names = [*self._lengths]
        self._limits = lru_cache(maxsize=256)(lambda tenant: limits(policy, names, tenant))

    def new_digest(self) -> MultiDigest:
        """Running digests of every kind this Guard computes."""
        return MultiDigest(self._digest_signals)

    def run(
        self,
        upload: Upload,
        context: Context,
        generation: Generation,
        timings: Timings,
        order: CheckOrder,
    ) -> tuple[Decision, list[PluginError]]:
        """Check one upload against one generation. Also returns the errors of plugins that were asked."""
        isolated = self._sandbox is not None and upload.content and not order.overloaded
        inspect = self._inspect_isolated if isolated else self._inspect_in_line
        asking = self._matching.asking(context, upload.content)
        asked = Asked()
        try:
            digests, inspection = inspect(upload, context, generation, timings, order, asking)
        except BaseException:
            asking.abandon()
            raise
        timings.lap("inspect")
        timings.stages.update(digests.stages)
        if inspection is None or digests.decides:
            asking.abandon()
            inspection = Inspection(Media(upload.size_bytes), (), (), {})
            found: list[Match] = []
        else:
            timings.stages.update(inspection.timings_ms)
            usable = [h for h in inspection.hashes if (h.quality or 0) >= self._min_quality[h.signal_type]]
            asking.begin((*digests.hashes, *usable), media=inspection.media)
            found = generation.match(usable, self._limits(self._tenant(context)))
            timings.lap("match")
            if self._matching:
                asked = asking.answers(order.cancelled)
                timings.lap("matchers")
                if order.cancelled is not None and order.cancelled():
                    raise CheckCancelled
        decision, errors = self._decide(
            (*digests.hashes, *inspection.hashes),
            [*digests.matches, *found, *asked.matches],
            inspection,
            (
                *order.failures,
                *((Failure(FailureCode.TIMEOUT, _UNDIGESTED),) if digests.late else ()),
                *(
                    Failure(FailureCode.SIGNAL_FAILED, f"{name} raised {error}")
                    for name, error in upload.digest.failed.items()
                ),
                *asked.failures,
            ),
            generation,
            context,
            timings,
            order.tripped,
        )
        return _pending(decision, asked), [*asked.errors, *errors]

    def run_hashes(
        self,
        hashes: Sequence[Hash],
        context: Context,
        generation: Generation,
        timings: Timings,
        order: CheckOrder,
    ) -> tuple[Decision, list[PluginError]]:
        """As :meth:`run` for hashes of a file that is not here. Raises ``ValueError`` for one that cannot be used."""
        for item in hashes:
            self._require_usable(item)
        usable = [h for h in hashes if (h.quality or 0) >= self._min_quality.get(h.signal_type, 0)]
        asking = self._matching.asking(context, None, only_hashes=True)
        asking.begin(usable, media=Media(0))
        found = generation.match(usable, self._limits(self._tenant(context)))
        timings.lap("match")
        asked = asking.answers()
        if self._matching:
            timings.lap("matchers")
        failures = [Failure(FailureCode.CONTENT_UNSEEN, "only hashes that the host sent were looked up")]
        if len(usable) < len(hashes):
            failures.append(Failure(FailureCode.LOW_QUALITY, "a hash of too low quality was not looked up"))
        decision, errors = self._decide(
            tuple(hashes),
            [*found, *asked.matches],
            Inspection(Media(0), (), (), {}),
            (*order.failures, *failures, *asked.failures),
            generation,
            context,
            timings,
            order.tripped,
        )
        return _pending(decision, asked), [*asked.errors, *errors]

    def _require_usable(self, item: Hash) -> None:
        """Raise ``ValueError`` where a hash could never match, or does not say how far it can be relied on."""
        length_bytes = self._lengths.get(item.signal_type)
        if length_bytes is None:
            raise ValueError(f"checks use {', '.join(self._lengths)} (signals.enabled), not {item.signal_type!r:.60}")
        if len(item.value) != length_bytes:
            raise ValueError(f"a hash of {item.signal_type} has {length_bytes} bytes, not {len(item.value)}")
        if item.quality is None and self._min_quality.get(item.signal_type):
            raise ValueError(f"a hash of {item.signal_type} needs its quality, 0 to 100")
        if item.quality is not None and not 0 <= item.quality <= 100:
            raise ValueError("a hash's quality is 0 to 100")

    def revise(
        self,
        earlier: Decision,
        context: Context,
        matches: Sequence[Match],
        failures: Sequence[Failure],
        reference: str,
        *,
        tripped: Container[str] = frozenset(),
    ) -> Decision | None:
        """The decision in an earlier one's place, now that a matcher's answer is there; None where it is the same."""
        outcome = decide(
            [*earlier.matches, *matches],
            [*earlier.failures, *failures],
            self._policy,
            tenant=self._tenant(context),
            tripped=tripped,
        )
        before = earlier.verdict
        if self._policy.shadow and earlier.shadow is not None:
            before = earlier.shadow
        if not matches and outcome.verdict <= before:
            return None
        verdict, shadow = in_shadow(max(outcome.verdict, before), outcome.shadow, self._policy)
        return replace(
            earlier,
            verdict=verdict,
            reasons=tuple(dict.fromkeys((*outcome.reasons, *earlier.reasons))),
            matches=outcome.matches,
            failures=(*earlier.failures, *failures),
            report_due=(outcome.report_due or earlier.report_due) and not self._policy.shadow,
            timings_ms={},
            shadow=shadow,
            pending=(),
            revises=earlier.reference,
            reference=reference,
        )

    def _tenant(self, context: Context) -> str | None:
        """The tenant if it has rules of its own: others share one cache entry."""
        return context.tenant if context.tenant in self._policy.tenants else None

    def _inspect_isolated(
        self,
        upload: Upload,
        context: Context,
        generation: Generation,
        timings: Timings,
        order: CheckOrder,
        asking: Asking,
    ) -> tuple[_DigestResult, Inspection | None]:
        """Digests and inspection, in a worker process. No inspection where the digests decide."""
        assert self._sandbox is not None
        assert upload.content is not None
        inspecting = self._sandbox.inspection(upload.content, order.until, order.cancelled)
        try:
            if not upload.digested and self._digests_overlap(upload.content):
                inspecting.begin()
                timings.lap("dispatch")
            digests = self._digests(upload, context, generation, threading.Event(), order, asking)
            timings.lap("digests")
            if digests.decides:
                return digests, None
            if digests.late:
                return digests, uninspected(upload.content, FailureCode.TIMEOUT, _UNINSPECTED)
            inspection = inspecting.result()
        except InspectionCancelled:
            raise CheckCancelled from None
        finally:
            inspecting.abandon()
            timings.stages["sandbox"] = inspecting.isolation_ms
        return digests, inspection

    def _inspect_in_line(
        self,
        upload: Upload,
        context: Context,
        generation: Generation,
        timings: Timings,
        order: CheckOrder,
        asking: Asking,
    ) -> tuple[_DigestResult, Inspection | None]:
        """Digests and inspection, in this process. No inspection where the digests stop it."""
        decided = threading.Event()
        task = self._start_digests(upload, context, generation, decided, order, asking)
        timings.lap("digests" if task.done() else "dispatch")
        try:
            inspection = self._inspect(upload, _DecodeSource(upload.content or b"", decided, order), order)
        except _Abandoned:
            inspection = None
        finally:
            digests = task.result()
        return digests, inspection

    def _digests_overlap(self, content: bytes | memoryview) -> bool:
        """Whether to compute the digests beside decoding: where there is a CPU for it, and it could be stopped."""
        return self._digest_pool() is not None and sniff(bytes(content[:HEAD_BYTES])) in _STOPPABLE

    def _start_digests(
        self,
        upload: Upload,
        context: Context,
        generation: Generation,
        decided: threading.Event,
        order: CheckOrder,
        asking: Asking,
    ) -> Future[_DigestResult]:
        if not upload.digested and upload.size_bytes > _SMALL_BYTES and upload.content is not None:
            pool = self._digest_pool()
            if pool is not None and self._digests_overlap(upload.content):
                return pool.submit(self._digests, upload, context, generation, decided, order, asking)
        done: Future[_DigestResult] = Future()
        done.set_result(self._digests(upload, context, generation, decided, order, asking))
        return done

    def _digests(
        self,
        upload: Upload,
        context: Context,
        generation: Generation,
        decided: threading.Event,
        order: CheckOrder,
        asking: Asking,
    ) -> _DigestResult:
        started = time.perf_counter()
        if not upload.digested and upload.content is not None and not _digest(upload.digest, upload.content, order):
            stages = {"digests": (time.perf_counter() - started) * 1e3}
            return _DigestResult((), [], decides=False, late=True, stages=stages)
        hashes = tuple(Hash(name, value) for name, value in upload.digest.digests())
        hashed = time.perf_counter()
        tenant = self._tenant(context)
        matches = generation.match(hashes, self._limits(tenant))
        decides = False
        if matches:
            outcome = decide(matches, (), self._policy, tenant=tenant, tripped=order.tripped)
            decides = outcome.verdict is Verdict.BLOCK or _cleared(outcome)
        if decides:
            decided.set()
        else:
            asking.begin(hashes)
        stages = {"digests": (hashed - started) * 1e3, "match_digests": (time.perf_counter() - hashed) * 1e3}
        return _DigestResult(hashes, matches, decides, stages=stages)

    def _inspect(self, upload: Upload, source: _DecodeSource, order: CheckOrder) -> Inspection:
        if upload.content is None:
            looked_at = "only its digests were looked up" if upload.digested else "it was not read"
            detail = f"{upload.size_bytes} bytes, over media.max_file_bytes; {looked_at}"
            failure = Failure(FailureCode.TOO_LARGE, detail)
            return Inspection(Media(upload.size_bytes), (), (failure,), {})
        if order.overloaded:
            return uninspected(upload.content, FailureCode.OVERLOADED, "too many checks were waiting already")
        job = self._job
        try:
            source.check()
            return inspect_media(source, job.decoders, job.signals, job.options, job.limits)
        except _TimeIsUp:
            return uninspected(upload.content, FailureCode.TIMEOUT, _UNINSPECTED)

    def _decide(
        self,
        hashes: tuple[Hash, ...],
        matches: list[Match],
        inspection: Inspection,
        further: tuple[Failure, ...],
        generation: Generation,
        context: Context,
        timings: Timings,
        tripped: Container[str],
    ) -> tuple[Decision, list[PluginError]]:
        tenant = self._tenant(context)
        failures = (*further, *inspection.failures)

        def decision_of(
            outcome: Outcome, verdict: Verdict, reasons: tuple[str, ...], shadow: Verdict | None
        ) -> Decision:
            return Decision(
                verdict=verdict,
                reasons=reasons,
                matches=outcome.matches,
                failures=failures,
                hashes=hashes,
                media=inspection.media,
                generation=generation.number,
                report_due=outcome.report_due and not self._policy.shadow,
                timings_ms=timings.finish(),
                shadow=shadow,
            )

        outcome = decide(matches, failures, self._policy, tenant=tenant, tripped=tripped)
        errors: list[PluginError] = []
        verdict, reasons = outcome.verdict, outcome.reasons
        if self._plugins.has("uploadguard_decide"):
            answers: dict[str, Verdict] = {}
            proposal = decision_of(outcome, verdict, reasons, outcome.shadow)
            for name, answer in self._plugins.call_each("uploadguard_decide", decision=proposal, context=context):
                if isinstance(answer, PluginError):
                    errors.append(answer)
                elif isinstance(answer, Verdict):
                    answers[name] = answer
                elif answer is not None:
                    errors.append(PluginError(name, f"uploadguard_decide gave a {type(answer).__name__}"))
            failures += tuple(Failure(FailureCode.PLUGIN_FAILED, str(error)) for error in errors)
            outcome = decide(matches, failures, self._policy, tenant=tenant, tripped=tripped)
            verdict, reasons = apply_answers(outcome.verdict, answers, self._policy), outcome.reasons
            if verdict is not outcome.verdict:
                reasons = (PLUGIN_VERDICT, *reasons)
        verdict, shadow = in_shadow(verdict, outcome.shadow, self._policy)
        timings.lap("decide")
        return decision_of(outcome, verdict, reasons, shadow), errors


def _digest(digest: MultiDigest, content: bytes | memoryview, order: CheckOrder) -> bool:
    """Digest an upload while there is time; returns whether all of it was. Raises :class:`CheckCancelled`."""
    view = memoryview(content)
    for start in range(0, len(view), _DIGEST_BYTES):
        if len(view) > _DIGEST_BYTES and time.monotonic() > order.until:
            return False
        if order.cancelled is not None and order.cancelled():
            raise CheckCancelled
        digest.update(view[start : start + _DIGEST_BYTES])
    return True


def _pending(decision: Decision, asked: Asked) -> Decision:
    """The decision with those whose answer is to come; none where it blocks, since they could change nothing."""
    is_open = asked.pending and decision.verdict is not Verdict.BLOCK
    return replace(decision, pending=asked.pending) if is_open else decision


def _cleared(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.ALLOW and outcome.reasons == (ALLOW_LISTED,)
