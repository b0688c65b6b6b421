"""The part of a matcher that is the same for every service over HTTP.

One question is one request, and only an answer with status 200 that is there in full is read at all. Whatever else
happens is a :class:`~uploadguard.remote.breaker.ServiceFailure`, in words that quote neither question nor answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

from uploadguard.destinations.http import Answer, HttpClient, error_of, retry_after_s
from uploadguard.destinations.options import Secret
from uploadguard.errors import MatcherError, PostponedError
from uploadguard.forks import renew_after_fork
from uploadguard.models import Verdict
from uploadguard.remote.breaker import CircuitBreaker, ServiceFailure
from uploadguard.remote.cache import AnswerCache
from uploadguard.remote.options import RemoteOptions

__all__ = ["RemoteMatcher"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_ABOUT_THIS_QUESTION = frozenset({400, 413, 415, 422})
_CREDENTIALS = frozenset({401, 403})
_FAIR_SHARE = 0.25


class RemoteMatcher(Generic[K, V]):
    """A :class:`~uploadguard.matchers.Matcher` but for ``known`` and ``match``, which derived classes add.

    They ask with :meth:`_ask` and keep answers in ``_cache``. Thread-safe; a forked child begins with connections,
    breaker and cache of its own. Raises :class:`~uploadguard.errors.ConfigError` if httpx is not installed.
    """

    def __init__(
        self,
        name: str,
        options: RemoteOptions,
        *,
        signal_types: frozenset[str],
        takes_content: bool = False,
        max_answer_bytes: int = 4096,
    ) -> None:
        self._name = name
        self._options = options
        self._signal_types = signal_types
        self._takes_content = takes_content
        self._on_failure = Verdict.from_label(options.on_failure)
        self._password = Secret(options.password_env, options.password_file)
        self._client = HttpClient(
            connect_s=options.deadline_s,
            max_answer_bytes=max_answer_bytes,
            keep=options.max_calls,
        )
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    @property
    def name(self) -> str:
        """The name of its table, and of the list in its matches."""
        return self._name

    @property
    def signal_types(self) -> frozenset[str]:
        """The hashes it goes by."""
        return self._signal_types

    @property
    def takes_content(self) -> bool:
        """Whether it sends the upload itself."""
        return self._takes_content

    @property
    def deadline_s(self) -> float:
        """How long a check waits for it, in seconds."""
        return self._options.deadline_s

    @property
    def max_calls(self) -> int:
        """How many checks may ask it at once."""
        return self._options.max_calls

    @property
    def on_failure(self) -> Verdict:
        """The verdict where it gave no answer; never ALLOW."""
        return self._on_failure

    @property
    def prefetch(self) -> bool:
        """Whether checks do not wait for it."""
        return self._options.mode == "prefetch"

    @property
    def retry_s(self) -> float:
        """With ``prefetch``: for how long it is asked again where it fails."""
        return self._options.retry_s

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def after_fork(self) -> None:
        """In a forked child: begin anew, since a thread of the parent's may have been in the midst of anything."""
        options = self._options
        self._places = threading.BoundedSemaphore(options.max_calls)
        self._breaker = CircuitBreaker(options.kind, failures=options.breaker_failures, pause_s=options.breaker_pause_s)
        self._cache: AnswerCache[K, V] = AnswerCache(
            entries=options.cache_entries, found_s=options.cache_matches_s, not_found_s=options.cache_others_s
        )

    def _ask(
        self,
        path: str,
        question: bytes,
        until: float,
        read: Callable[[bytes], T],
        *,
        headers: Mapping[str, str],
    ) -> T:
        """Post a question, and read the answer; ``read`` raises ``ValueError`` for what is none.

        The text of that error says what is wrong with the answer, beginning with a verb, without quoting from it.
        Raises :class:`~uploadguard.errors.MatcherError`, when the clock reaches ``until`` at the latest.
        """
        with self._place(until), self._breaker.attempt():
            answer = self._send(path, question, until, headers)
            problem = _problem_of(answer)
            if problem is not None:
                raise problem
            try:
                return read(answer.whole_body())
            except PostponedError as error:
                raise ServiceFailure(error.reason) from None
            except ValueError as error:
                raise ServiceFailure(f"its answer {error}") from None

    def _send(self, path: str, question: bytes, until: float, headers: Mapping[str, str]) -> Answer:
        try:
            basic = self._options.username, self._password.text()
        except PostponedError as error:
            raise ServiceFailure(error.reason, opens=True) from None
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise ServiceFailure("there was no time left to ask it", counts=False)
        try:
            return self._client.send(
                "POST", self._options.base_url + path, content=question, headers=headers, basic=basic, total_s=left_s
            )
        except PostponedError as error:
            # If all the time went by in our own queue, it is not to blame.
            fair = left_s >= self.deadline_s * _FAIR_SHARE
            raise ServiceFailure(error.reason, counts=fair or error.outage) from None

    @contextmanager
    def _place(self, until: float) -> Iterator[None]:
        places = self._places
        if not places.acquire(timeout=max(0.0, until - time.monotonic())):
            raise MatcherError("too many questions were waiting for it")
        try:
            yield
        finally:
            places.release()


def _problem_of(answer: Answer) -> ServiceFailure | None:
    status = answer.status
    if status in _CREDENTIALS:
        text = f"it does not accept the user name and password ({status}): until these are mended it answers nothing"
        return ServiceFailure(text, opens=True)
    if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return ServiceFailure("its answer is packed, which was not asked for")
    if status == 200:
        return None
    error = error_of(answer)
    text = str(error) if error is not None else f"it answered {status}, which is no answer to the question"
    pause_s = retry_after_s(answer.headers)
    return ServiceFailure(
        text,
        counts=status not in _ABOUT_THIS_QUESTION,
        opens=status == 429 or (status == 503 and pause_s is not None),
        pause_s=pause_s,
    )
