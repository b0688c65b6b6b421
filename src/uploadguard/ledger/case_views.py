"""What can be seen of review cases: their values, and the queries that list and show them."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.codec import Recorded, from_record
from uploadguard.ledger.evidence import EvidenceInfo
from uploadguard.ledger.schema import Id, Utc

if TYPE_CHECKING:
    from uploadguard.ledger.outbox import TaskInfo

__all__ = [
    "MAX_PAGE",
    "MAX_TOTAL",
    "MAX_UPLOADS",
    "Case",
    "CaseDetail",
    "CaseEvent",
    "CaseFilter",
    "CasePage",
    "CaseStatus",
    "CaseUpload",
    "Feedback",
    "Outcome",
    "case_of",
    "count_cases",
    "events_of",
    "feedback_rows",
    "list_cases",
    "uploads_of",
]

Outcome = Literal["confirm", "dismiss"]

MAX_PAGE = 500
MAX_TOTAL = 10_000
MAX_UPLOADS = 100
_MAX_EVENTS = 1000


class CaseStatus(enum.StrEnum):
    """How far a case is."""

    OPEN = "open"
    """Waits for a decision. It may be claimed or escalated."""
    PROPOSED = "proposed"
    """One person has decided; a second one must say the same."""
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"

    @property
    def is_decided(self) -> bool:
        """Whether what the decision leads to is under way."""
        return self in (CaseStatus.CONFIRMED, CaseStatus.DISMISSED)


@dataclass(frozen=True, slots=True)
class Case:
    """One review case. Times are UTC.

    ``verdict`` is the highest of its uploads', ``reason`` the weightiest of the first one's. ``proposed`` is the
    outcome that ``proposed_by`` asks a second person for. ``viewed``: somebody was shown a file of it. ``round`` is
    1, and one more for each time that a decided case was opened again.
    """

    id: int
    status: CaseStatus
    opened_at: datetime
    updated_at: datetime
    verdict: str
    reason: str
    tenant: str | None
    uploader: str | None
    uploads: int
    claimed_by: str | None
    claimed_at: datetime | None
    proposed: str | None
    proposed_by: str | None
    escalated: bool
    viewed: bool
    decided_by: str | None
    decided_at: datetime | None
    round: int
    legal_hold: bool

    def __repr__(self) -> str:
        return f"Case({self.id}, {self.status}, round={self.round})"


@dataclass(frozen=True, slots=True)
class CaseUpload:
    """One upload of a case: its decision with the context, and its preserved file, if there is one."""

    decision_id: int
    recorded: Recorded
    evidence: EvidenceInfo | None


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """Something that was done to a case. ``kind`` is the audit log's word for it without ``case.``."""

    at: datetime
    actor: str
    kind: str
    note: str

    def __repr__(self) -> str:
        return f"CaseEvent({self.kind})"


@dataclass(frozen=True, slots=True)
class CaseDetail:
    """A case with its first 100 uploads, what was done to it, and what its decisions led to."""

    case: Case
    uploads: tuple[CaseUpload, ...]
    events: tuple[CaseEvent, ...]
    tasks: tuple[TaskInfo, ...]


@dataclass(frozen=True, slots=True)
class CasePage:
    """Some cases, oldest first. ``next_after`` asks for the next ones; None where there are no more.

    ``total`` counts all that the filter fits, up to ``MAX_TOTAL``, which means: so many or more.
    """

    cases: tuple[Case, ...]
    next_after: str | None
    total: int


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a reviewer's decision says of a list's entry: it is ``right`` or ``wrong``."""

    id: int
    list_name: str
    entry_id: str
    opinion: str
    case_id: int
    actor: str
    at: datetime
    sent_at: datetime | None

    def __repr__(self) -> str:
        return f"Feedback({self.id}, {self.opinion})"


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases to list. None fits all.

    ``claimed_by`` "" fits cases that nobody has claimed. ``list_name`` fits cases with a match of that list. ``text``
    is a case's number, an uploader, an object's id or a decision's reference, whole.
    """

    statuses: Collection[CaseStatus]
    tenant: str | None = None
    uploader: str | None = None
    reason: str | None = None
    claimed_by: str | None = None
    escalated: bool | None = None
    list_name: str | None = None
    text: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """All but the statuses, for a ``WHERE``."""
        cases = schema.cases.c
        found = [
            getattr(cases, name) == value
            for name in ("tenant", "uploader", "reason")
            if (value := getattr(self, name)) is not None
        ]
        if self.claimed_by is not None:
            found.append(cases.claimed_by == self.claimed_by if self.claimed_by else cases.claimed_by.is_(None))
        if self.escalated is not None:
            found.append(cases.escalated == self.escalated)
        if self.list_name is not None:
            keys = schema.case_keys.c
            prefix = f"entry:{self.list_name}"
            # From "/" to before "0", the character after it: all keys that begin so, by way of the index.
            of_list = sa.and_(keys.key >= f"{prefix}/", keys.key < f"{prefix}0")
            found.append(sa.exists().where(keys.case_id == cases.id, of_list))
        if self.text:
            found.append(cases.id.in_(_ids_of_text(self.text)))
        return found


