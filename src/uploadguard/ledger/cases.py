"""Review cases: who looks at them, what is decided, and what comes of it.

Each change is one transaction, with an entry of the audit log and one of the case's own events. Those transactions
follow one another (``Database.writing``), so of several reviewers one is first, and an upload that joins a case does so
before its decision or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import CaseStateError, LedgerError, NotPermittedError, UnknownRecordError
from uploadguard.ledger import audit, case_views, schema
from uploadguard.ledger.case_effects import Remember, Ruling, carry_out, take_back
from uploadguard.ledger.case_views import (
    Case,
    CaseDetail,
    CaseEvent,
    CaseFilter,
    CasePage,
    CaseStatus,
    CaseUpload,
    Feedback,
    Outcome,
    case_of,
)
from uploadguard.ledger.database import Database
from uploadguard.ledger.outbox import Outbox
from uploadguard.ledger.people import Person, Role, is_same
from uploadguard.ledger.recording import Plan

__all__ = [
    "CLAIM_LASTS",
    "MAX_NOTE",
    "Case",
    "CaseDetail",
    "CaseEvent",
    "CasePage",
    "CaseStatus",
    "CaseUpload",
    "Cases",
    "Decided",
    "Feedback",
    "Outcome",
]

CLAIM_LASTS: Final = timedelta(hours=4)
"""After that somebody else may claim the case, or decide it."""

MAX_NOTE: Final = 4000
"""Characters of a note; what is longer is cut off."""

_MAX_TASKS = 1000
_OPEN = (CaseStatus.OPEN, CaseStatus.PROPOSED)
_NEEDS_TWO: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "confirm": frozenset({"confirm"}),
    "dismiss": frozenset({"dismiss"}),
    "all": frozenset({"confirm", "dismiss"}),
}
_STATUS_OF: Mapping[str, CaseStatus] = {"confirm": CaseStatus.CONFIRMED, "dismiss": CaseStatus.DISMISSED}


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of one case. ``status`` is None where it could not be looked at.

    ``proposed``: a second person must say the same. ``tasks`` is how many were put into the outbox. ``error`` says why
    nothing was done; only of several cases decided at once.
    """

    case_id: int
    status: CaseStatus | None
    proposed: bool = False
    tasks: int = 0
    error: str | None = None


