"""The Guard: the one object a host holds. Checks uploads, synchronously and asynchronously, whole or as they arrive."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from uploadguard.alarms import Alarm
from uploadguard.breaker import Breaker
from uploadguard.check import CheckRunner
from uploadguard.check_decision import Decider
from uploadguard.check_order import CheckOrder, Timings
from uploadguard.config import Settings
from uploadguard.errors import NotReadyError, NotRecordedError, PluginError, UploadguardError
from uploadguard.freshness import Freshness
from uploadguard.guard_status import GuardStatus
from uploadguard.hashing import inspection_job, open_sandbox
from uploadguard.hashset import Generation, Segment, build_segment
from uploadguard.keeping import open_keeper, open_late
from uploadguard.logs import log
from uploadguard.matching import Matching
from uploadguard.models import Context, Decision, Failure, Hash, Match, Verdict
from uploadguard.opening import empty_text, hashset_keys, open_hashset
from uploadguard.plugins import Plugins
from uploadguard.policy import SignalDefaults
from uploadguard.provenance import provenance
from uploadguard.sandbox.inspector import SandboxStatus
from uploadguard.sandbox.lockdown import Layers
from uploadguard.serving import Served, Serving
from uploadguard.signals.base import DigestSignal, SignalType, lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.streaming import StreamingCheck
from uploadguard.testing import testlist
from uploadguard.threads import Call, Pools
from uploadguard.tripped import TrippedFile
from uploadguard.uploads import Data, Upload, UploadBuffer, read_upload

if TYPE_CHECKING:
    from uploadguard.ledger.codec import Recorded

__all__ = ["Guard", "GuardStatus", "StreamingCheck"]

_NO_CONTEXT = Context()
_NOT_ISOLATED = SandboxStatus("none", Layers(), None)
_DEFAULT_CONFIG = "uploadguard.toml"
_GUARDS: weakref.WeakSet[Guard] = weakref.WeakSet()
"""Those of this process, whose locks a forked child must renew: their holders do not exist in it."""


class Guard:
    """Checks uploads against the hash set. Open one for each process, at start-up, and share it between threads.

    Survives ``fork``: threads are started when they are first needed, in the process that needs them.
    """

    def __init__(self, settings: Settings, *, plugins: Mapping[str, object] | None = None, record: bool = True) -> None:
        self._settings = settings
        self._plugins = Plugins(settings, tuple((plugins or {}).items()))
        signals = self._plugins.enabled_signals()
        digest_signals = [signal for signal in signals if isinstance(signal, DigestSignal)]
        self._policy = settings.decision_policy(
            {
                signal.name: SignalDefaults(
                    signal.max_distance_bits, signal.length_bytes * 8, digest=isinstance(signal, DigestSignal)
                )
                for signal in signals
            },
            matchers=self._plugins.matchers.values(),
        )
        self._fail_open = self._policy.fail_open()
        job = inspection_job(settings, self._plugins)
        self._matching = _matching(settings, self._plugins, [signal.name for signal in signals], waits=not record)
        self._sandbox = open_sandbox(settings, job, self._plugins)
        self._pools = Pools(settings, self._sandbox)
        types = [signal.name for signal in (*digest_signals, *job.signals)]
        self._decider = Decider(self._policy, self._plugins, types)
        self._runner = CheckRunner(
            digest_signals=digest_signals,
            job=job,
            sandbox=self._sandbox,
            decider=self._decider,
            matching=self._matching,
            digest_pool=self._pools.digests,
        )
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._plugin_errors: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._closed = False
        hashset = settings.hashset
        self._breaker = Breaker(
            TrippedFile(hashset.path, hashset_keys(settings)),
            settings.safety,
            self._policy,
            refresh_s=hashset.refresh_s,
            counts=record,
            alarm=self._raise_alarm,
        )
        self._freshness = Freshness(warn_after_h=hashset.warn_after_h, stale_after_h=hashset.stale_after_h)
        self._serving = Serving(
            open_hashset(settings),
            verify=hashset.verify,
            refresh_s=hashset.refresh_s,
            built_in=(_test_segment(),) if hashset.test_list else (),
            signal_types={signal.name for signal in (*digest_signals, *job.signals)},
            changed=self._generation_changed,
        )
        self._keeper = None
        try:
            self._keeper = (
                open_keeper(settings, self._plugins, alarm=self._raise_alarm, changed=self.refresh) if record else None
            )
            self._late = (
                open_late(settings, self._matching, weakref.WeakMethod(self._revise))
                if self._keeper is not None
                else None
            )
        except UploadguardError:
            if self._keeper is not None:
                self._keeper.close()
            self._serving.close()
            if self._sandbox is not None:
                self._sandbox.close()
            raise
        _GUARDS.add(self)
        if self._fail_open:
            log.warning("fail-open settings let uploads through uninspected: %s", ", ".join(self._fail_open))
        held = {info.name for info in self._serving.loaded.generation.lists}
        known = held | self._plugins.matchers.keys() | {testlist.TEST_LIST_NAME}
        unknown = self._policy.list_names() - known
        if unknown:
            log.warning("policy rules name %d list(s) that the hash set does not hold", len(unknown))
        if not self._can_answer(self._serving.loaded):
            log.warning("%s; until then every check raises", empty_text(settings))
        try:
            if self._sandbox is not None and settings.sandbox.prewarm:
                self._sandbox.prewarm()
            for _, answer in self._plugins.call_each("uploadguard_startup", guard=self):
                if isinstance(answer, PluginError):
                    raise answer
        except UploadguardError:
            self.close()
            raise

    @classmethod
    def open(
        cls,
        config: str | os.PathLike[str] | None = None,
        *,
        hashset: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        plugins: Mapping[str, object] | None = None,
        record: bool = True,
        **overrides: Any,
    ) -> Self:
        """Open a Guard.

        ``config`` is a TOML file. Without it the environment variable ``UPLOADGUARD_CONFIG`` may name one; and with
        neither, and no ``hashset``, it is ``uploadguard.toml`` in the working directory if that exists, as on the
        command line. ``hashset`` is the hash set's directory, or that table's settings. ``plugins`` are plugin objects
        by name, beside those that the configuration names. ``record`` is False for trying things out: nothing is kept
        in the ledger that the configuration names. Further keywords override settings:
        ``media={"max_pixels": 10_000_000}``.

        Raises :class:`~uploadguard.errors.ConfigError`, :class:`~uploadguard.errors.HashSetError`,
        :class:`~uploadguard.errors.LedgerError`, :class:`~uploadguard.errors.PluginError`, or
        :class:`~uploadguard.errors.SandboxError` where uploads cannot be isolated as ``sandbox.isolation`` asks for.
        """
        if isinstance(hashset, Mapping):
            overrides["hashset"] = hashset
        elif hashset is not None:
            overrides["hashset"] = {"path": Path(hashset)}
        elif config is None and not os.environ.get("UPLOADGUARD_CONFIG") and Path(_DEFAULT_CONFIG).is_file():
            config = _DEFAULT_CONFIG
        return cls(Settings.load(config, **overrides), plugins=plugins, record=record)

    @property
    def ready(self) -> bool:
        """Whether checks can answer: a hash set with entries is loaded, or the configuration allows an empty one; and
        decisions can be kept, where they are."""
        refusing = self._keeper is not None and self._keeper.refusing
        return not self._closed and not refusing and self._can_answer(self._serving.current())

    @property
    def max_at_once(self) -> int | None:
        """How many checks there can be, at work or waiting for a worker; those beyond are not decoded (``overloaded``).

        None where uploads are decoded in this process: nothing waits then. For adapters, which refuse an upload before
        they read its body.
        """
        return self._sandbox.max_at_once if self._sandbox is not None else None

    @property
    def settings(self) -> Settings:
        """The settings this Guard was opened with."""
        return self._settings

    @property
    def plugins(self) -> Plugins:
        """The plugins that this Guard works with, the built-in ones among them."""
        return self._plugins

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """All registered signal types by name, enabled or not."""
        return self._plugins.signal_types

    def check(self, data: Data, *, context: Context | None = None) -> Decision:
        """Check one upload: bytes, a path, or a binary file object (read from where it stands, and put back there).

        Raises :class:`~uploadguard.errors.NotReadyError` while there is nothing to check against,
        :class:`~uploadguard.errors.NotRecordedError` while decisions cannot be kept (refuse uploads: 503), and
        :class:`~uploadguard.errors.MediaReadError` if the bytes cannot be read. Whatever is wrong with the media
        itself is in the decision.
        """
        return self._check(data, _context_of(context))

    async def acheck(self, data: Data, *, context: Context | None = None) -> Decision:
        """:meth:`check` on a thread of the Guard's, so that the event loop goes on. Cancelling it stops the work."""
        return await self._on_thread(functools.partial(self._check, data, _context_of(context)))

    def check_hashes(self, hashes: Sequence[Hash], *, context: Context | None = None) -> Decision:
        """Check an upload that is not here by hashes that the host has of it: of signal types in ``signals.enabled``.

        Its decision has the failure ``content_unseen``: nothing of the file was inspected, whatever matched or did
        not. A perceptual hash needs its ``quality``; only the variants that are given are looked up. Raises
        ``ValueError`` for a hash that cannot be used, and otherwise as :meth:`check` does.
        """
        if not hashes:
            raise ValueError("no hash to look up")
        chosen = _context_of(context)
        generation = self._generation()
        timings = Timings()
        order = self._order(Call(time.monotonic()), 0.0)
        decision, errors = self._runner.run_hashes(hashes, chosen, generation, timings, order)
        return self._keep(decision, errors, chosen, None, timings)

    def inspect(self, context: Context | None = None) -> StreamingCheck:
        """A check of an upload that is still arriving: its digests are computed as the bytes come in."""
        self._generation()
        buffer = UploadBuffer(self._runner.new_digest(), self._settings.media.max_file_bytes)
        return StreamingCheck(buffer, functools.partial(self._finish, _context_of(context)), self._on_thread)

    def refresh(self) -> bool:
        """Look for a new generation of the hash set now, and at which lists are tripped. Returns whether one took
        over."""
        self._breaker.refresh()
        return self._serving.refresh()

    def status(self) -> GuardStatus:
        """How this Guard is doing."""
        served = self._serving.current()
        error = self._serving.last_error
        ledger = self._keeper.status() if self._keeper is not None else None
        deny_lists = [info.name for info in served.generation.lists if info.role == "deny"]
        tripped = self._breaker.among((*deny_lists, *self._plugins.matchers))
        late = None
        if self._late is not None:
            with suppress(NotRecordedError):
                late = self._late.waiting()
        with self._counting:
            return GuardStatus(
                ready=self.ready,
                generation=served.generation.number,
                entries=served.entries,
                checks=dict(self._counts),
                failures=dict(self._failures),
                plugin_errors=dict(self._plugin_errors),
                fail_open=self._fail_open,
                refresh_error=str(error) if error is not None else None,
                updated_at=served.updated_at,
                oldest_at=served.oldest_at,
                stale=self._freshness.is_stale(served.updated_at),
                sandbox=self._sandbox.status() if self._sandbox is not None else _NOT_ISOLATED,
                ledger=ledger,
                tripped=tripped,
                breaker_error=self._breaker.error,
                late=late,
            )

    def prewarm(self) -> SandboxStatus:
        """Start a worker process, unless there is one, and wait until it is ready; returns what is then in force.

        For once after a fork, or before the first of many checks. Does nothing where uploads are decoded in this
        process. Raises :class:`~uploadguard.errors.SandboxError`.
        """
        if self._sandbox is None:
            return _NOT_ISOLATED
        self._sandbox.prewarm()
        return self._sandbox.status()

    def explain(self, decision: Decision) -> str:
        """The decision in words, for the operator's log. Names lists and entries: never show it to the uploader."""
        lines = [f"{decision.reference}: {decision.verdict.label}, generation {decision.generation}"]
        if decision.reasons:
            lines.append(f"  because: {', '.join(decision.reasons)}")
        if decision.report_due:
            lines.append("  a report is due")
        if decision.shadow is not None:
            lines.append(f"  {decision.shadow.label} but for shadow mode")
        for match in decision.matches:
            kind = "allow-list" if match.allow else "list"
            where = f"frame {match.frame}, {match.variant}" if not match.exact else "the file's own bytes"
            category = f", category {match.category!r}" if match.category else ""
            lines.append(
                f"  {match.signal_type} match in {kind} {match.list_name!r}, entry {match.entry_id!r}{category}: "
                f"{match.distance_bits} bits apart ({where})"
            )
            if known := provenance(match):
                lines.append(f"    {'; '.join(f'{what} {said}' for what, said in known)}")
        lines.extend(f"  {failure.code.value}: {failure.detail}" for failure in decision.failures)
        media = decision.media
        if media.media_type is not None:
            lines.append(
                f"  {media.media_type}, {media.width}x{media.height}, {media.size_bytes} bytes, "
                f"{media.frames_hashed} of {media.frames_total} frames hashed"
            )
        return "\n".join(lines)

    def close(self) -> None:
        """Tell the plugins, stop the threads and let go of the hash set. Checks raise from now on."""
        if self._closed:
            return
        self._closed = True
        for _, answer in self._plugins.call_each("uploadguard_shutdown", guard=self):
            self._count_plugin_error(answer)
        self._pools.close()
        if self._late is not None:
            self._late.close()
        self._matching.close()
        if self._sandbox is not None:
            self._sandbox.close()
        if self._keeper is not None:
            self._keeper.close()
        self._serving.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        self._counting = threading.Lock()
        self._breaker.after_fork()
        self._serving.after_fork()
        self._pools.after_fork()
        self._matching.after_fork()
        if self._late is not None:
            self._late.after_fork()
        if self._keeper is not None:
            self._keeper.after_fork()

    async def _on_thread(self, work: Callable[[Call], Decision]) -> Decision:
        """Run a check on a thread of the Guard's; cancelling the waiting task stops the work."""
        self._raise_closed()
        cancelled = threading.Event()
        with self._pools.room() as has_room:
            executor = self._pools.checks() if has_room else self._pools.shed()
            call = Call(time.monotonic(), cancelled.is_set, overloaded=not has_room)
            run = contextvars.copy_context().run  # so that a trace goes on
            try:
                return await asyncio.get_running_loop().run_in_executor(executor, run, work, call)
            except asyncio.CancelledError:
                cancelled.set()
                task = asyncio.current_task()
                if self._closed and (task is None or not task.cancelling()):
                    raise NotReadyError("the Guard was closed before the check began") from None
                raise

    def _can_answer(self, served: Served) -> bool:
        return served.entries > 0 or self._settings.hashset.allow_empty

    def _raise_closed(self) -> None:
        if self._closed:
            raise NotReadyError("the Guard is closed")

    def _generation(self) -> Generation:
        self._raise_closed()
        served = self._serving.current()
        if not self._can_answer(served):
            raise NotReadyError(empty_text(self._settings))
        if self._keeper is not None:
            self._keeper.require()
        if self._late is not None:
            self._late.start()
        return served.generation

    def _check(self, data: Data, context: Context, call: Call | None = None) -> Decision:
        call = call or Call(time.monotonic())
        generation = self._generation()
        timings = Timings()
        reading = time.monotonic()
        upload = read_upload(data, self._runner.new_digest(), self._settings.media.max_file_bytes)
        timings.lap("read")
        order = self._order(call, time.monotonic() - reading)
        return self._conclude(upload, context, generation, timings, order)

    def _finish(self, context: Context, buffer: UploadBuffer, call: Call | None = None) -> Decision:
        order = self._order(call or Call(time.monotonic()), 0.0)
        generation = self._generation()
        return self._conclude(buffer.finish(), context, generation, Timings(), order)

    def _conclude(
        self, upload: Upload, context: Context, generation: Generation, timings: Timings, order: CheckOrder
    ) -> Decision:
        """Decide, keep the decision, and only then tell of it."""
        decision, errors = self._runner.run(upload, context, generation, timings, order)
        return self._keep(decision, errors, context, upload.content, timings)

    def _keep(
        self,
        decision: Decision,
        errors: list[PluginError],
        context: Context,
        content: bytes | memoryview | None,
        timings: Timings,
    ) -> Decision:
        if self._keeper is not None:
            self._keeper.keep(decision, context, content)
            if decision.pending and self._late is not None:
                self._late.add(decision, context)
            timings.lap("record")
            decision = replace(decision, timings_ms=timings.finish())
        return self._announce(decision, errors, context)

    def _revise(
        self, earlier: Recorded, matches: Sequence[Match], failures: Sequence[Failure], reference: str
    ) -> Decision | None:
        """Keep the decision that a late answer makes of an earlier one, and tell of it; None where it is the same."""
        assert self._keeper is not None
        context = earlier.context
        decision = self._decider.revise(
            earlier.decision, context, matches, failures, reference, tripped=self._breaker.tripped()
        )
        if decision is None:
            return None
        self._keeper.keep(decision, context, None)
        self._breaker.count(decision)
        with self._counting:
            self._failures.update({failure.code.value for failure in failures})
        if decision.verdict is Verdict.ALLOW:  # nobody has anything to stop: only a rule in shadow was changed
            return decision
        for _, answer in self._plugins.call_each("uploadguard_decision_revised", decision=decision, context=context):
            self._count_plugin_error(answer)
        return decision

    def _order(self, call: Call, read_s: float) -> CheckOrder:
        """A check's time runs from the call, without the reading of its upload."""
        until = call.called + read_s + self._settings.sandbox.deadline_s
        stale = self._freshness.judge(self._serving.loaded.updated_at)
        return CheckOrder(until, call.cancelled, call.overloaded, stale, self._breaker.tripped())

    def _announce(self, decision: Decision, errors: list[PluginError], context: Context) -> Decision:
        """Count the decision and tell the observers."""
        self._breaker.count(decision)
        with self._counting:
            self._counts[decision.verdict.label] += 1
            self._failures.update({failure.code.value for failure in decision.failures})
        for error in errors:
            self._count_plugin_error(error)
        if self._plugins.has("uploadguard_decision_made"):
            for _, answer in self._plugins.call_each("uploadguard_decision_made", decision=decision, context=context):
                self._count_plugin_error(answer)
        return decision

    def _count_plugin_error(self, answer: object) -> None:
        if isinstance(answer, PluginError):
            log.error("%s", answer)
            with self._counting:
                self._plugin_errors[answer.plugin] += 1

    def _raise_alarm(self, alarm: Alarm) -> None:
        for error in self._plugins.raise_alarm(alarm):
            self._count_plugin_error(error)

    def _generation_changed(self, number: int) -> None:
        for _, answer in self._plugins.call_each("uploadguard_generation_changed", generation=number):
            self._count_plugin_error(answer)