def _ids_of_text(text: str) -> sa.CompoundSelect[Any]:
    cases, decisions = schema.cases.c, schema.decisions.c
    number = text.removeprefix("#")
    wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1
    return sa.union(
        sa.select(cases.id).where(cases.id == wanted),
        sa.select(cases.id).where(cases.uploader == text),
        sa.select(decisions.case_id).where(decisions.reference == text, decisions.case_id.is_not(None)),
        sa.select(decisions.case_id).where(decisions.object_id == text, decisions.case_id.is_not(None)),
    )


def list_cases(connection: Connection, wanted: CaseFilter, after: str | None, limit: int) -> CasePage:
    """A page of cases. Raises ``ValueError`` for an ``after`` that no page gave."""
    limit = max(1, min(limit, MAX_PAGE))
    cases = schema.cases.c
    conditions = wanted.conditions()
    statuses = sorted({CaseStatus(status).value for status in wanted.statuses})
    if not statuses:
        return CasePage((), None, 0)
    of_page = [*conditions]
    if after is not None:
        at, case_id = _parse_after(after)
        place = sa.tuple_(sa.literal(at, Utc), sa.literal(case_id, Id))
        of_page.append(sa.tuple_(cases.opened_at, cases.id) > place)
    # One ordered walk of the index for each status; of all statuses at once neither database would use its order.
    parts = [
        sa.select(schema.cases)
        .where(cases.status == status, *of_page)
        .order_by(cases.opened_at, cases.id)
        .limit(limit + 1)
        .subquery()
        for status in statuses
    ]
    merged = sa.union_all(*(sa.select(part) for part in parts)).subquery()
    page = sa.select(merged).order_by(merged.c.opened_at, merged.c.id).limit(limit + 1)
    rows = connection.execute(page).all()
    some = sa.select(sa.literal(1)).select_from(schema.cases)
    some = some.where(cases.status.in_(statuses), *conditions).limit(MAX_TOTAL)
    total: int = connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()
    found = tuple(_case(row) for row in rows[:limit])
    more = len(rows) > limit
    return CasePage(found, f"{found[-1].opened_at.isoformat()}/{found[-1].id}" if more else None, total)


def _parse_after(after: str) -> tuple[datetime, int]:
    at, _, case_id = after.rpartition("/")
    try:
        parsed, number = datetime.fromisoformat(at), int(case_id)
        parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        parsed, number = None, 0
    if parsed is None or parsed.tzinfo is None or not 0 < number < 2**63:
        raise ValueError("after must be the next_after of a page")
    return parsed, number


def count_cases(connection: Connection) -> Mapping[CaseStatus, int]:
    """How many cases are in each status."""
    status = schema.cases.c.status
    rows = connection.execute(sa.select(status, sa.func.count()).group_by(status))
    return dict.fromkeys(CaseStatus, 0) | {CaseStatus(name): count for name, count in rows}


def case_of(connection: Connection, case_id: int) -> Case:
    """The case. Raises :class:`~uploadguard.errors.UnknownRecordError`."""
    row = None
    if 0 < case_id < 2**63:
        row = connection.execute(sa.select(schema.cases).where(schema.cases.c.id == case_id)).one_or_none()
    if row is None:
        raise UnknownRecordError(f"there is no case {case_id}")
    return _case(row)


_COLUMNS = tuple(item.name for item in fields(Case))


def _case(row: sa.Row[Any]) -> Case:
    values = row._mapping
    return Case(**{name: values[name] for name in _COLUMNS} | {"status": CaseStatus(values["status"])})


def uploads_of(connection: Connection, case: Case) -> tuple[CaseUpload, ...]:
    """The case's first uploads, in the order of their recording."""
    decisions, evidence = schema.decisions, schema.evidence
    rows = connection.execute(
        sa.select(decisions.c.id, decisions.c.record, decisions.c.legal_hold, *(evidence.c[name] for name in _EVIDENCE))
        .select_from(decisions.outerjoin(evidence, evidence.c.decision_id == decisions.c.id))
        .where(decisions.c.case_id == case.id)
        .order_by(decisions.c.id)
        .limit(MAX_UPLOADS)
    )
    return tuple(CaseUpload(row.id, from_record(row.record), _evidence(row, case)) for row in rows)


_EVIDENCE = ("size_bytes", "media_type", "stored_at", "keep_until", "viewed_at", "destroyed_at")


def _evidence(row: sa.Row[Any], case: Case) -> EvidenceInfo | None:
    if row.size_bytes is None:
        return None
    values = {name: getattr(row, name) for name in _EVIDENCE}
    return EvidenceInfo(decision_id=row.id, case_id=case.id, held=row.legal_hold or case.legal_hold, **values)


def events_of(connection: Connection, case_id: int) -> tuple[CaseEvent, ...]:
    """What was done to the case, in order; of very many the latest."""
    events = schema.case_events.c
    latest = sa.select(events.at, events.actor, events.kind, events.note).where(events.case_id == case_id)
    rows = connection.execute(latest.order_by(events.id.desc()).limit(_MAX_EVENTS)).all()
    return tuple(CaseEvent(*row) for row in reversed(rows))


def feedback_rows(connection: Connection, *, unsent: bool, limit: int) -> list[Feedback]:
    """Feedback in the order in which it was given."""
    query = sa.select(schema.feedback).order_by(schema.feedback.c.id).limit(limit)
    if unsent:
        query = query.where(schema.feedback.c.sent_at.is_(None))
    return [Feedback(**row._mapping) for row in connection.execute(query)]
