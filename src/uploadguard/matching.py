"""Asking match services in a check: each on threads of its own, beside decoding, and none trusted to answer.

Whatever goes wrong with a matcher (it raises, it is late, it answers nonsense) is the failure ``matcher_failed`` of
that check, with the name of the matcher.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass, field
from typing import NamedTuple

from uploadguard.errors import MatcherError, PluginError
from uploadguard.matchers import Matcher, Query
from uploadguard.models import Context, Failure, FailureCode, Hash, Match, Media

__all__ = ["Asked", "Asking", "Matching", "ask"]

_LOOK_S = 0.05
"""How often a check that waits for an answer looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the matchers said. ``pending`` names those whose answer is to revise the decision later."""

    matches: tuple[Match, ...] = ()
    failures: tuple[Failure, ...] = ()
    pending: tuple[str, ...] = ()
    errors: tuple[PluginError, ...] = ()


class _Waiting(NamedTuple):
    matcher: Matcher
    future: Future[tuple[Match, ...]]
    until: float


class Matching:
    """The match services of one Guard, with the threads they are asked on. Survives ``fork``.

    ``waits``: for those, too, that answer later, since nobody will hear of that.
    """

    def __init__(self, matchers: Mapping[str, Matcher], signal_types: Sequence[str], *, waits: bool = False) -> None:
        self.matchers = dict(matchers)
        self.waits = waits
        self._missing = {
            name: sorted(matcher.signal_types.difference(signal_types)) for name, matcher in matchers.items()
        }
        self._making = threading.Lock()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self.matchers)

    def missing(self) -> Mapping[str, Sequence[str]]:
        """By matcher, the signal types that it goes by and that checks do not compute."""
        return {name: missing for name, missing in self._missing.items() if missing}

    def asking(self, context: Context, content: bytes | memoryview | None, *, only_hashes: bool = False) -> Asking:
        """One check's questions; with ``only_hashes``, none to those that must have the upload itself."""
        return Asking(self, context, content, only_hashes=only_hashes)

    def submit(self, matcher: Matcher, query: Query, until: float) -> Future[tuple[Match, ...]]:
        """Ask on a thread of the matcher's, of which it has as many as calls it takes at once."""
        with self._making:
            if self._closed:
                raise MatcherError("the Guard was closed")
            pool = self._pools.get(matcher.name)
            if pool is None:
                pool = ThreadPoolExecutor(matcher.max_calls, thread_name_prefix=f"uploadguard-{matcher.name}")
                self._pools[matcher.name] = pool
            return pool.submit(ask, matcher, query, until)

    def close(self) -> None:
        """Stop the threads, once what they have begun is over, and let go of the connections."""
        with self._making:
            self._closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        for matcher in self.matchers.values():
            matcher.close()

    def after_fork(self) -> None:
        """In a forked child: the parent's threads do not exist here."""
        self._making, self._pools = threading.Lock(), {}