class Cases:
    """The review cases of a ledger. Shared between threads.

    ``two_person`` says which decisions need a second person who says the same: none, confirm, dismiss or all.
    ``min_quality`` is the least quality of a PDQ hash that the local lists take. ``outbox`` tells which tasks are late.

    All that change something need the role ``review``, and raise :class:`~uploadguard.errors.NotPermittedError`,
    :class:`~uploadguard.errors.UnknownRecordError`, :class:`~uploadguard.errors.CaseStateError` (which says who was
    faster, and what to do) and other :class:`~uploadguard.errors.LedgerError`.
    """

    def __init__(
        self,
        database: Database,
        plan: Plan,
        *,
        two_person: str = "none",
        min_quality: int = 50,
        outbox: OutboxSettings | None = None,
    ) -> None:
        self._database = database
        self._plan = plan
        self._needs_two = _NEEDS_TWO[two_person]
        self._min_quality = min_quality
        self._outbox = Outbox(database, outbox or OutboxSettings())

    def decide(
        self,
        case_ids: Sequence[int],
        outcome: Outcome,
        person: Person,
        *,
        note: str = "",
        ban: bool = False,
        remember: Remember = True,
        feedback: bool = True,
    ) -> list[Decided]:
        """Confirm or dismiss cases, each in its own transaction. More than one needs the role ``lead``.

        Confirming reports each upload to whoever wants reports, has it deleted, and with ``ban`` its uploader shut out;
        dismissing releases each and takes back its reports that are not filed. ``remember`` puts the hashes on a local
        list: of a confirmed case digests and PDQ, of a dismissed one SHA-256 and, only with ``"perceptual"``, the PDQ
        hashes of the frames that matched. ``feedback`` keeps that the matched entries were right, or wrong.

        Where a second person is needed, the first one's decision is a proposal. The options of the second one count.
        One who disagrees sends the case back to the queue, escalated; a lead must decide such a case.

        With one case an error is raised. With several it is in :attr:`Decided.error`, and the others are decided all
        the same, unless the database fails.
        """
        person.require(Role.REVIEW)
        if outcome not in get_args(Outcome):
            raise ValueError(f"not an outcome: {outcome!r}; choose confirm or dismiss")
        if ban and outcome != "confirm":
            raise ValueError("only where a case is confirmed can its uploader be banned")
        ruling = Ruling(outcome, note, ban, remember, feedback, self._min_quality)
        ids = [*dict.fromkeys(case_ids)]
        if len(ids) == 1:
            return [self._decide(ids[0], ruling, person)]
        if ids:
            person.require(Role.LEAD)
        results: list[Decided] = []
        failed: str | None = None
        for case_id in ids:
            if failed is not None:
                results.append(Decided(case_id, None, error=f"was not tried: {failed}"))
                continue
            try:
                results.append(self._decide(case_id, ruling, person))
            except (CaseStateError, NotPermittedError, UnknownRecordError) as error:
                results.append(Decided(case_id, None, error=str(error)))
            except LedgerError as error:
                failed = str(error)
                results.append(Decided(case_id, None, error=failed))
        return results

    def feedback(self, *, unsent: bool = True, limit: int = 1000) -> list[Feedback]:
        """What decisions say of lists' entries, for the exchanges to send, in the order in which it was given."""
        with self._database.reading() as connection:
            return case_views.feedback_rows(connection, unsent=unsent, limit=limit)

    def feedback_sent(self, ids: Collection[int]) -> None:
        """Note that these were sent."""
        if not ids:
            return
        feedback = schema.feedback.c
        sent = sa.update(schema.feedback).where(feedback.id.in_(sorted(set(ids))), feedback.sent_at.is_(None))
        with self._database.writing() as connection:
            count = connection.execute(sent.values(sent_at=datetime.now(UTC))).rowcount
            audit.append(connection, "system", "feedback.sent", "feedback", count=count)

    def list(
        self,
        *,
        statuses: Collection[CaseStatus] = _OPEN,
        tenant: str | None = None,
        uploader: str | None = None,
        reason: str | None = None,
        claimed_by: str | None = None,
        escalated: bool | None = None,
        list_name: str | None = None,
        text: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> CasePage:
        """Cases, oldest first, at most 500 at once; ``after`` is a page's ``next_after``.

        The rest is as in :class:`~uploadguard.ledger.case_views.CaseFilter`. Raises ``ValueError`` for another
        ``after``.
        """
        wanted = CaseFilter(statuses, tenant, uploader, reason, claimed_by, escalated, list_name, text)
        with self._database.reading() as connection:
            return case_views.list_cases(connection, wanted, after, limit)

    def show(self, case_id: int) -> CaseDetail:
        """One case with all that belongs to it. Raises :class:`~uploadguard.errors.UnknownRecordError`."""
        with self._database.reading() as connection:
            case = case_of(connection, case_id)
            uploads = case_views.uploads_of(connection, case)
            events = case_views.events_of(connection, case_id)
        return CaseDetail(case, uploads, events, tuple(self._outbox.list(case_id=case_id, limit=_MAX_TASKS)))

    def counts(self) -> Mapping[CaseStatus, int]:
        """How many cases are in each status."""
        with self._database.reading() as connection:
            return case_views.count_cases(connection)

    def claim(self, case_id: int, person: Person) -> Case:
        """Say that one looks at the case, so that others look at others. Idempotent.

        A claim lasts four hours. While it does, only a lead can take it away (:meth:`unclaim`).
        """
        with self._changing(case_id, person) as (connection, case, now):
            _require_undecided(case)
            held = _is_claimed(case, now)
            if held and case.claimed_by != person.name:
                raise CaseStateError(_claimed_text(case))
            if held:
                return case
            was = case.claimed_by
            _log(
                connection, case, person, "claim", now, f"{was} had it before" if was not in (None, person.name) else ""
            )
            return _update(connection, case, now, claimed_by=person.name, claimed_at=now)

    def unclaim(self, case_id: int, person: Person) -> Case:
        """Leave the case to others. Another's claim needs the role ``lead`` while it lasts. Idempotent."""
        with self._changing(case_id, person) as (connection, case, now):
            if case.claimed_by is None:
                return case
            if case.claimed_by != person.name and _is_claimed(case, now) and not person.may(Role.LEAD):
                raise CaseStateError(_claimed_text(case))
            _log(connection, case, person, "unclaim", now, "" if case.claimed_by == person.name else case.claimed_by)
            return _update(connection, case, now, claimed_by=None, claimed_at=None)

    def escalate(self, case_id: int, person: Person, note: str) -> Case:
        """Leave the case to a lead. A proposal is dropped with it."""
        with self._changing(case_id, person) as (connection, case, now):
            _require_undecided(case)
            if case.escalated:
                raise CaseStateError(f"case {case.id} is escalated already: a lead must decide it")
            if _is_claimed(case, now) and case.claimed_by != person.name and not person.may(Role.LEAD):
                raise CaseStateError(_claimed_text(case))
            _log(connection, case, person, "escalate", now, note)
            return _reopen(connection, case, now, escalated=True)

    def requeue(self, case_id: int, person: Person, note: str) -> Case:
        """Put the case back into the queue as it was before somebody decided, proposed or escalated.

        Of a decided or escalated case this needs the role ``lead``; a proposal is for its author, or a lead, to
        withdraw. What a decision led to is taken back as far as it can be: tasks that are not done, local entries,
        feedback that was not sent. A report that was filed stays filed.
        """
        with self._changing(case_id, person) as (connection, case, now):
            if case.status is CaseStatus.PROPOSED:
                if case.proposed_by != person.name and not person.may(Role.LEAD):
                    raise CaseStateError(
                        f"case {case.id}: only {case.proposed_by}, who proposed to {case.proposed} it, or a lead can "
                        "withdraw that; decide it otherwise to have it escalated"
                    )
                _log(connection, case, person, "withdraw", now, note)
                return _reopen(connection, case, now)
            if case.status is CaseStatus.OPEN and not case.escalated:
                raise CaseStateError(f"case {case.id} is in the queue already")
            person.require(Role.LEAD)
            if case.status is CaseStatus.OPEN:
                _log(connection, case, person, "requeue", now, note)
                return _reopen(connection, case, now)
            cancelled = take_back(connection, self._plan, case, person, now)
            _log(connection, case, person, "requeue", now, note, was=case.status.value, cancelled=cancelled)
            return _reopen(connection, case, now, round=case.round + 1, decided_by=None, decided_at=None)

    def comment(self, case_id: int, person: Person, note: str) -> None:
        """Note something. Raises ``ValueError`` for an empty note."""
        if not note.strip():
            raise ValueError("a comment must say something")
        with self._changing(case_id, person) as (connection, case, now):
            _log(connection, case, person, "comment", now, note)
            _update(connection, case, now)

    @contextmanager
    def _changing(self, case_id: int, person: Person) -> Iterator[tuple[Connection, Case, datetime]]:
        person.require(Role.REVIEW)
        with self._database.writing() as connection:
            yield connection, case_of(connection, case_id), datetime.now(UTC)

    def _decide(self, case_id: int, ruling: Ruling, person: Person) -> Decided:
        with self._changing(case_id, person) as (connection, case, now):
            _require_undecided(case)
            if _is_claimed(case, now) and case.claimed_by != person.name and not person.may(Role.LEAD):
                raise CaseStateError(_claimed_text(case))
            if case.escalated and not person.may(Role.LEAD):
                raise NotPermittedError(f"case {case.id} is escalated: deciding it needs the role 'lead'")
            if {ruling.outcome, case.proposed} & self._needs_two:
                if case.status is CaseStatus.OPEN:
                    return _propose(connection, case, ruling, person, now)
                if is_same(case.proposed_by or "", person.name):
                    raise CaseStateError(
                        f"case {case.id}: you proposed to {case.proposed} it, so somebody else must decide; requeue it "
                        "to withdraw that"
                    )
                if case.proposed != ruling.outcome:
                    _log(connection, case, person, "disagree", now, ruling.note, outcome=ruling.outcome)
                    _reopen(connection, case, now, escalated=True)
                    return Decided(case.id, CaseStatus.OPEN)
            tasks, remembered = carry_out(connection, self._plan, case, ruling, person, now)
            _log(
                connection, case, person, ruling.outcome, now, ruling.note, tasks=tasks, remembered=remembered,
                round=case.round, ban=ruling.ban,
            )  # fmt: skip
            status = _STATUS_OF[ruling.outcome]
            _reopen(connection, case, now, status=status.value, decided_by=person.name, decided_at=now)
            return Decided(case.id, status, tasks=tasks)


def _propose(connection: Connection, case: Case, ruling: Ruling, person: Person, now: datetime) -> Decided:
    _log(connection, case, person, "propose", now, ruling.note, outcome=ruling.outcome)
    proposed = {"status": CaseStatus.PROPOSED.value, "proposed": ruling.outcome, "proposed_by": person.name}
    _reopen(connection, case, now, **proposed)
    return Decided(case.id, CaseStatus.PROPOSED, proposed=True)


def _require_undecided(case: Case) -> None:
    if case.status.is_decided:
        at = f"{case.decided_at:%Y-%m-%d %H:%M} UTC" if case.decided_at is not None else "some time"
        raise CaseStateError(
            f"case {case.id} was {case.status} by {case.decided_by} at {at}; a lead can requeue it, to have it decided "
            "anew"
        )


def _is_claimed(case: Case, now: datetime) -> bool:
    return case.claimed_by is not None and case.claimed_at is not None and now - case.claimed_at < CLAIM_LASTS


def _claimed_text(case: Case) -> str:
    assert case.claimed_at is not None
    return (
        f"case {case.id} is claimed by {case.claimed_by} until {case.claimed_at + CLAIM_LASTS:%Y-%m-%d %H:%M} UTC; ask "
        "for it to be unclaimed, claim it after that, or leave it to a lead"
    )


def _log(
    connection: Connection, case: Case, person: Person, kind: str, now: datetime, note: str = "", **detail: Any
) -> None:
    """One event of the case, and one entry of the audit log, which has no notes: it is kept for ever."""
    text = note.strip().replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")[:MAX_NOTE]
    connection.execute(
        sa.insert(schema.case_events).values(case_id=case.id, at=now, actor=person.name, kind=kind, note=text)
    )
    audit.append(connection, person.name, f"case.{kind}", f"case:{case.id}", **detail)


def _update(connection: Connection, case: Case, now: datetime, **values: Any) -> Case:
    connection.execute(sa.update(schema.cases).where(schema.cases.c.id == case.id).values(updated_at=now, **values))
    return case_of(connection, case.id)


def _reopen(connection: Connection, case: Case, now: datetime, **values: Any) -> Case:
    """Open, for anybody, without claim and proposal; but for what ``values`` say."""
    plain = {"status": CaseStatus.OPEN.value, "escalated": False, "claimed_by": None, "claimed_at": None}
    plain |= {"proposed": None, "proposed_by": None}
    return _update(connection, case, now, **(plain | values))
