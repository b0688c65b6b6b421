"""What the adapters for synchronous frameworks share beyond :mod:`~uploadguard.web.arriving`: whom a request's
decisions refuse, what is held, and the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from uploadguard.guard import Guard
from uploadguard.models import Decision, Verdict
from uploadguard.web.answers import Answer, Answers, Shape
from uploadguard.web.arriving import Limits, Queue, admit

__all__ = ["DIGESTED_AS_IT_ARRIVES_BYTES", "SAFE_METHODS", "Checked", "Hold", "Intake", "brings_a_body"]

DIGESTED_AS_IT_ARRIVES_BYTES = 16 << 20
"""A file that arrives is in memory until it is checked up to this size; a larger one is read from where it was put
then. So slow uploads, however large, hold little memory."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Requests that should bring nothing."""

File = TypeVar("File")

Hold: TypeAlias = Callable[[Decision, Any], object]
"""Keeps a queued upload unserved: gets the decision and the framework's file object, at its beginning, before the
uploader is answered. Where it raises, so does the request: nothing is answered as received that nobody holds."""


@dataclass(frozen=True, slots=True)
class Checked(Generic[File]):
    """One checked file of a request: the form field it came in, the framework's file object, rewound, the decision.

    ``field`` is empty for a file that is the whole body.
    """

    field: str
    file: File
    decision: Decision


def brings_a_body(environ: Mapping[str, Any]) -> bool:
    """Whether a WSGI request may have a body: those of safe methods only where they say so.

    A view that asks whether the method is GET takes HEAD for one that brings something.
    """
    if str(environ.get("REQUEST_METHOD", "")).upper() not in SAFE_METHODS:
        return True
    return "HTTP_TRANSFER_ENCODING" in environ or str(environ.get("CONTENT_LENGTH") or "0").strip() != "0"


class Intake:
    """A Guard with what the host says of the answers to its uploaders. Shared between threads."""

    def __init__(
        self, guard: Guard, *, hold: Hold | None = None, queue: Queue = "answer", shape: Shape | None = None
    ) -> None:
        if queue not in ("answer", "pass"):
            raise ValueError(f"queue must be 'answer' or 'pass', not {queue!r}")
        self.guard = guard
        self.answers = Answers(guard.settings, shape=shape)
        self.limits = Limits.of(self.answers.settings)
        self.queue = queue
        self._hold = hold

    def admit(self, content_length: str | None, content_encoding: str | None) -> AbstractContextManager[None]:
        """A place for one request, before its body is read. Entering raises :class:`~.arriving.Refused`."""
        return admit(self.guard, self.answers, self.limits, content_length, content_encoding)

    def is_queued(self, decision: Decision) -> bool:
        """Whether the upload is to be kept unserved."""
        return self.answers.verdict(decision) is Verdict.QUEUE

    def refuses(self, decision: Decision) -> bool:
        """Whether a request with this upload is answered in the host's place."""
        verdict = self.answers.verdict(decision)
        return verdict is Verdict.BLOCK or (verdict is Verdict.QUEUE and self.queue == "answer")

    def hold(self, decision: Decision, file: Any) -> None:
        """Have the host keep a queued upload, if it said how."""
        if self._hold is not None:
            file.seek(0)
            self._hold(decision, file)

    def settle(self, uploads: Sequence[Checked[Any]]) -> Answer | None:
        """The answer in the host's place, None where the request goes on; what is queued is held first.

        A request with a blocked file is refused as a whole, and nothing of it is held.
        """
        refused = [upload for upload in uploads if self.refuses(upload.decision)]
        worst = self.answers.worst([upload.decision for upload in refused])
        if worst is None:
            return None
        if self.is_queued(worst):
            for upload in refused:
                self.hold(upload.decision, upload.file)
        return self.answers.of(worst)
