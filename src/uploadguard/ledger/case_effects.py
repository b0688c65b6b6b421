"""What a decision on a case leads to, in the transaction that decides: tasks, entries of the local lists, feedback.

And how it is undone where the case is opened again. While a case is open, or waits for a second person, exactly those
of its uploads have a live report for which a rule made one due; while it is confirmed, all of them; while it is
dismissed, none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Occasion, State
from uploadguard.ledger import schema
from uploadguard.ledger.case_views import Case, CaseStatus, Outcome
from uploadguard.ledger.codec import decision_of, indexed_text
from uploadguard.ledger.outbox import cancel_tasks
from uploadguard.ledger.people import Person
from uploadguard.ledger.recording import Plan, add_tasks
from uploadguard.lists.local import CONFIRMED_LIST, DISMISSED_LIST, LOCAL_LISTS
from uploadguard.models import Decision, Hash, Verdict

__all__ = ["Remember", "Ruling", "carry_out", "take_back"]

Remember = bool | Literal["perceptual"]

_DIGESTS = frozenset({"sha256", "sha1", "md5"})
_PERCEPTUAL = frozenset({"pdq"})
_ORIGINAL = "original"
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one person decides, and what should come of it.

    ``remember`` puts hashes on the local list of that outcome; ``"perceptual"`` counts for dismissals, which otherwise
    remember the bytes alone. ``min_quality`` is the least PDQ quality to remember.
    """

    outcome: Outcome
    note: str = ""
    ban: bool = False
    remember: Remember = True
    feedback: bool = True
    min_quality: int = 50


def carry_out(
    connection: Connection, plan: Plan, case: Case, ruling: Ruling, person: Person, now: datetime
) -> tuple[int, int]:
    """What the decision of an undecided case leads to. Returns how many tasks, and how many local entries, it added."""
    uploads = _uploads(connection, case.id)
    ids = [upload.id for upload in uploads]
    if ruling.outcome == "confirm":
        added = add_tasks(connection, plan, Occasion.REPORT, ids, case.id, now=now)
        added += add_tasks(connection, plan, Occasion.DELETE, ids, case.id, case_round=case.round, now=now)
        if ruling.ban:
            added += add_tasks(connection, plan, Occasion.BAN, ids[-1:], case.id, case_round=case.round, now=now)
    else:
        cancel_tasks(connection, _undone_tasks(connection, case.id, reports=True), person.name, now)
        added = add_tasks(connection, plan, Occasion.RELEASE, ids, case.id, case_round=case.round, now=now)
    remembered = _remember(connection, case.id, uploads, ruling, person, now) if ruling.remember else 0
    if ruling.feedback:
        _give_feedback(connection, case.id, uploads, "right" if ruling.outcome == "confirm" else "wrong", person, now)
    return added, remembered


def take_back(connection: Connection, plan: Plan, case: Case, person: Person, now: datetime) -> int:
    """Undo what the decision of a decided case led to, as far as it can be. Returns how many tasks were taken back."""
    due = [upload.id for upload in _uploads(connection, case.id) if upload.report_due]
    tasks = _undone_tasks(connection, case.id, reports=False)
    if case.status is CaseStatus.CONFIRMED:
        tasks += _undone_tasks(connection, case.id, reports=True, but_of=due)
    taken = cancel_tasks(connection, tasks, person.name, now)
    if case.status is CaseStatus.DISMISSED:
        add_tasks(connection, plan, Occasion.REPORT, due, case.id, now=now)
    live = connection.execute(_live_entries(schema.local_entries.c.case_id == case.id)).all()
    _remove_entries(connection, [_Entry(*row) for row in live], person, now)
    feedback = schema.feedback.c
    connection.execute(sa.delete(schema.feedback).where(feedback.case_id == case.id, feedback.sent_at.is_(None)))
    return taken[State.PENDING] + taken[State.OPENED] + taken[State.REFUSED]


