"""One check, stage by stage: digests, inspection, match, decide. A Guard holds what a check needs and runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from uploadguard.check_decision import Decider
from uploadguard.check_inspection import UploadInspector
from uploadguard.check_order import Check, CheckCancelled, CheckOrder, Timings
from uploadguard.errors import PluginError
from uploadguard.hashset import Generation
from uploadguard.matching import Asked, Matching
from uploadguard.media.inspect import Inspection
from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media
from uploadguard.sandbox.inspector import SandboxedInspector
from uploadguard.sandbox.parts import Job
from uploadguard.signals.base import DigestSignal
from uploadguard.signals.digests import MultiDigest
from uploadguard.uploads import Upload

__all__ = ["CheckRunner"]

_UNDIGESTED = "its digests could not be computed within sandbox.deadline_s"


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
        decider: Decider,
        matching: Matching,
        digest_pool: Callable[[], Executor | None],
    ) -> None:
        self._digest_signals = tuple(digest_signals)
        self._lengths = {signal.name: signal.length_bytes for signal in (*digest_signals, *job.signals)}
        self._min_quality = {signal.name: signal.min_quality for signal in job.signals}
        self._isolates = sandbox is not None
        self._inspector = UploadInspector(job, sandbox, decider, digest_pool)
        self._decider = decider
        self._matching = matching

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
        check = Check(context, generation, order, timings)
        isolated = self._isolates and upload.content and not order.overloaded
        inspect = self._inspector.inspect_isolated if isolated else self._inspector.inspect_in_line
        asking = self._matching.asking(context, upload.content)
        asked = Asked()
        try:
            digested, inspection = inspect(upload, check, asking)
        except BaseException:
            asking.abandon()
            raise
        timings.lap("inspect")
        timings.stages.update(digested.stages)
        if inspection is None or digested.decides:
            asking.abandon()
            inspection = Inspection(Media(upload.size_bytes), (), (), {})
            found: list[Match] = []
        else:
            timings.stages.update(inspection.timings_ms)
            usable = [h for h in inspection.hashes if (h.quality or 0) >= self._min_quality[h.signal_type]]
            asking.begin((*digested.hashes, *usable), media=inspection.media)
            found = generation.match(usable, self._decider.limits(context))
            timings.lap("match")
            if self._matching:
                asked = asking.answers(order.cancelled)
                timings.lap("matchers")
                if order.cancelled is not None and order.cancelled():
                    raise CheckCancelled
        failures = [
            Failure(FailureCode.SIGNAL_FAILED, f"{name} raised {error}") for name, error in upload.digest.failed.items()
        ]
        if digested.late:
            failures.insert(0, Failure(FailureCode.TIMEOUT, _UNDIGESTED))
        hashes = (*digested.hashes, *inspection.hashes)
        return self._decider.decide(check, hashes, (*digested.matches, *found), failures, inspection, asked)

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
        found = generation.match(usable, self._decider.limits(context))
        timings.lap("match")
        asked = asking.answers()
        if self._matching:
            timings.lap("matchers")
        failures = [Failure(FailureCode.CONTENT_UNSEEN, "only hashes that the host sent were looked up")]
        if len(usable) < len(hashes):
            failures.append(Failure(FailureCode.LOW_QUALITY, "a hash of too low quality was not looked up"))
        check = Check(context, generation, order, timings)
        return self._decider.decide(check, tuple(hashes), found, failures, Inspection(Media(0), (), (), {}), asked)

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
