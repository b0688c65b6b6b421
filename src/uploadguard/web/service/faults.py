"""How the service says that it did not do what it was asked: one shape for all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from uploadguard.web.answers import Answer

__all__ = ["Fault", "fault_of"]


class Fault(Exception):
    """A request that gets an error. ``message`` is one sentence for the host's developer, without payload or hash.

    ``answer`` is what an uploader may be shown in its place.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.answer = answer

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        return json.dumps({"error": {"code": self.code, "message": self.message}}).encode()


_OF_STATUS = {
    400: ("broken_body", "The body ends early, or is not the form that its Content-Type says."),
    408: ("body_timeout", "The body did not arrive within serve.body_timeout_s, or not at web.min_bytes_per_s."),
    413: ("too_large", "The body is larger than web.max_body_bytes, or a form has too many parts."),
    500: ("internal", "The upload could not be checked."),
    503: ("unavailable", "No upload can be checked now. Try again."),
}


def fault_of(answer: Answer, message: str | None = None, *, code: str | None = None) -> Fault:
    """The error where an adapter would give this answer to the uploader."""
    known_code, known = _OF_STATUS[answer.status]
    return Fault(answer.status, code or known_code, message or known, headers=answer.headers, answer=answer)