@dataclass(frozen=True, slots=True)
class _Upload:
    """``report_due``: a rule asked for a report, whatever a person says of it."""

    id: int
    decision: Decision
    report_due: bool


def _uploads(connection: Connection, case_id: int) -> list[_Upload]:
    decisions = schema.decisions.c
    rows = connection.execute(
        sa.select(decisions.id, decisions.record).where(decisions.case_id == case_id).order_by(decisions.id)
    )
    found = [(row.id, decision_of(row.record)) for row in rows]
    return [_Upload(i, one, one.report_due and one.verdict is Verdict.BLOCK) for i, one in found]


def _undone_tasks(connection: Connection, case_id: int, *, reports: bool, but_of: Sequence[int] = ()) -> list[int]:
    tasks = schema.tasks.c
    report = Occasion.REPORT.value
    query = sa.select(tasks.id).where(
        tasks.case_id == case_id,
        tasks.state.in_([state.value for state in (State.PENDING, State.OPENED, State.REFUSED)]),
        tasks.occasion == report if reports else tasks.occasion != report,
    )
    return list(connection.execute(query.where(tasks.decision_id.not_in(but_of))).scalars())


def _remember(
    connection: Connection,
    case_id: int,
    uploads: Iterable[_Upload],
    ruling: Ruling,
    person: Person,
    now: datetime,
) -> int:
    """Put the uploads' hashes on the outcome's local list.

    A file that was confirmed in any case is on no allow-list: confirming takes it off, dismissing does not put it on.
    """
    confirming = ruling.outcome == "confirm"
    list_name, other = (CONFIRMED_LIST, DISMISSED_LIST) if confirming else (DISMISSED_LIST, CONFIRMED_LIST)
    entries: dict[tuple[str, ...], int] = {}
    for upload in uploads:
        hashes = _confirmed_hashes(upload, ruling) if confirming else _dismissed_hashes(upload, ruling)
        if hashes:
            entries.setdefault(tuple(dict.fromkeys(_key(one) for one in hashes)), upload.id)
    contested = list(_entries_with(connection, other, set(chain.from_iterable(entries))))
    if confirming:
        _remove_entries(connection, sorted({entry for _, entry in contested}), person, now)
    else:
        known = {key for key, _ in contested}
        kept = ((tuple(key for key in keys if key not in known), upload_id) for keys, upload_id in entries.items())
        entries = {keys: upload_id for keys, upload_id in kept if keys}
    if not entries:
        return 0
    rows = [
        {
            "list_name": list_name,
            "entry_id": f"case-{case_id}-{upload_id}",
            "hashes": [key.split(":", 1) for key in keys],
            "case_id": case_id,
            "actor": person.name,
            "at": now,
        }
        for keys, upload_id in entries.items()
    ]
    inserted = sa.insert(schema.local_entries).returning(schema.local_entries.c.seq, sort_by_parameter_order=True)
    numbers = connection.execute(inserted, rows).scalars().all()
    keys_of = zip(numbers, entries, strict=True)
    connection.execute(
        sa.insert(schema.local_keys), [{"seq": seq, "key": key} for seq, keys in keys_of for key in keys]
    )
    return len(rows)


def _key(found: Hash) -> str:
    return f"{found.signal_type}:{found.value.hex()}"


def _perceptual(decision: Decision, ruling: Ruling) -> Iterator[Hash]:
    """Hashes of the frames as they are, not of turned forms, thumbnails and the like."""
    for one in decision.hashes:
        if one.signal_type in _PERCEPTUAL and one.variant == _ORIGINAL and (one.quality or 0) >= ruling.min_quality:
            yield one


def _matched_frames(decision: Decision) -> set[int]:
    return {match.frame for match in decision.matches if not match.allow and match.signal_type in _PERCEPTUAL}