class Asking:
    """The questions of one check: :meth:`begin` where hashes become known, then :meth:`answers`, or :meth:`abandon`."""

    def __init__(
        self, matching: Matching, context: Context, content: bytes | memoryview | None, *, only_hashes: bool = False
    ) -> None:
        self._matching = matching
        self._context = context
        self._content = content
        self._left = {
            name: matcher
            for name, matcher in matching.matchers.items()
            if not only_hashes or (matcher.signal_types and not matcher.takes_content)
        }
        self._waiting: list[_Waiting] = []
        self._found = _Found()

    def begin(self, hashes: Sequence[Hash], *, media: Media | None = None) -> None:
        """Ask those whose hashes are all known; with ``media``, when nothing more will be, all that are left."""
        if not self._left:
            return
        names = {item.signal_type for item in hashes}
        for name, matcher in list(self._left.items()):
            if media is None and not matcher.signal_types <= names:
                continue
            del self._left[name]
            self._ask(matcher, hashes, media)

    def answers(self, cancelled: Callable[[], bool] | None = None) -> Asked:
        """Wait for the answers, each until its matcher's deadline. What is no longer wanted is left unanswered."""
        for matcher, future, until in self._waiting:
            self._found.take(matcher, future, until, cancelled)
        self._waiting = []
        found = self._found
        return Asked(tuple(found.matches), tuple(found.failures), tuple(found.pending), tuple(found.errors))

    def abandon(self) -> None:
        """The answers are no longer wanted."""
        for waiting in self._waiting:
            waiting.future.cancel()

    def _ask(self, matcher: Matcher, hashes: Sequence[Hash], media: Media | None) -> None:
        query = Query(
            tuple(item for item in hashes if item.signal_type in matcher.signal_types),
            self._context,
            media,
            self._content if matcher.takes_content else None,
        )
        if not query.hashes and not matcher.takes_content:
            return  # what could not be hashed is a failure already
        try:
            if matcher.takes_content and query.content is None:
                raise MatcherError("the upload is larger than media.max_file_bytes")
            known = matcher.known(query)
            if known is not None:
                self._found.matches += _checked(matcher, known)
            elif matcher.prefetch and not self._matching.waits:
                self._found.pending.append(matcher.name)
            else:
                until = time.monotonic() + matcher.deadline_s
                self._waiting.append(_Waiting(matcher, self._matching.submit(matcher, query, until), until))
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not become the host's
            self._found.fail(matcher, error)


@dataclass(slots=True)
class _Found:
    matches: list[Match] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    errors: list[PluginError] = field(default_factory=list)

    def take(
        self,
        matcher: Matcher,
        future: Future[tuple[Match, ...]],
        until: float,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        while True:
            left_s = max(0.0, until - time.monotonic())
            try:
                self.matches += future.result(left_s if cancelled is None else min(left_s, _LOOK_S))
            except LateError as error:
                if future.done():
                    if future.cancelled() or future.exception() is not error:
                        continue  # the answer came at this very moment
                    self.fail(matcher, error)
                elif left_s <= 0 or (cancelled is not None and cancelled()):
                    future.cancel()
                    self.fail(matcher, MatcherError(f"it gave no answer within {matcher.deadline_s:g} s"))
                else:
                    continue
            except Exception as error:  # noqa: BLE001 - a plugin's fault must not become the host's
                self.fail(matcher, error)
            return

    def fail(self, matcher: Matcher, error: BaseException) -> None:
        if not isinstance(error, MatcherError):
            plugin_error = PluginError(matcher.name, f"its matcher raised {type(error).__name__}")
            plugin_error.__cause__ = error
            self.errors.append(plugin_error)
        self.failures.append(failure_of(matcher, error))


def failure_of(matcher: Matcher, error: BaseException) -> Failure:
    """What a matcher's error is in a decision."""
    detail = str(error) if isinstance(error, MatcherError) else f"it raised {type(error).__name__}"
    return Failure(FailureCode.MATCHER_FAILED, f"{matcher.name}: {detail}", matcher=matcher.name)


def ask(matcher: Matcher, query: Query, until: float) -> tuple[Match, ...]:
    """Ask one matcher. Raises what it raises, :class:`MatcherError` for an answer that is none."""
    if time.monotonic() >= until:
        raise MatcherError("too many checks were waiting for it")
    try:
        return _checked(matcher, matcher.match(query, until))
    except Exception:
        raise
    except BaseException as error:  # it must end neither the check nor the thread that asks for late answers
        raise MatcherError(f"it raised {type(error).__name__}") from error


def _checked(matcher: Matcher, answer: Sequence[Match]) -> tuple[Match, ...]:
    found = tuple(answer)
    for match in found:
        if not isinstance(match, Match) or match.list_name != matcher.name or match.allow:
            raise TypeError("a matcher must answer with matches of its own name, and none to allow by")
    return found
