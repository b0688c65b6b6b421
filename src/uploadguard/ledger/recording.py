"""What is written when a decision is recorded: decision, case, tasks, the preserved file, all in one transaction.

Recording is idempotent by the decision's reference: a decision may come twice, from a check that gave up waiting and
then from the spool, and is written once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Action, Occasion, SelectiveAction, State
from uploadguard.ledger import audit, schema
from uploadguard.ledger.codec import Recorded, decision_of, from_record, indexed_text
from uploadguard.logs import log
from uploadguard.models import Decision, Verdict

__all__ = ["MAX_CASE_UPLOADS", "Plan", "RecordedIds", "add_tasks", "case_keys", "record"]

_ENDED = (State.FILED.value, State.CANCELLED.value)

MAX_CASE_UPLOADS = 200
"""A case takes in no more: it is decided in one transaction, which those who record wait for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings and the actions say of recording.

    ``occasions`` has what each action wants tasks for, by its name; ``selective`` those that are asked each time.
    """

    occasions: Mapping[str, frozenset[Occasion]]
    join_window: timedelta = timedelta(hours=24)
    report_within: timedelta = timedelta(hours=24)
    block_opens_case: bool = False
    selective: Mapping[str, SelectiveAction] = field(default_factory=dict)

    @classmethod
    def of(cls, actions: Iterable[Action], **values: Any) -> Plan:
        """The plan for these actions."""
        all_of_them = list(actions)
        return cls(
            {action.name: action.occasions for action in all_of_them},
            selective={action.name: action for action in all_of_them if isinstance(action, SelectiveAction)},
            **values,
        )


@dataclass(frozen=True, slots=True)
class RecordedIds:
    """What a recorded decision became. ``new`` is False where it was there already."""

    decision_id: int
    case_id: int | None
    new: bool


def record(
    connection: Connection, records: Sequence[Mapping[str, Any]], plan: Plan, *, now: datetime | None = None
) -> list[RecordedIds]:
    """Write records of :func:`~uploadguard.ledger.codec.to_record` in one transaction of ``Database.writing``.

    A record may have ``evidence``: what the vault says of the stored file. ``now`` is for tests.
    """
    return [_record(connection, one, plan, now or datetime.now(UTC)) for one in records]


def _record(connection: Connection, found: Mapping[str, Any], plan: Plan, now: datetime) -> RecordedIds:
    decisions = schema.decisions.c
    present = connection.execute(
        sa.select(decisions.id, decisions.case_id).where(decisions.reference == found["reference"])
    ).one_or_none()
    if present is not None:
        return RecordedIds(present.id, present.case_id, new=False)
    decision = decision_of(found)
    context = found["context"]
    decided_at = datetime.fromisoformat(found["decided_at"])
    opens_case = decision.verdict is Verdict.QUEUE or (plan.block_opens_case and decision.verdict is Verdict.BLOCK)
    case_id = _join_or_open(connection, decision, context, decided_at, plan, now) if opens_case else None
    decision_id = connection.execute(
        sa.insert(schema.decisions).values(
            reference=decision.reference,
            decided_at=decided_at,
            verdict=decision.verdict.label,
            report_due=decision.report_due,
            media_type=decision.media.media_type,
            tenant=_column(context.get("tenant")),
            uploader=_column(context.get("uploader")),
            object_id=_column(context.get("object_id")),
            record={key: value for key, value in found.items() if key != "evidence"},
            case_id=case_id,
        )
    ).inserted_primary_key[0]  # type: ignore[index]
    if (stored := found.get("evidence")) is not None:
        _add_evidence(connection, decision_id, stored)
    if decision.report_due and decision.verdict is Verdict.BLOCK:
        add_tasks(connection, plan, Occasion.REPORT, decision_id, case_id, now=now)
    audit.append(
        connection, "guard", "decision.record", f"decision:{decision_id}", verdict=decision.verdict.label, case=case_id
    )
    return RecordedIds(decision_id, case_id, new=True)


def add_tasks(
    connection: Connection,
    plan: Plan,
    occasion: Occasion,
    decisions: int | Collection[int],
    case_id: int | None,
    *,
    case_round: int = 0,
    now: datetime,
) -> int:
    """Put a task for each of these decisions, by id, into the outbox of each action that wants this occasion.

    Returns how many. Reports always have the round 0, so that no decision is reported twice to one destination,
    whatever becomes of its case: for one that is there already nothing is added, but one that was cancelled is revived,
    and one that is being taken back is not taken back any more.
    """
    ids = {decisions} if isinstance(decisions, int) else set(decisions)
    wanting = {action for action, wanted in plan.occasions.items() if occasion in wanted}
    if not ids or not wanting:
        return 0
    if occasion is Occasion.REPORT:
        case_round = 0
    tasks = schema.tasks.c
    present = connection.execute(
        sa.select(tasks.id, tasks.decision_id, tasks.action, tasks.state, tasks.cancelled).where(
            tasks.decision_id.in_(ids),
            tasks.action.in_(wanting),
            tasks.occasion == occasion.value,
            tasks.round == case_round,
        )
    ).all()
    fresh = {"state": State.PENDING.value, "next_at": now, "cancelled": False, "done_at": None, "error": None}
    there = {(row.decision_id, row.action) for row in present}
    pairs = [(one, action) for one in sorted(ids) for action in sorted(wanting) if (one, action) not in there]
    declined = _declined(connection, plan, occasion, pairs)
    missing = [
        {
            "key": str(uuid.uuid4()),
            "action": action,
            "occasion": occasion.value,
            "round": case_round,
            "decision_id": decision_id,
            "case_id": case_id,
            "created_at": now,
            "due_at": now + plan.report_within if occasion is Occasion.REPORT else None,
            "notes": {},
            **fresh,
        }
        for decision_id, action in pairs
        if (decision_id, action) not in declined
    ]
    if missing:
        connection.execute(sa.insert(schema.tasks), missing)
    gone = [row.id for row in present if row.state == State.CANCELLED.value]
    if gone:
        revived = sa.update(schema.tasks).where(tasks.id.in_(gone)).values(remote_id=None, notes={}, **fresh)
        connection.execute(revived)
    leaving = [row.id for row in present if row.cancelled and row.state not in _ENDED]
    if leaving:
        refused_in = sa.func.coalesce(tasks.refused_in, State.PENDING.value)
        state = sa.case((tasks.state == State.REFUSED.value, refused_in), else_=tasks.state)
        kept = sa.update(schema.tasks).where(tasks.id.in_(leaving))
        connection.execute(kept.values(state=state, refused_in=None, cancelled=False, next_at=now))
    return len(missing) + len(gone) + len(leaving)


def _declined(
    connection: Connection, plan: Plan, occasion: Occasion, pairs: Collection[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Those of the pairs of decision and action in which the action does not want a task for the decision."""
    asked = [pair for pair in pairs if pair[1] in plan.selective]
    if not asked:
        return set()
    decisions = schema.decisions.c
    rows = connection.execute(
        sa.select(decisions.id, decisions.record).where(decisions.id.in_({decision_id for decision_id, _ in asked}))
    )
    found = {row.id: from_record(row.record) for row in rows}
    return {
        (decision_id, action)
        for decision_id, action in asked
        if not _wants(plan.selective[action], found[decision_id], occasion)
    }


