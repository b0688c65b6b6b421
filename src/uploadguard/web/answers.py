"""What an uploader is answered: the same for every reason, and no word of why.

All adapters and the service answer by :class:`Answers`; a host shapes it by the settings in ``[web]`` or with a
function of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from uploadguard.config import Settings
from uploadguard.config_hosts import WebSettings
from uploadguard.errors import MediaReadError, NotReadyError, NotRecordedError, UploadguardError
from uploadguard.models import Decision, Verdict

__all__ = ["Answer", "Answers", "Shape"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, for any framework to send. ``headers`` are without Content-Type, which is ``media_type``."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Shape: TypeAlias = Callable[[Decision, Answer], Answer]
"""A host's own wording: gets the decision and the default answer, and gives the answer to send."""


class Answers:
    """What is answered in a request's place where its uploads may not go on, or could not be checked.

    ``shape`` is called for each refused request. What it makes of the decision is what the uploader sees: it should
    tell nothing that differs from reason to reason.
    """

    def __init__(self, settings: Settings | WebSettings, *, shape: Shape | None = None) -> None:
        self.settings = settings.web if isinstance(settings, Settings) else settings
        self._shape = shape
        effective = {"pass": Verdict.ALLOW, "queue": Verdict.QUEUE, "block": Verdict.BLOCK}
        self._not_scanned = effective[self.settings.not_scanned]

    def verdict(self, decision: Decision) -> Verdict:
        """What the upload is treated as: ``ALLOW``, ``QUEUE`` or ``BLOCK``."""
        return self._not_scanned if decision.verdict is Verdict.NOT_SCANNED else decision.verdict

    def worst(self, decisions: Sequence[Decision]) -> Decision | None:
        """The decision that a request with several uploads is answered by: the highest, of these the first."""
        return max(decisions, key=self.verdict, default=None)

    def of(self, decisions: Sequence[Decision] | Decision) -> Answer | None:
        """The answer in the place of the host's own; None where all uploads of the request may go on."""
        worst = decisions if isinstance(decisions, Decision) else self.worst(decisions)
        if worst is None:
            return None
        verdict = self.verdict(worst)
        if verdict is Verdict.ALLOW:
            return None
        blocked = verdict is Verdict.BLOCK
        status = self.settings.block_status if blocked else self.settings.queue_status
        text = "This upload was not accepted." if blocked else "This upload was received and is being processed."
        answer = Answer(status, _json(text, reference=worst.reference))
        if self._shape is not None:
            answer = self._shape(worst, answer)
            if not isinstance(answer, Answer):  # None would let the upload go on
                raise TypeError(f"shape must give an Answer, not {type(answer).__name__}")
        return answer

    def of_error(self, error: UploadguardError) -> Answer:
        """The answer where an upload could not be checked: 503 where it may be sent again, 400 where it broke off."""
        if isinstance(error, MediaReadError):
            return self.broken()
        if isinstance(error, NotReadyError | NotRecordedError):
            return self.busy()
        return Answer(500, _json("The upload could not be processed."))

    def busy(self) -> Answer:
        """There is no room for another upload, or none can be checked now."""
        return Answer(
            503,
            _json("Uploads cannot be taken now. Please try again."),
            headers={"Retry-After": str(self.settings.retry_after_s)},
        )

    def too_large(self) -> Answer:
        """The request is larger than ``web.max_body_bytes``, or has more files than ``web.max_files``."""
        return Answer(413, _json("The upload is too large."))

    def broken(self) -> Answer:
        """The request is not what it should be: no multipart body, or one that ends early."""
        return Answer(400, _json("The upload could not be read."))

    def timed_out(self) -> Answer:
        """The request's body did not arrive in time."""
        return Answer(408, _json("The upload took too long."))


def _json(detail: str, **more: str) -> bytes:
    return json.dumps({"detail": detail, **more}).encode()
