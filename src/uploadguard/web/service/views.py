"""A decision as the service tells it: by default nothing that a host could not log or hand on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from uploadguard.models import Decision, Verdict
from uploadguard.web.answers import Answer, Answers
from uploadguard.web.service.faults import Fault

__all__ = ["Options", "answer_to_relay", "decision_json"]

_GO_ON = Answer(200, json.dumps({"detail": "This upload may go on."}).encode())


@dataclass(frozen=True, slots=True)
class Options:
    """What a request's query says of the answer it wants.

    ``respond``: ``decision`` is 200 with the decision as JSON; ``answer`` is the status and body to hand on to the
    uploader; ``gate`` is the same, but everything that must not be served now is an error status.
    """

    respond: str = "decision"
    full: bool = False

    @classmethod
    def of(cls, query: list[tuple[str, str]]) -> Options:
        """Raises :class:`Fault` for an option that there is not."""
        given = dict(query)
        if len(given) < len(query):
            raise Fault(400, "bad_option", "An option of the query is there twice.")
        respond, detail = given.pop("respond", "decision"), given.pop("detail", "brief")
        if given:
            raise Fault(400, "bad_option", "The query's options are respond and detail.")
        if detail not in ("brief", "full"):
            raise Fault(400, "bad_option", "The option detail is brief or full.")
        if respond not in ("decision", "answer", "gate"):
            raise Fault(400, "bad_option", "The option respond is decision, answer or gate.")
        return cls(respond, detail == "full")


def decision_json(decision: Decision, answers: Answers, *, full: bool) -> dict[str, Any]:
    """The decision as JSON types. Names of lists and services, hashes, distances and details only with ``full``."""
    answer = answers.of(decision)
    record = decision.to_dict(include_hashes=full)
    if not full:
        for name in ("matches", "failures"):
            del record[name]
        record["pending"] = bool(decision.pending)
    return {
        **record,
        "treat_as": answers.verdict(decision).label,
        "answer": None if answer is None else {"status": answer.status, "body": json.loads(answer.body)},
    }


def answer_to_relay(decision: Decision, answers: Answers, options: Options) -> Answer:
    """The answer for the uploader, of a host that hands on what the service says."""
    answer = answers.of(decision)
    if answer is None:
        return _GO_ON
    if options.respond == "gate" and answers.verdict(decision) is not Verdict.BLOCK:
        return Answer(answers.settings.block_status, answer.body, answer.media_type, answer.headers)
    return answer
