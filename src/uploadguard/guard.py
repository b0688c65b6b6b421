"""The Guard: the one object a host holds. Checks uploads, synchronously and asynchronously, whole or as they arrive."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from uploadguard.check import CheckRunner
from uploadguard.check_decision import Decider
from uploadguard.check_order import CheckOrder, Timings
from uploadguard.config import Settings
from uploadguard.errors import NotReadyError, NotRecordedError, PluginError, UploadguardError
from uploadguard.explanation import explain
from uploadguard.forks import renew_after_fork
from uploadguard.freshness import Freshness
from uploadguard.guard_observers import Counts, Observers
from uploadguard.guard_parts import decision_policy, open_breaker, open_matching, open_serving, warn_of_policy
from uploadguard.guard_status import GuardStatus
from uploadguard.hashing import inspection_job, open_sandbox
from uploadguard.hashset import Generation
from uploadguard.keeping import Keeper, open_keeper, open_late
from uploadguard.logs import log
from uploadguard.models import Context, Decision, Failure, Hash, Match
from uploadguard.opening import empty_text
from uploadguard.plugins import Plugins
from uploadguard.sandbox.inspector import SandboxStatus
from uploadguard.sandbox.lockdown import Layers
from uploadguard.serving import Served
from uploadguard.signals.base import DigestSignal, SignalType
from uploadguard.streaming import StreamingCheck
from uploadguard.threads import Call, Pools
from uploadguard.uploads import Data, UploadBuffer, read_upload

if TYPE_CHECKING:
    from uploadguard.late import LateChecks
    from uploadguard.ledger.codec import Recorded

__all__ = ["Guard", "GuardStatus", "StreamingCheck"]

_NO_CONTEXT = Context()
_NOT_ISOLATED = SandboxStatus("none", Layers(), None)
_DEFAULT_CONFIG = "uploadguard.toml"


class Guard:
    """Checks uploads against the hash set. Open one for each process, at start-up, and share it between threads.

    Survives ``fork``: threads are started when they are first needed, in the process that needs them.
    """

    def __init__(self, settings: Settings, *, plugins: Mapping[str, object] | None = None, record: bool = True) -> None:
        self._settings = settings
        self._plugins = Plugins(settings, tuple((plugins or {}).items()))
        self._counting = Counts()
        self._observers = Observers(self._plugins, self._counting)
        self._closed = False
        signals = self._plugins.enabled_signals()
        policy = decision_policy(settings, self._plugins, signals)
        self._fail_open = policy.fail_open()
        job = inspection_job(settings, self._plugins)
        digest_signals = [signal for signal in signals if isinstance(signal, DigestSignal)]
        used = [signal.name for signal in (*digest_signals, *job.signals)]
        self._matching = open_matching(settings, self._plugins, signals, waits=not record)
        self._sandbox = open_sandbox(settings, job, self._plugins)
        self._pools = Pools(settings, self._sandbox)
        self._decider = Decider(policy, self._plugins, used)
        self._runner = CheckRunner(
            digest_signals=digest_signals,
            job=job,
            sandbox=self._sandbox,
            decider=self._decider,
            matching=self._matching,
            digest_pool=self._pools.digests,
        )
        self._breaker = open_breaker(settings, policy, counts=record, alarm=self._observers.alarm)
        hashset = settings.hashset
        self._freshness = Freshness(warn_after_h=hashset.warn_after_h, stale_after_h=hashset.stale_after_h)
        self._serving = open_serving(settings, used, changed=self._observers.generation_changed)
        self._keeper: Keeper | None = None
        self._late: LateChecks | None = None
        try:
            if record:
                self._keeper = open_keeper(settings, self._plugins, alarm=self._observers.alarm, changed=self.refresh)
            if self._keeper is not None:
                self._late = open_late(settings, self._matching, weakref.WeakMethod(self._revise))
        except UploadguardError:
            if self._keeper is not None:
                self._keeper.close()
            self._serving.close()
            if self._sandbox is not None:
                self._sandbox.close()
            raise
        parts = (self._counting, self._breaker, self._serving, self._pools, self._matching, self._late, self._keeper)
        for part in parts:
            if part is not None:
                renew_after_fork(part)
        warn_of_policy(policy, self._plugins, self._serving.loaded.generation)
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
        with self._counting as counts:
            return GuardStatus(
                ready=self.ready,
                generation=served.generation.number,
                entries=served.entries,
                checks=dict(counts.verdicts),
                failures=dict(counts.failures),
                plugin_errors=dict(counts.plugin_errors),
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
        return explain(decision)

    def close(self) -> None:
        """Tell the plugins, stop the threads and let go of the hash set. Checks raise from now on."""
        if self._closed:
            return
        self._closed = True
        self._observers.shutdown(self)
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
        decision, errors = self._runner.run(upload, context, generation, timings, order)
        return self._keep(decision, errors, context, upload.content, timings)

    def _finish(self, context: Context, buffer: UploadBuffer, call: Call | None = None) -> Decision:
        order = self._order(call or Call(time.monotonic()), 0.0)
        generation = self._generation()
        upload, timings = buffer.finish(), Timings()
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
        """Keep the decision, and only then tell of it."""
        if self._keeper is not None:
            self._keeper.keep(decision, context, content)
            if decision.pending and self._late is not None:
                self._late.add(decision, context)
            timings.lap("record")
            decision = replace(decision, timings_ms=timings.finish())
        self._breaker.count(decision)
        self._observers.decided(decision, errors, context)
        return decision

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
        self._observers.revised(decision, failures, context)
        return decision

    def _order(self, call: Call, read_s: float) -> CheckOrder:
        """A check's time runs from the call, without the reading of its upload."""
        until = call.called + read_s + self._settings.sandbox.deadline_s
        stale = self._freshness.judge(self._serving.loaded.updated_at)
        return CheckOrder(until, call.cancelled, call.overloaded, stale, self._breaker.tripped())


def _context_of(context: Context | None) -> Context:
    if context is None:
        return _NO_CONTEXT
    if not isinstance(context, Context):
        raise TypeError(f"context must be an uploadguard.Context, not {type(context).__name__}")
    return context