def _context_of(context: Context | None) -> Context:
    if context is None:
        return _NO_CONTEXT
    if not isinstance(context, Context):
        raise TypeError(f"context must be an uploadguard.Context, not {type(context).__name__}")
    return context


def _matching(settings: Settings, plugins: Plugins, signal_types: Sequence[str], *, waits: bool) -> Matching:
    """The match services. Raises :class:`~uploadguard.errors.ConfigError` for one that could never be asked rightly."""
    matching = Matching(plugins.matchers, signal_types, waits=waits)
    problems = [
        (("matchers", name), f"goes by {', '.join(missing)}, which must be in signals.enabled")
        for name, missing in matching.missing().items()
    ]
    late = [matcher for matcher in matching.matchers.values() if matcher.prefetch]
    if late and not settings.ledger.path:
        problems += [(("matchers", one.name), "answers later, which needs a ledger: set ledger.path") for one in late]
    problems += [
        (("matchers", one.name), "takes the upload itself, which is no longer there when it is to answer later")
        for one in late
        if one.takes_content
    ]
    if problems:
        raise settings.error(problems)
    return matching


def _test_segment() -> Segment:
    """The built-in test list, compiled in memory."""
    kinds = lookup_kinds((*DIGESTS, Pdq()))
    data = build_segment(testlist.entries(), kinds, list_name=testlist.TEST_LIST_NAME, source="built-in")
    return Segment.from_buffer(data)


def _renew_after_fork() -> None:
    for guard in tuple(_GUARDS):
        guard._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
