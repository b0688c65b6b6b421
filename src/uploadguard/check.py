"""One check, stage by stage: digests, inspection, match, decide. A Guard holds what a check needs and runs it.

The digests run on a second thread beside decoding where the process has a CPU to spare. As soon as they decide the
upload by themselves, decoding is given up in the middle: what it would have found cannot change the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import lru_cache

from uploadguard.errors import PluginError
from uploadguard.hashset import Generation
from uploadguard.media.base import DecodeOptions, Decoder
from uploadguard.media.inspect import Inspection, Limits, inspect_media
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media, Verdict
from uploadguard.plugins import Plugins
from uploadguard.policy import ALLOW_LISTED, Outcome, Policy, apply_answers, decide, limits
from uploadguard.signals.base import DigestSignal, PixelSignal
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Upload

__all__ = ["CheckCancelled", "CheckRunner", "Timings"]

_SMALL_BYTES = 256 * 1024
"""Below this, hashing the digests takes less time than handing them to another thread is worth."""

_STOPPABLE = frozenset({"image/jpeg", "image/png"})
"""Decoded piece by piece, so that a digest match can stop it. Of others the digests are waited for first."""

PLUGIN_VERDICT = "plugin_verdict"


class CheckCancelled(Exception):
    """The caller no longer wants the answer."""


class _Abandoned(Exception):
    """The digests have decided; decoding can stop."""


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

    def __init__(self, data: bytes | memoryview, decided: threading.Event, cancelled: Callable[[], bool]) -> None:
        self.data = data
        self._decided = decided
        self._cancelled = cancelled

    def check(self) -> None:
        """Raise when the answer is no longer needed."""
        if self._decided.is_set():
            raise _Abandoned
        if self._cancelled():
            raise CheckCancelled


@dataclass(slots=True)
class _DigestResult:
    hashes: tuple[Hash, ...]
    matches: list[Match]
    decides: bool
    stages: dict[str, float] = field(default_factory=dict)


class CheckRunner:
    """What every check of one Guard shares; holds no state between checks.

    ``digest_pool`` gives the executor for digests, or None where they should run in line.
    """

    def __init__(
        self,
        *,
        digest_signals: Sequence[DigestSignal],
        pixel_signals: Sequence[PixelSignal],
        decoders: Sequence[Decoder],
        options: DecodeOptions,
        media_limits: Limits,
        policy: Policy,
        plugins: Plugins,
        digest_pool: Callable[[], Executor | None],
    ) -> None:
        self._digest_signals = tuple(digest_signals)
        self._pixel_signals = tuple(pixel_signals)
        self._min_quality = {signal.name: signal.min_quality for signal in pixel_signals}
        self._decoders = tuple(decoders)
        self._options = options
        self._media_limits = media_limits
        self._policy = policy
        self._plugins = plugins
        self._digest_pool = digest_pool
        names = [signal.name for signal in (*digest_signals, *pixel_signals)]
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
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[Decision, list[PluginError]]:
        """Check one upload against one generation. Also returns the errors of plugins that were asked."""
        decided = threading.Event()
        task = self._start_digests(upload, context, generation, decided)
        timings.lap("digests" if task.done() else "dispatch")
        try:
            inspection = self._inspect(upload, _DecodeSource(upload.content or b"", decided, cancelled))
        except _Abandoned:
            inspection = None
        finally:
            digests = task.result()
        timings.lap("inspect")
        timings.stages.update(digests.stages)
        if inspection is None or digests.decides:
            inspection = Inspection(Media(upload.size_bytes), (), (), {})
            found: list[Match] = []
        else:
            timings.stages.update(inspection.timings_ms)
            usable = [h for h in inspection.hashes if (h.quality or 0) >= self._min_quality[h.signal_type]]
            found = generation.match(usable, self._limits(self._tenant(context)))
            timings.lap("match")
        decision, errors = self._decide(
            (*digests.hashes, *inspection.hashes),
            [*digests.matches, *found],
            inspection,
            tuple(
                Failure(FailureCode.SIGNAL_FAILED, f"{name} raised {error}")
                for name, error in upload.digest.failed.items()
            ),
            generation,
            context,
            timings,
        )
        return decision, errors

    def _tenant(self, context: Context) -> str | None:
        """The tenant if it has rules of its own: others share one cache entry."""
        return context.tenant if context.tenant in self._policy.tenants else None

    def _start_digests(
        self, upload: Upload, context: Context, generation: Generation, decided: threading.Event
    ) -> Future[_DigestResult]:
        pool = None
        if not upload.digested and upload.size_bytes > _SMALL_BYTES and upload.content is not None:
            stoppable = sniff(bytes(upload.content[:HEAD_BYTES])) in _STOPPABLE
            pool = self._digest_pool() if stoppable else None
        if pool is not None:
            return pool.submit(self._digests, upload, context, generation, decided)
        done: Future[_DigestResult] = Future()
        done.set_result(self._digests(upload, context, generation, decided))
        return done

    def _digests(
        self, upload: Upload, context: Context, generation: Generation, decided: threading.Event
    ) -> _DigestResult:
        started = time.perf_counter()
        if not upload.digested and upload.content is not None:
            upload.digest.update(upload.content)
        hashes = tuple(Hash(name, value) for name, value in upload.digest.digests())
        hashed = time.perf_counter()
        tenant = self._tenant(context)
        matches = generation.match(hashes, self._limits(tenant))
        decides = False
        if matches:
            outcome = decide(matches, (), self._policy, tenant=tenant)
            decides = outcome.verdict is Verdict.BLOCK or _cleared(outcome)
        if decides:
            decided.set()
        stages = {"digests": (hashed - started) * 1e3, "match_digests": (time.perf_counter() - hashed) * 1e3}
        return _DigestResult(hashes, matches, decides, stages)

    def _inspect(self, upload: Upload, source: _DecodeSource) -> Inspection:
        if upload.content is None:
            detail = f"{upload.size_bytes} bytes, over media.max_file_bytes; only its digests were looked up"
            failure = Failure(FailureCode.TOO_LARGE, detail)
            return Inspection(Media(upload.size_bytes), (), (failure,), {})
        source.check()
        return inspect_media(source, self._decoders, self._pixel_signals, self._options, self._media_limits)

    def _decide(
        self,
        hashes: tuple[Hash, ...],
        matches: list[Match],
        inspection: Inspection,
        digest_failures: tuple[Failure, ...],
        generation: Generation,
        context: Context,
        timings: Timings,
    ) -> tuple[Decision, list[PluginError]]:
        tenant = self._tenant(context)
        failures = (*digest_failures, *inspection.failures)

        def decision_of(outcome: Outcome, verdict: Verdict, reasons: tuple[str, ...]) -> Decision:
            return Decision(
                verdict=verdict,
                reasons=reasons,
                matches=outcome.matches,
                failures=failures,
                hashes=hashes,
                media=inspection.media,
                generation=generation.number,
                report_due=outcome.report_due,
                timings_ms=timings.finish(),
            )

        outcome = decide(matches, failures, self._policy, tenant=tenant)
        errors: list[PluginError] = []
        verdict, reasons = outcome.verdict, outcome.reasons
        if self._plugins.has("uploadguard_decide"):
            answers: dict[str, Verdict] = {}
            proposal = decision_of(outcome, verdict, reasons)
            for name, answer in self._plugins.call_each("uploadguard_decide", decision=proposal, context=context):
                if isinstance(answer, PluginError):
                    errors.append(answer)
                elif isinstance(answer, Verdict):
                    answers[name] = answer
                elif answer is not None:
                    errors.append(PluginError(name, f"uploadguard_decide gave a {type(answer).__name__}"))
            failures += tuple(Failure(FailureCode.PLUGIN_FAILED, str(error)) for error in errors)
            outcome = decide(matches, failures, self._policy, tenant=tenant)
            verdict, reasons = apply_answers(outcome.verdict, answers, self._policy), outcome.reasons
            if verdict is not outcome.verdict:
                reasons = (PLUGIN_VERDICT, *reasons)
        timings.lap("decide")
        return decision_of(outcome, verdict, reasons), errors


def _cleared(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.ALLOW and outcome.reasons == (ALLOW_LISTED,)
