"""The preserved files as people and actions see them: who opens one, why, and for how long it is kept.

Whoever opens a file stands in the audit log with the reason, and that is committed before anything is decrypted: where
the log cannot be written, nothing is shown.

What counts as a view. A report that says that the file was viewed (``fileViewedByEsp``) may be what investigators open
it on, without a warrant; said falsely, it can cost the case, while to say it too rarely costs a formality. So a file
counts as viewed once a person was shown all of its one frame in the clear. The blurred preview is a hundred grey cells
or so, an animation's preview one frame of several, and a file that was exported may have been looked at by nobody: none
of these is a view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.actions import Evidence
from uploadguard.errors import EvidenceError, UnknownRecordError
from uploadguard.ledger import audit, schema
from uploadguard.ledger.database import Database
from uploadguard.ledger.evidence_sweep import sweep
from uploadguard.ledger.holds import is_held
from uploadguard.ledger.people import Person, Role
from uploadguard.ledger.vault import Vault

__all__ = ["EvidenceInfo", "EvidenceRoom", "PreviewMaker"]

_MAX_REASON: Final = 1000
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class EvidenceInfo:
    """What is known of a preserved file. Times are UTC; ``held``: under a legal hold, by itself or with its case.

    It is kept until ``keep_until`` at the least, None is for ever. ``viewed_at``: when somebody was first shown all of
    it, in the clear.
    """

    decision_id: int
    case_id: int | None
    size_bytes: int
    media_type: str | None
    stored_at: datetime
    keep_until: datetime | None
    viewed_at: datetime | None
    destroyed_at: datetime | None
    held: bool


class PreviewMaker(Protocol):
    """Makes a PNG of a picture file's frame; blurred and grey unless it is to be clear."""

    def __call__(self, data: bytes, clear: bool, frame: int, /) -> bytes:
        """Raises :class:`~uploadguard.errors.EvidenceError` where no preview can be made."""