def _confirmed_hashes(upload: _Upload, ruling: Ruling) -> list[Hash]:
    """The digests, and the frames that matched; all frames where it was not by a frame that the upload was found."""
    digests = [one for one in upload.decision.hashes if one.signal_type in _DIGESTS]
    frames = _matched_frames(upload.decision)
    return digests + [one for one in _perceptual(upload.decision, ruling) if not frames or one.frame in frames]


def _dismissed_hashes(upload: _Upload, ruling: Ruling) -> list[Hash]:
    """SHA-256, of which nobody can make two files; and, if asked for, the frames that matched."""
    found = [one for one in upload.decision.hashes if one.signal_type == "sha256"]
    if ruling.remember == "perceptual":
        frames = _matched_frames(upload.decision)
        found += [one for one in _perceptual(upload.decision, ruling) if one.frame in frames]
    return found


class _Entry(NamedTuple):
    """A live entry of a local list."""

    list_name: str
    entry_id: str
    case_id: int


def _live_entries(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The entries that were not taken back."""
    entries, later = schema.local_entries.c, schema.local_entries.alias("later").c
    superseded = sa.exists().where(
        later.list_name == entries.list_name, later.entry_id == entries.entry_id, later.seq > entries.seq
    )
    return sa.select(entries.list_name, entries.entry_id, entries.case_id).where(
        entries.removed.is_(sa.false()), ~superseded, *conditions
    )


def _entries_with(connection: Connection, list_name: str, keys: Iterable[str]) -> Iterator[tuple[str, _Entry]]:
    """The live entries of a list that have any of these hashes, each with that hash."""
    entries, local_keys = schema.local_entries.c, schema.local_keys
    ordered = sorted(keys)
    for start in range(0, len(ordered), _BATCH):
        query = _live_entries(
            entries.list_name == list_name, local_keys.c.key.in_(ordered[start : start + _BATCH])
        ).add_columns(local_keys.c.key)
        joined = query.select_from(
            schema.local_entries.join(local_keys, local_keys.c.seq == schema.local_entries.c.seq)
        )
        for row in connection.execute(joined):
            yield row.key, _Entry(row.list_name, row.entry_id, row.case_id)


def _remove_entries(connection: Connection, entries: Iterable[_Entry], person: Person, now: datetime) -> None:
    rows = [
        {
            "list_name": entry.list_name,
            "entry_id": entry.entry_id,
            "hashes": [],
            "removed": True,
            "case_id": entry.case_id,
            "actor": person.name,
            "at": now,
        }
        for entry in entries
    ]
    if rows:
        connection.execute(sa.insert(schema.local_entries), rows)


def _give_feedback(
    connection: Connection, case_id: int, uploads: Iterable[_Upload], opinion: str, person: Person, now: datetime
) -> None:
    """Keep what the decision says of each entry that matched, the local lists' aside.

    Where the opposite was sent in an earlier round, it is to be sent anew: the latest counts.
    """
    matched = {
        (indexed_text(match.list_name), indexed_text(match.entry_id))
        for upload in uploads
        for match in upload.decision.matches
        if not match.allow and match.list_name not in LOCAL_LISTS
    }
    feedback = schema.feedback.c
    present = connection.execute(sa.select(schema.feedback).where(feedback.case_id == case_id)).all()
    overruled = {(row.list_name, row.entry_id) for row in present if row.opinion != opinion}
    same = {(row.list_name, row.entry_id): row.id for row in present if row.opinion == opinion}
    stale = [same[entry] for entry in matched & overruled if entry in same]
    connection.execute(sa.delete(schema.feedback).where(feedback.id.in_(stale)))
    rows = [
        {
            "list_name": list_name,
            "entry_id": entry_id,
            "opinion": opinion,
            "case_id": case_id,
            "actor": person.name,
            "at": now,
        }
        for list_name, entry_id in sorted(matched)
        if (list_name, entry_id) in overruled or (list_name, entry_id) not in same
    ]
    if rows:
        connection.execute(sa.insert(schema.feedback), rows)
