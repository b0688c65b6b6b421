"""Match services: what is asked beside the local hash set, each with its own deadline and its own failure rule.

A :class:`Matcher` is an object that a plugin hands over through ``uploadguard_matchers``. It is asked on a thread of
the Guard's, while the upload is decoded, as soon as the hashes it goes by are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from uploadguard.models import Context, Hash, Match, Media, Verdict

__all__ = ["Matcher", "Query"]


@dataclass(frozen=True, slots=True)
class Query:
    """What a matcher is asked: the hashes of its signal types, and the upload where it takes it.

    ``media`` is None where the upload is not decoded yet. ``content`` is None for a matcher that does not take it, for
    an upload over ``media.max_file_bytes``, and in a check that is completed later.
    """

    hashes: tuple[Hash, ...]
    context: Context
    media: Media | None = None
    content: bytes | memoryview | None = None

    def __repr__(self) -> str:
        return f"Query(<{len(self.hashes)} hashes>)"


@runtime_checkable
class Matcher(Protocol):
    """One match service. Its methods are called from several threads at once, and on both sides of a fork."""

    @property
    def name(self) -> str:
        """The name of its table, and of the list in its matches: rules of ``policy.lists`` go by it."""
        ...

    @property
    def signal_types(self) -> frozenset[str]:
        """The hashes it goes by. It is asked once all of them are known; with perceptual ones, after decoding."""
        ...

    @property
    def takes_content(self) -> bool:
        """Whether it sends the upload itself."""
        ...

    @property
    def deadline_s(self) -> float:
        """How long a check waits for it, from when it is asked, in seconds."""
        ...

    @property
    def max_calls(self) -> int:
        """How many checks may ask it at once; the others wait, within their deadlines."""
        ...

    @property
    def on_failure(self) -> Verdict | None:
        """The verdict where it gave no answer; None is what ``policy.failures.matcher_failed`` says."""
        ...

    @property
    def prefetch(self) -> bool:
        """Whether checks do not wait for it: the answer revises the decision when it comes. Needs a ledger."""
        ...

    @property
    def retry_s(self) -> float:
        """With ``prefetch``: for how long it is asked again where it fails, before that counts as its failure."""
        ...

    def known(self, query: Query) -> Sequence[Match] | None:
        """The answer, if it is at hand without I/O; None where it is not. Called in the check: microseconds."""
        ...

    def match(self, query: Query, until: float) -> Sequence[Match]:
        """Ask. Gives up when the clock (:func:`time.monotonic`) reaches ``until``.

        Raises :class:`~uploadguard.errors.MatcherError` wherever there is no answer that can be relied on: an empty
        answer means that the service knows none of these hashes, and nothing else does.
        """
        ...

    def close(self) -> None:
        """Let go of its connections."""
        ...