def _wants(action: SelectiveAction, found: Recorded, occasion: Occasion) -> bool:
    try:
        return action.wants(found.decision, found.context, occasion)
    except Exception as error:  # noqa: BLE001 - a plugin's fault must lose no report
        log.error("action %s: wants raised %s; taken for yes", action.name, type(error).__name__)
        return True


def case_keys(decision: Decision) -> list[str]:
    """What makes two uploads one matter: each entry that they match, else the digest of their bytes."""
    keys = {f"entry:{m.list_name}/{m.entry_id}" for m in decision.matches if not m.allow}
    if not keys:
        digests = (one for one in decision.hashes if one.signal_type in _DIGESTS)
        longest = max(digests, key=lambda one: len(one.value), default=None)
        keys = {f"{longest.signal_type}:{longest.value.hex()}"} if longest is not None else set()
    return sorted({indexed_text(key) for key in keys})


_DIGESTS = ("sha256", "sha1", "md5")


def _join_or_open(
    connection: Connection,
    decision: Decision,
    context: Mapping[str, Any],
    decided_at: datetime,
    plan: Plan,
    now: datetime,
) -> int:
    keys = case_keys(decision)
    uploader, tenant = _column(context.get("uploader")), _column(context.get("tenant"))
    cases = schema.cases.c
    joined = None
    if keys and uploader is not None:
        joined = connection.execute(
            sa.select(cases.id, cases.verdict)
            .where(
                cases.status == "open",
                cases.uploads < MAX_CASE_UPLOADS,
                cases.uploader == uploader,
                cases.tenant.is_(None) if tenant is None else cases.tenant == tenant,
                cases.opened_at >= decided_at - plan.join_window,
                cases.id.in_(sa.select(schema.case_keys.c.case_id).where(schema.case_keys.c.key.in_(keys))),
            )
            .order_by(cases.id)
            .limit(1)
        ).one_or_none()
    if joined is not None:
        case_id: int = joined.id
        verdict = max(Verdict.from_label(joined.verdict), decision.verdict)
        connection.execute(
            sa.update(schema.cases)
            .where(cases.id == case_id)
            .values(uploads=cases.uploads + 1, verdict=verdict.label, updated_at=now)
        )
        have = set(
            connection.execute(sa.select(schema.case_keys.c.key).where(schema.case_keys.c.case_id == case_id)).scalars()
        )
        keys = [key for key in keys if key not in have]
    else:
        case_id = connection.execute(
            sa.insert(schema.cases).values(
                status="open",
                opened_at=decided_at,
                updated_at=now,
                verdict=decision.verdict.label,
                reason=decision.reasons[0] if decision.reasons else "",
                tenant=tenant,
                uploader=uploader,
                uploads=1,
            )
        ).inserted_primary_key[0]  # type: ignore[index]
    if keys:
        connection.execute(sa.insert(schema.case_keys), [{"case_id": case_id, "key": key} for key in keys])
    return case_id


def _column(value: object) -> str | None:
    """A value of the context; records of the spool may have been written by another version."""
    return None if value is None else indexed_text(str(value))


def _add_evidence(connection: Connection, decision_id: int, stored: Mapping[str, Any]) -> None:
    connection.execute(
        sa.insert(schema.evidence).values(
            decision_id=decision_id,
            file=stored["file"],
            sha256=bytes.fromhex(stored["sha256"]),
            size_bytes=stored["size_bytes"],
            media_type=stored["media_type"],
            stored_at=datetime.fromisoformat(stored["stored_at"]),
            keep_until=datetime.fromisoformat(stored["keep_until"]) if stored["keep_until"] else None,
        )
    )
