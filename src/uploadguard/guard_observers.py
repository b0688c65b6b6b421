"""What a Guard counts, and whom it tells of what happens: the plugins that observe."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from uploadguard.alarms import Alarm
from uploadguard.errors import PluginError
from uploadguard.logs import log
from uploadguard.models import Context, Decision, Failure, Verdict
from uploadguard.plugins import Plugins

__all__ = ["Counts", "Observers"]


class Counts:
    """Decisions by verdict label, failures by code, errors by plugin. Shared between threads; survives ``fork``.

    Whoever enters it sees all counts as they are at one moment.
    """

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.plugin_errors: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def count_decision(self, decision: Decision) -> None:
        """Count a decision, and each kind of failure in it once."""
        with self._lock:
            self.verdicts[decision.verdict.label] += 1
            self.failures.update({failure.code.value for failure in decision.failures})

    def count_failures(self, failures: Sequence[Failure]) -> None:
        """Count failures that came after their decision, each kind once."""
        with self._lock:
            self.failures.update({failure.code.value for failure in failures})

    def count_plugin_error(self, error: PluginError) -> None:
        """Count an error by the plugin that raised it."""
        with self._lock:
            self.plugin_errors[error.plugin] += 1

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock in the parent does not exist here."""
        self._lock = threading.Lock()


class Observers:
    """Tells the plugins; logs and counts what they raise."""

    def __init__(self, plugins: Plugins, counts: Counts) -> None:
        self._plugins = plugins
        self._counts = counts

    def decided(self, decision: Decision, errors: Sequence[PluginError], context: Context) -> None:
        """A decision was made; ``errors`` are those of the plugins that were asked for it."""
        self._counts.count_decision(decision)
        for error in errors:
            self._note(error)
        if self._plugins.has("uploadguard_decision_made"):
            self._tell("uploadguard_decision_made", decision=decision, context=context)

    def revised(self, decision: Decision, failures: Sequence[Failure], context: Context) -> None:
        """A late answer made a decision in an earlier one's place; ``failures`` are those that came with it."""
        self._counts.count_failures(failures)
        if decision.verdict is not Verdict.ALLOW:  # else nobody has anything to stop: only a rule in shadow was changed
            self._tell("uploadguard_decision_revised", decision=decision, context=context)

    def alarm(self, alarm: Alarm) -> None:
        """Something needs a person."""
        for error in self._plugins.raise_alarm(alarm):
            self._note(error)

    def generation_changed(self, number: int) -> None:
        """Another generation of the hash set serves."""
        self._tell("uploadguard_generation_changed", generation=number)

    def shutdown(self, guard: object) -> None:
        """The Guard is being closed."""
        self._tell("uploadguard_shutdown", guard=guard)

    def _tell(self, hook: str, **arguments: object) -> None:
        for _, answer in self._plugins.call_each(hook, **arguments):
            if isinstance(answer, PluginError):
                self._note(answer)

    def _note(self, error: PluginError) -> None:
        log.error("%s", error)
        self._counts.count_plugin_error(error)
