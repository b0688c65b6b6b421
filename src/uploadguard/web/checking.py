"""How the uploads of requests are checked: what a host says once, for all requests of an asynchronous adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from uploadguard.guard import Guard
from uploadguard.models import Context
from uploadguard.web.answers import Answers, Shape
from uploadguard.web.arriving import Hold, Limits, Queue, Refused, admit, conclude
from uploadguard.web.multipart import ReceivedForm, is_form, receive_file, receive_form

__all__ = ["GuardSource", "RequestCheck", "RequestContext"]

Request = TypeVar("Request")

GuardSource: TypeAlias = Guard | Callable[[Request], Guard]
"""The Guard, or where a request has it: hosts that open one in their start-up hook have none before that."""

RequestContext: TypeAlias = Callable[[Request, str | None], Context]
"""A host's own context of an upload: gets the request and the file's name, as the client gave it."""


@dataclass(frozen=True)
class RequestCheck(Generic[Request]):
    """What a host sets up. ``default_context`` is the adapter's: file name and peer, nothing else."""

    guard: GuardSource[Request]
    default_context: RequestContext[Request]
    context: RequestContext[Request] | None = None
    hold: Hold | None = None
    queue: Queue = "answer"
    shape: Shape | None = None
    body_timeout_s: float | None = 600.0

    def __post_init__(self) -> None:
        if self.queue not in ("answer", "pass"):
            raise ValueError(f"queue must be 'answer' or 'pass', not {self.queue!r}")
        if not (isinstance(self.guard, Guard) or callable(self.guard)):
            raise TypeError(f"guard must be a Guard, or a function that gives one, not {type(self.guard).__name__}")

    def guard_of(self, request: Request) -> Guard:
        """The Guard that checks this request."""
        return self.guard if isinstance(self.guard, Guard) else self.guard(request)

    def answers(self, guard: Guard) -> Answers:
        """The host's answers."""
        return Answers(guard.settings, shape=self.shape)

    def limits(self, guard: Guard) -> Limits:
        """The host's limits."""
        return Limits.of(guard.settings.web, timeout_s=self.body_timeout_s)

    def context_of(self, request: Request, filename: str | None) -> Context:
        """What is known of an upload."""
        return (self.context or self.default_context)(request, filename)

    async def receive(
        self,
        request: Request,
        chunks: AsyncIterator[bytes],
        content_type: str | None,
        content_length: str | None,
        content_encoding: str | None = None,
    ) -> ReceivedForm:
        """Read a request's body, a form or else one file, check what it brings, and have held what is queued.

        The caller closes what it gets. Raises :class:`~uploadguard.web.arriving.Refused` where the request is answered
        in its handler's place, and what ``chunks`` raises; nothing is left then.
        """
        guard = self.guard_of(request)
        answers, limits = self.answers(guard), self.limits(guard)
        with admit(guard, answers, limits, content_length, content_encoding):
            if is_form(content_type):
                received = await receive_form(
                    chunks, content_type, guard, answers, limits, lambda filename: self.context_of(request, filename)
                )
            else:
                context = self.context_of(request, None)
                received = await receive_file(chunks, content_type, guard, answers, limits, context)
        try:
            answer = await conclude(received.files, answers, self.hold, self.queue)
            if answer is not None:
                raise Refused(answer)
        except BaseException:
            received.close()
            raise
        return received
