"""What the pages read from the ledger's tables beyond what its parts give: all of it read-only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from uploadguard.errors import UnknownRecordError
from uploadguard.ledger import schema
from uploadguard.ledger.audit import AuditEntry, parse_entry
from uploadguard.ledger.codec import Recorded, from_record
from uploadguard.ledger.database import Database

__all__ = [
    "DecisionRow",
    "audit_entries",
    "buckets",
    "case_of_decision",
    "checks_by_hour",
    "collected",
    "decision",
    "decisions",
    "outcomes_by_hour",
    "tenants",
]

_MAX_TENANTS = 200


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One recorded decision, without its record."""

    id: int
    reference: str
    decided_at: datetime
    verdict: str
    report_due: bool
    media_type: str | None
    tenant: str | None
    uploader: str | None
    object_id: str | None
    case_id: int | None


def decisions(
    database: Database, *, verdict: str | None, text: str | None, before: int | None, limit: int
) -> tuple[list[DecisionRow], int | None]:
    """Decisions, latest first, and what ``before`` is for the next page. ``text`` is a reference, an object's id or an
    uploader, whole."""
    table = schema.decisions.c
    query = sa.select(*(table[name] for name in DecisionRow.__slots__)).order_by(table.id.desc()).limit(limit + 1)
    if verdict:
        query = query.where(table.verdict == verdict)
    if before is not None:
        query = query.where(table.id < before)
    if text:
        ids = sa.union(*(sa.select(table.id).where(table[name] == text) for name in _LOOKED_UP))
        query = query.where(table.id.in_(ids))
    with database.reading() as connection:
        rows = connection.execute(query).all()
    found = [DecisionRow(*row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


_LOOKED_UP = ("reference", "object_id", "uploader")


def decision(database: Database, reference: str) -> tuple[int, Recorded, int | None, bool]:
    """One decision: its id, itself, its case and whether it is held. Raises ``UnknownRecordError``."""
    table = schema.decisions.c
    with database.reading() as connection:
        row = connection.execute(
            sa.select(table.id, table.record, table.case_id, table.legal_hold).where(table.reference == reference)
        ).one_or_none()
    if row is None:
        raise UnknownRecordError("no decision has that reference")
    return row.id, from_record(row.record), row.case_id, row.legal_hold


def case_of_decision(database: Database, decision_id: int) -> int | None:
    """The case that a decision belongs to. Raises ``UnknownRecordError``."""
    table = schema.decisions.c
    with database.reading() as connection:
        row = connection.execute(sa.select(table.case_id).where(table.id == decision_id)).one_or_none()
    if row is None:
        raise UnknownRecordError("there is no such decision")
    found: int | None = row.case_id
    return found


def tenants(database: Database) -> list[str]:
    """The tenants that cases are of, by name."""
    tenant = schema.cases.c.tenant
    query = sa.select(tenant).where(tenant.is_not(None)).distinct().order_by(tenant).limit(_MAX_TENANTS)
    with database.reading() as connection:
        return list(connection.execute(query).scalars())


def audit_entries(
    database: Database, *, before: int | None, limit: int
) -> tuple[list[tuple[int, AuditEntry | None]], int | None]:
    """Numbers and entries of the audit log, latest first, and what ``before`` is for the next page. None stands for an
    entry that cannot be read, as only tampering leaves it."""
    query = sa.select(schema.audit.c.seq, schema.audit.c.entry).order_by(schema.audit.c.seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(schema.audit.c.seq < before)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    found = [(row.seq, _parsed(row.entry)) for row in rows[:limit]]
    return found, found[-1][0] if len(rows) > limit else None


def _parsed(text: str) -> AuditEntry | None:
    try:
        return parse_entry(text)
    except ValueError:
        return None


def checks_by_hour(database: Database, since: datetime) -> dict[str, dict[datetime, int]]:
    """Checks by verdict and hour."""
    counts = schema.counts.c
    query = sa.select(counts.hour, counts.name, counts.value).where(counts.hour >= since)
    found: dict[str, dict[datetime, int]] = defaultdict(dict)
    with database.reading() as connection:
        for hour, name, value in connection.execute(query):
            found[name][hour] = value
    return dict(found)


def outcomes_by_hour(database: Database, since: datetime) -> dict[str, dict[datetime, int]]:
    """Cases that were opened, confirmed and dismissed, by hour."""
    cases = schema.cases.c
    found: dict[str, dict[datetime, int]] = {}
    with database.reading() as connection:
        for name, column, condition in (
            ("opened", cases.opened_at, None),
            ("confirmed", cases.decided_at, cases.status == "confirmed"),
            ("dismissed", cases.decided_at, cases.status == "dismissed"),
        ):
            hour = (
                sa.func.strftime("%Y-%m-%d %H", column) if database.is_sqlite else sa.func.date_trunc("hour", column)
            ).label("hour")
            query = sa.select(hour, sa.func.count()).where(column >= since).group_by(hour)
            if condition is not None:
                query = query.where(condition)
            found[name] = {_hour(one): count for one, count in connection.execute(query)}
    return found


def _hour(value: str | datetime) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.strptime(value, "%Y-%m-%d %H").replace(tzinfo=UTC)


def buckets(now: datetime, *, count: int, step: timedelta) -> list[datetime]:
    """The beginnings of the last ``count`` hours or days, the present one last."""
    if step == timedelta(hours=1):
        last = now.replace(minute=0, second=0, microsecond=0)
    else:
        last = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [last - step * back for back in reversed(range(count))]


def collected(values: Mapping[datetime, int], starts: list[datetime], step: timedelta) -> list[int]:
    """Values by hour, summed up by the buckets that begin at ``starts``."""
    totals = [0] * len(starts)
    for hour, value in values.items():
        place = (hour - starts[0]) // step
        if 0 <= place < len(totals):
            totals[place] += value
    return totals
