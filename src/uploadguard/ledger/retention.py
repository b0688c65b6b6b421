"""How long the ledger keeps what, and the purge of what is older.

Open cases are never purged, nor is what is under a legal hold, what something is still to be done about, and what a
preserved file belongs to that is not destroyed yet (that is the evidence's own matter: its time is another). The audit
log is kept for ever: it counts what was purged and names nobody.

A purge goes in small transactions, so that recording waits for none of them for long, and may be cut short anywhere:
the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Occasion, State
from uploadguard.errors import EvidenceError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.holds import HeldKind, hold, is_held, release_hold
from uploadguard.ledger.people import Person, Role
from uploadguard.logs import log

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["HeldKind", "PurgeReport", "Purged", "hold", "is_held", "purge", "release_hold"]

_COUNTS_DAYS = 400
_BATCH = 100
_MAX_DECISIONS = 500
_MAX_PAUSE_S = 0.1
_FINAL = (State.FILED.value, State.CANCELLED.value)
_PLAIN = ("allow", "not_scanned")

_decisions, _cases, _tasks, _evidence = schema.decisions.c, schema.cases.c, schema.tasks.c, schema.evidence.c

Progress = Callable[[int, int], None]
"""Called after each transaction with how many cases and decisions are dealt with, and of how many."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What became of one kind: how many ``cases``, ``decisions`` and ``tasks`` were removed, or would be.

    Of those old enough the others were kept: ``held`` under a legal hold, those that have ``evidence``, and those with
    something ``unfinished`` or finished too recently. These count cases, or decisions without a case.
    """

    cases: int = 0
    decisions: int = 0
    tasks: int = 0
    held: int = 0
    evidence: int = 0
    unfinished: int = 0


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge removed, or would remove.

    ``kinds`` has ``not_scanned`` (decisions that nothing came of), ``blocked`` (those without a case), and the cases
    that were ``dismissed`` or ``confirmed``; what is kept for ever is not there. ``hours`` counts rows of the hourly
    counts, ``feedback`` opinions that were sent, of cases that are gone.
    """

    dry_run: bool
    kinds: Mapping[str, Purged]
    hours: int
    feedback: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """Cases, or decisions without one: which are old enough, and what keeps them nevertheless."""

    name: str
    table: sa.Table
    old: sa.ColumnElement[bool]
    held: sa.ColumnElement[bool]
    evidence: sa.ColumnElement[bool]
    unfinished: sa.ColumnElement[bool]

    @property
    def goes(self) -> sa.ColumnElement[bool]:
        """Whether one is to be removed."""
        return sa.and_(self.old, ~self.held, ~self.evidence, ~self.unfinished)


def purge(
    database: Database,
    settings: Settings,
    *,
    now: datetime,
    dry_run: bool = False,
    person: Person | None = None,
    remove_file: Callable[[str], object] | None = None,
    progress: Progress | None = None,
) -> PurgeReport:
    """Remove what is older than ``ledger.retention`` says; with ``dry_run`` only count it.

    ``person`` stands in the audit log, and needs the role LEAD; None is the system. ``remove_file`` is called, after
    the commit, for each preserved file whose row goes: it was destroyed before, and is only made sure of.

    Raises :class:`~uploadguard.errors.LedgerError`; what was purged till then stays so.
    """
    if person is not None:
        person.require(Role.LEAD)
    actor = person.name if person is not None else "system"
    kinds = list(_kinds(settings, now))
    with database.reading() as connection:
        found = {kind.name: _survey(connection, kind) for kind in kinds}
        hours = _count(connection, schema.counts, _old_hours(now))
        feedback = _count(connection, schema.feedback, _sent())
    if dry_run:
        return PurgeReport(True, found, hours, feedback)
    total = sum(one.cases or one.decisions for one in found.values())
    done = 0
    kinds_removed: dict[str, Purged] = {}
    for kind in kinds:
        removed = Purged()
        for batch in _batches(database, kind, actor, remove_file):
            removed = replace(
                removed,
                cases=removed.cases + batch.cases,
                decisions=removed.decisions + batch.decisions,
                tasks=removed.tasks + batch.tasks,
            )
            done += batch.cases if kind.table is schema.cases else batch.decisions
            if progress is not None:
                progress(done, max(total, done))
        kept = found[kind.name]
        kinds_removed[kind.name] = replace(removed, held=kept.held, evidence=kept.evidence, unfinished=kept.unfinished)
    with database.writing() as connection:
        _erase_pages(connection)
        feedback = connection.execute(sa.delete(schema.feedback).where(_sent())).rowcount
        hours = connection.execute(sa.delete(schema.counts).where(_old_hours(now))).rowcount
        if feedback or hours:
            audit.append(connection, actor, "ledger.purge", "ledger", kind="other", feedback=feedback, hours=hours)
    return PurgeReport(False, kinds_removed, hours, feedback)


