"""What the service answers a client, as values. Whatever is not an answer in full is an error, never an allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from uploadguard.errors import ServiceError
from uploadguard.models import Decision, Failure, FailureCode, Hash, Match, Media, Verdict

__all__ = ["CaseState", "CheckResult", "Readiness", "RecordedResult", "UploaderAnswer", "parse_result"]

T = TypeVar("T", bound="CheckResult")

_FAILURES = frozenset(FailureCode)


@dataclass(frozen=True, slots=True)
class UploaderAnswer:
    """What an uploader may be answered: an HTTP status and a JSON body."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class CheckResult(Decision):
    """A decision, as the service told it. Matches, failures and hashes are there only where they were asked for.

    ``treat_as`` is what to do: the verdict, with ``NOT_SCANNED`` as the service's ``web.not_scanned`` says; ``ALLOW``,
    ``QUEUE`` or ``BLOCK``. ``answer`` is for the uploader; None where the upload may go on. ``is_pending``: a match
    service is still to answer, and may revise this; :meth:`Client.decision` tells.
    """

    treat_as: Verdict = Verdict.BLOCK
    answer: UploaderAnswer | None = None
    is_pending: bool = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.verdict.label}, reference={self.reference})"


@dataclass(frozen=True, slots=True)
class CaseState:
    """A review: ``open``, ``proposed``, ``confirmed`` or ``dismissed``."""

    state: str
    decided_at: datetime | None


@dataclass(frozen=True, slots=True, repr=False)
class RecordedResult(CheckResult):
    """A decision that the service's ledger keeps. ``case`` is None where nobody reviews it."""

    decided_at: datetime | None = None
    object_id: str | None = None
    tenant: str | None = None
    case: CaseState | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service checks uploads as it should, and the state of each thing that takes."""

    ready: bool
    checks: Mapping[str, str]

    def __bool__(self) -> bool:
        return self.ready

    @classmethod
    def of(cls, body: bytes) -> Readiness:
        """Raises :class:`~uploadguard.errors.ServiceError`."""
        with _strictly():
            found = json.loads(body)
            return cls(_flag(found["ready"]), {_text(name): _text(state) for name, state in found["checks"].items()})


def parse_result(kind: type[T], body: bytes) -> T:
    """The result of a check. Raises :class:`~uploadguard.errors.ServiceError` for all that is none."""
    with _strictly():
        return kind(**_values(json.loads(body), recorded=issubclass(kind, RecordedResult)))


class _strictly:  # noqa: N801 - it reads as a statement
    """Makes every fault of an answer the one error."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, (ValueError, LookupError, TypeError, AttributeError, RecursionError)):
            raise ServiceError("the service's answer is not what it should be") from None


def _values(found: Any, *, recorded: bool) -> dict[str, Any]:
    verdict, treat_as = Verdict.from_label(found["verdict"]), Verdict.from_label(found["treat_as"])
    answer = found["answer"]
    if verdict is not Verdict.NOT_SCANNED and treat_as is not verdict:
        raise ValueError("a verdict that is to be treated as another one")
    if treat_as is Verdict.NOT_SCANNED or (answer is None) != (treat_as is Verdict.ALLOW):
        raise ValueError("an answer that does not fit its verdict")
    pending = found.get("pending", False)
    shadow = found.get("shadow")
    values = {
        "verdict": verdict,
        "treat_as": treat_as,
        "answer": None if answer is None else UploaderAnswer(_whole(answer["status"]), dict(answer["body"])),
        "reference": _reference(found["reference"]),
        "reasons": tuple(_text(reason) for reason in found["reasons"]),
        "report_due": _flag(found["report_due"]),
        "generation": _whole(found["generation"]),
        "media": Media(**{name: found["media"][name] for name in Media.__slots__}),
        "timings_ms": {_text(stage): float(ms) for stage, ms in found["timings_ms"].items()},
        "shadow": None if shadow is None else Verdict.from_label(shadow),
        "pending": tuple(pending) if isinstance(pending, list) else (),
        "is_pending": bool(pending),
        "revises": found.get("revises"),
        "matches": tuple(_match(one) for one in found.get("matches", ())),
        "failures": tuple(
            Failure(FailureCode(one["code"]), one["detail"], one["frame"], one["matcher"])
            for one in found.get("failures", ())
            if one["code"] in _FAILURES
        ),
        "hashes": tuple(
            Hash(one["signal_type"], bytes.fromhex(one["value"]), one["quality"], one["variant"], one["frame"])
            for one in found.get("hashes", ())
        ),
    }
    if recorded:
        case = found["case"]
        values |= {
            "decided_at": _time(found["decided_at"]),
            "object_id": found["object_id"],
            "tenant": found["tenant"],
            "case": None if case is None else CaseState(_text(case["state"]), _time(case["decided_at"])),
        }
    return values


def _match(found: Mapping[str, Any]) -> Match:
    return Match(
        list_name=found["list"],
        **{name: found[name] for name in Match.__slots__ if name != "list_name"},
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _reference(value: Any) -> str:
    if not _text(value) or len(value) > 128:
        raise ValueError("no reference")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _time(value: Any) -> datetime | None:
    return None if value is None else datetime.fromisoformat(_text(value))