class EvidenceRoom:
    """Opens preserved files, and destroys them. Shared between threads."""

    def __init__(
        self,
        database: Database,
        vault: Vault | None,
        preview: PreviewMaker,
        *,
        is_spooling: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_spooling`` says whether decisions still wait for the database, whose files it does not know yet."""
        self._database = database
        self._vault = vault
        self._preview = preview
        self._is_spooling = is_spooling

    def info(self, decision_id: int) -> EvidenceInfo | None:
        """What is known of a decision's file; None where none was preserved."""
        with self._database.reading() as connection:
            row = connection.execute(_infos().where(schema.evidence.c.decision_id == decision_id)).one_or_none()
        return None if row is None else EvidenceInfo(**row._mapping)

    def list(
        self, *, case_id: int | None = None, destroyed: bool = False, after: int = 0, limit: int = _PAGE
    ) -> list[EvidenceInfo]:
        """Preserved files in order of their decisions, from behind decision ``after``; ``destroyed`` ones too."""
        evidence = schema.evidence.c
        found = _infos().where(evidence.decision_id > after).order_by(evidence.decision_id).limit(limit)
        if case_id is not None:
            found = found.where(schema.decisions.c.case_id == case_id)
        if not destroyed:
            found = found.where(evidence.destroyed_at.is_(None))
        with self._database.reading() as connection:
            return [EvidenceInfo(**row._mapping) for row in connection.execute(found)]

    def preview(self, decision_id: int, person: Person, reason: str, *, clear: bool = False, frame: int = 0) -> bytes:
        """A PNG of a preserved picture, or of a frame of it, counted from 0; blurred and grey unless ``clear``.

        Needs the role REVEAL. Raises :class:`~uploadguard.errors.NotPermittedError`,
        :class:`~uploadguard.errors.UnknownRecordError`, :class:`~uploadguard.errors.EvidenceError` where there is
        nothing to show, and ``ValueError`` without a reason.
        """
        person.require(Role.REVEAL)
        row = self._admit(decision_id, person.name, "reveal", reason, clear=clear, frame=frame)
        png = self._preview(self._read(row), clear, frame)
        if clear and _frames_of(row) == 1:
            self._note_view(row, person)
        return png

    def export(self, decision_id: int, person: Person, reason: str) -> Evidence:
        """A preserved file as it was uploaded. Needs the role EVIDENCE. Raises as :meth:`preview` does."""
        person.require(Role.EVIDENCE)
        row = self._admit(decision_id, person.name, "export", reason)
        return Evidence(self._read(row), row.media_type)

    def for_action(self, decision_id: int, action: str) -> Evidence | None:
        """The file for an action that carries a task out; None where none was preserved, or it is gone.

        Raises :class:`~uploadguard.errors.EvidenceError` for one that cannot be read.
        """
        with self._database.writing() as connection:
            row = _find(connection, decision_id)
            if row is None or row.destroyed_at is not None:
                return None
            audit.append(connection, "outbox", "evidence.send", f"decision:{decision_id}", to=action)
        return Evidence(self._read(row), row.media_type)

    def destroy(self, decision_id: int, person: Person, order: str) -> None:
        """Destroy a file on order, before its time. ``order`` says whose, as a file number.

        From when this is in the ledger the file is opened no more; it is gone when this returns. Where the disk
        refuses, :meth:`sweep` tries again. Needs the role EVIDENCE. Raises
        :class:`~uploadguard.errors.NotPermittedError`, :class:`~uploadguard.errors.UnknownRecordError`,
        :class:`~uploadguard.errors.EvidenceError` under a legal hold or where it is destroyed already, and
        ``ValueError`` without an order.
        """
        person.require(Role.EVIDENCE)
        order = _line(order, "an order")
        vault = self._need_vault()
        with self._database.writing() as connection:
            row = _find_open(connection, decision_id)
            if is_held(connection, decision_id):
                raise EvidenceError("the preserved file is under a legal hold; it must not be destroyed")
            connection.execute(_marked_destroyed([row.id], datetime.now(UTC)))
            _log(connection, row, person.name, "destroy", order)
        vault.remove(row.file)
        with self._database.writing() as connection:
            audit.append(connection, person.name, "evidence.erased", f"decision:{decision_id}")

    def renew(self, person: Person) -> int:
        """Encrypt every file anew that is not encrypted with the vault's first key; returns how many.

        Then the other keys are needed no more. Destroying them destroys what was encrypted with them wherever copies
        are. Needs the role EVIDENCE. Raises :class:`~uploadguard.errors.EvidenceError` where a file cannot be read.
        """
        person.require(Role.EVIDENCE)
        vault = self._need_vault()
        with self._database.writing() as connection:
            audit.append(connection, person.name, "evidence.renew", "vault")
        renewed, after = 0, 0
        evidence = schema.evidence.c
        page = sa.select(evidence.id, evidence.file).where(evidence.destroyed_at.is_(None)).order_by(evidence.id)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(page.where(evidence.id > after).limit(_PAGE)).all()
            if not rows:
                return renewed
            for row in rows:
                try:
                    renewed += vault.renew(row.file)
                except EvidenceError:
                    if self._is_open(row.id):
                        raise
                if not self._is_open(row.id):
                    vault.remove(row.file)
            after = rows[-1].id

    def sweep(self, now: datetime | None = None) -> int:
        """Destroy what need not be kept any longer, and remove what no decision leads to; returns how many files.

        A file is kept beyond its time under a legal hold, as long as its case is open or something is to be done about
        its decision, and for as long again after it was reported. Files that no decision leads to are removed when they
        are a day old, unless decisions wait for the database. Raises :class:`~uploadguard.errors.EvidenceError`.
        """
        if self._vault is None:
            return 0
        return sweep(self._database, self._vault, now or datetime.now(UTC), orphans=not self._is_spooling())

    def _admit(self, decision_id: int, actor: str, act: str, reason: str, **detail: Any) -> sa.Row[Any]:
        """The row of a file that may be opened now, since it is in the audit log."""
        reason = _line(reason, "a reason")
        self._need_vault()
        with self._database.writing() as connection:
            row = _find_open(connection, decision_id)
            _log(connection, row, actor, act, reason, **detail)
        return row

    def _read(self, row: sa.Row[Any]) -> bytes:
        return self._need_vault().read(row.file, row.sha256, reference=row.reference)

    def _need_vault(self) -> Vault:
        if self._vault is None:
            raise EvidenceError("preserved files cannot be opened: evidence.path is not set")
        return self._vault

    def _note_view(self, row: sa.Row[Any], person: Person) -> None:
        """Once there is a picture to show, and before it is handed over."""
        evidence, cases = schema.evidence.c, schema.cases.c
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            noted = connection.execute(
                sa.update(schema.evidence)
                .where(evidence.id == row.id, evidence.viewed_at.is_(None))
                .values(viewed_at=now)
            )
            if not noted.rowcount:
                return
            if row.case_id is not None:
                connection.execute(sa.update(schema.cases).where(cases.id == row.case_id).values(viewed=True))
            audit.append(connection, person.name, "evidence.viewed", f"decision:{row.decision_id}")

    def _is_open(self, evidence_id: int) -> bool:
        evidence = schema.evidence.c
        with self._database.reading() as connection:
            found = connection.execute(sa.select(evidence.destroyed_at).where(evidence.id == evidence_id)).one_or_none()
        return found is not None and found.destroyed_at is None


def _infos() -> sa.Select[Any]:
    evidence, decisions, cases = schema.evidence.c, schema.decisions, schema.cases
    joined = schema.evidence.join(decisions, decisions.c.id == evidence.decision_id).outerjoin(
        cases, cases.c.id == decisions.c.case_id
    )
    return sa.select(
        evidence.decision_id,
        decisions.c.case_id,
        evidence.size_bytes,
        evidence.media_type,
        evidence.stored_at,
        evidence.keep_until,
        evidence.viewed_at,
        evidence.destroyed_at,
        sa.or_(decisions.c.legal_hold, sa.func.coalesce(cases.c.legal_hold, sa.false())).label("held"),
    ).select_from(joined)


def _find(connection: Connection, decision_id: int) -> sa.Row[Any] | None:
    evidence, decisions = schema.evidence, schema.decisions.c
    return connection.execute(
        sa.select(evidence, decisions.reference, decisions.case_id, decisions.record)
        .join(schema.decisions, decisions.id == evidence.c.decision_id)
        .where(evidence.c.decision_id == decision_id)
    ).one_or_none()


def _find_open(connection: Connection, decision_id: int) -> sa.Row[Any]:
    row = _find(connection, decision_id)
    if row is None:
        raise UnknownRecordError(f"no file is preserved for decision {decision_id}")
    if row.destroyed_at is not None:
        raise EvidenceError(f"the preserved file was destroyed on {row.destroyed_at:%Y-%m-%d}")
    return row


def _log(connection: Connection, row: sa.Row[Any], actor: str, act: str, note: str, **detail: Any) -> None:
    """In the audit log, and in what was done to the case."""
    audit.append(connection, actor, f"evidence.{act}", f"decision:{row.decision_id}", note=note, **detail)
    if row.case_id is not None:
        connection.execute(
            sa.insert(schema.case_events).values(
                case_id=row.case_id,
                at=datetime.now(UTC),
                actor=actor,
                kind=act,
                note=f"decision:{row.decision_id}: {note}",
            )
        )


def _marked_destroyed(ids: list[int], now: datetime) -> sa.Update:
    return sa.update(schema.evidence).where(schema.evidence.c.id.in_(ids)).values(destroyed_at=now)


def _frames_of(row: sa.Row[Any]) -> int | None:
    """How many frames the check found; None where it did not come so far."""
    frames: int | None = row.record["media"].get("frames_total")
    return frames


def _line(text: str, what: str) -> str:
    """What somebody wrote, as one line that every database takes. Raises ``ValueError`` where nothing is left."""
    plain = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    plain = plain.strip()[:_MAX_REASON]
    if not plain:
        raise ValueError(f"this needs {what}")
    return plain