def _kinds(settings: Settings, now: datetime) -> Iterator[_Kind]:
    days = settings.ledger.retention
    reported_before = now - timedelta(days=days.confirmed_days) if days.confirmed_days else None
    plain = sa.and_(
        _decisions.verdict.in_(_PLAIN),
        ~sa.exists().where(_tasks.decision_id == _decisions.id).correlate(schema.decisions),
    )
    if days.not_scanned_days:
        yield _decision_kind("not_scanned", plain, now - timedelta(days=days.not_scanned_days))
    if reported_before is not None:
        yield _decision_kind("blocked", ~plain, reported_before)
    if days.dismissed_days:
        yield _case_kind("dismissed", now - timedelta(days=days.dismissed_days), reported_before)
    if reported_before is not None:
        yield _case_kind("confirmed", reported_before, reported_before)


def _decision_kind(name: str, which: sa.ColumnElement[bool], before: datetime) -> _Kind:
    return _Kind(
        name,
        schema.decisions,
        old=sa.and_(_decisions.case_id.is_(None), which, _decisions.decided_at < before),
        held=_decisions.legal_hold.is_(sa.true()),
        evidence=sa.exists()
        .where(_evidence.decision_id == _decisions.id, _evidence.destroyed_at.is_(None))
        .correlate(schema.decisions),
        unfinished=sa.exists()
        .where(_tasks.decision_id == _decisions.id, _unfinished(before, before))
        .correlate(schema.decisions),
    )


def _case_kind(status: str, before: datetime, reported_before: datetime | None) -> _Kind:
    uploads = _decisions.case_id == _cases.id
    return _Kind(
        status,
        schema.cases,
        old=sa.and_(_cases.status == status, _cases.decided_at < before),
        held=sa.or_(
            _cases.legal_hold.is_(sa.true()),
            sa.exists().where(uploads, _decisions.legal_hold.is_(sa.true())).correlate(schema.cases),
        ),
        evidence=sa.exists()
        .where(uploads, _evidence.decision_id == _decisions.id, _evidence.destroyed_at.is_(None))
        .correlate(schema.cases),
        unfinished=sa.exists()
        .where(uploads, _tasks.decision_id == _decisions.id, _unfinished(before, reported_before))
        .correlate(schema.cases),
    )


def _unfinished(before: datetime, reported_before: datetime | None) -> sa.ColumnElement[bool]:
    """Whether a task keeps what it belongs to; a filed report does so as long as a confirmed case is kept (None: for
    ever), though the case was dismissed."""
    filed_report = sa.and_(_tasks.occasion == Occasion.REPORT.value, _tasks.state == State.FILED.value)
    ended_at = sa.func.coalesce(_tasks.done_at, _tasks.created_at, type_=schema.Utc())
    return sa.or_(
        _tasks.state.not_in(_FINAL),
        ended_at >= before,
        sa.and_(filed_report, ended_at >= reported_before) if reported_before is not None else filed_report,
    )


def _survey(connection: Connection, kind: _Kind) -> Purged:
    """What would go, and what would be kept in spite of its age."""
    of_cases = kind.table is schema.cases
    goes = sa.select(kind.table.c.id).where(kind.goes)
    decisions = _decisions.case_id.in_(goes) if of_cases else _decisions.id.in_(goes)
    return Purged(
        cases=_count(connection, schema.cases, kind.goes) if of_cases else 0,
        decisions=_count(connection, schema.decisions, decisions),
        tasks=_count(connection, schema.tasks, _tasks.decision_id.in_(sa.select(_decisions.id).where(decisions))),
        held=_count(connection, kind.table, sa.and_(kind.old, kind.held)),
        evidence=_count(connection, kind.table, sa.and_(kind.old, ~kind.held, kind.evidence)),
        unfinished=_count(connection, kind.table, sa.and_(kind.old, ~kind.held, ~kind.evidence, kind.unfinished)),
    )


def _count(connection: Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar_one()


def _batches(
    database: Database, kind: _Kind, actor: str, remove_file: Callable[[str], object] | None
) -> Iterator[Purged]:
    """Remove what goes, one transaction at a time."""
    after = 0
    ids = kind.table.c.id
    while True:
        # Looking takes longer than removing, so it is done before the lock is taken, and these are asked once more.
        with database.reading() as connection:
            found = connection.execute(
                sa.select(ids).where(kind.goes, ids > after).order_by(ids).limit(_BATCH)
            ).scalars().all()  # fmt: skip
        if not found:
            return
        started = time.monotonic()
        with database.writing() as connection:
            still = connection.execute(sa.select(ids).where(kind.goes, ids.in_(found))).scalars().all()
            removed, files = _remove(connection, kind, still)
            if removed != Purged():
                numbers = {"cases": removed.cases, "decisions": removed.decisions, "tasks": removed.tasks}
                audit.append(connection, actor, "ledger.purge", "ledger", kind=kind.name, **numbers)
        if remove_file is not None:
            for file in files:
                _make_sure(remove_file, file)
        if removed == Purged() or kind.table is schema.decisions or removed.cases == len(still):
            after = found[-1]  # else a case has so many decisions that there are some left
        yield removed
        # Those who wait for SQLite's lock look for it now and then only: let them find it free for as long again.
        time.sleep(min(time.monotonic() - started, _MAX_PAUSE_S))


def _remove(connection: Connection, kind: _Kind, ids: Sequence[int]) -> tuple[Purged, list[str]]:
    """Remove these cases or decisions with all that belongs to them, but no more than so many decisions."""
    _erase_pages(connection)
    decisions = ids
    if kind.table is schema.cases:
        query = sa.select(_decisions.id).where(_decisions.case_id.in_(ids)).order_by(_decisions.id)
        decisions = connection.execute(query.limit(_MAX_DECISIONS)).scalars().all()
    files = connection.execute(sa.select(_evidence.file).where(_evidence.decision_id.in_(decisions))).scalars().all()
    connection.execute(sa.delete(schema.evidence).where(_evidence.decision_id.in_(decisions)))
    tasks = connection.execute(sa.delete(schema.tasks).where(_tasks.decision_id.in_(decisions))).rowcount
    connection.execute(sa.delete(schema.decisions).where(_decisions.id.in_(decisions)))
    cases = 0
    if kind.table is schema.cases:
        empty = ~sa.exists().where(_decisions.case_id == _cases.id).correlate(schema.cases)
        cases = connection.execute(sa.delete(schema.cases).where(_cases.id.in_(ids), empty)).rowcount
    return Purged(cases=cases, decisions=len(decisions), tasks=tasks), list(files)


def _make_sure(remove_file: Callable[[str], object], file: str) -> None:
    try:
        remove_file(file)
    except (OSError, EvidenceError) as error:
        log.warning("a destroyed file could not be removed, the sweep of the evidence will try again: %s", error)


def _erase_pages(connection: Connection) -> None:
    """Have SQLite write zeros over what it deletes."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _old_hours(now: datetime) -> sa.ColumnElement[bool]:
    return schema.counts.c.hour < now - timedelta(days=_COUNTS_DAYS)


def _sent() -> sa.ColumnElement[bool]:
    """Whether an opinion was sent and its case is gone."""
    feedback = schema.feedback.c
    return sa.and_(
        feedback.sent_at.is_not(None), ~sa.exists().where(_cases.id == feedback.case_id).correlate(schema.feedback)
    )
