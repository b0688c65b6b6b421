"""Verifies the audit log: whether an entry, the head or a checkpoint was changed, taken out, put in or moved."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from uploadguard.ledger import schema
from uploadguard.ledger.audit import AuditEntry, Head, Row, chained, parse_entry, read_log
from uploadguard.ledger.checkpoints import ACTION, Checkpoint, PublicKey, load_checkpoints

if TYPE_CHECKING:
    from uploadguard.ledger.database import Database

__all__ = ["AuditReport", "Fault", "FaultKind", "Verifier", "verify"]

MAX_FAULTS = 100
"""How many faults a report names; it counts all."""

_PROGRESS_EVERY = 1000
_OVERDUE = timedelta(hours=3)
_DIGEST_BYTES = 32

Progress = Callable[[int, int | None], None]
"""Called now and then with how many entries are verified, and of how many, if that is known."""


class FaultKind(enum.StrEnum):
    """What is wrong. Stable."""

    ALTERED = "altered"
    """An entry or its digest is not what was written."""
    MISNUMBERED = "misnumbered"
    """An entry stands under another number than it was written with."""
    MISSING = "missing"
    """Entries are not there."""
    INSERTED = "inserted"
    """A row that no entry was ever written to, or a number that is there twice."""
    HEAD = "head"
    """The log's end is not where its head says."""
    SIGNATURE = "signature"
    """A checkpoint was changed, or signed by somebody else."""
    REWRITTEN = "rewritten"
    """The log is not the one that was signed."""
    CHECKPOINT = "checkpoint"
    """A checkpoint was taken out, or put in."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. ``seq`` is the number of the entry, ``text`` says what it means."""

    seq: int
    kind: FaultKind
    text: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found. ``faults`` has the first hundred by number; ``faults_total`` counts all.

    Entries up to ``signed_to`` are covered by a good signature, made at ``signed_at``; ``unprotected`` entries came
    after that, the oldest at ``unprotected_since``: whoever can write the database could have changed these without a
    trace. ``checkpoints`` counts those of the log, ``exported`` those that were kept elsewhere. ``warnings`` are
    sentences about what could not be verified.
    """

    first: int
    last: int
    entries: int
    checkpoints: int
    exported: int
    signed_to: int
    signed_at: datetime | None
    unprotected: int
    unprotected_since: datetime | None
    faults: tuple[Fault, ...]
    faults_total: int
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.faults_total == 0


def verify(
    database: Database,
    *,
    public_keys: Iterable[PublicKey] = (),
    checkpoints: Iterable[Checkpoint] = (),
    progress: Progress | None = None,
    now: datetime | None = None,
) -> AuditReport:
    """Read the whole log once, in order, and report what is wrong with it. It may be written to meanwhile.

    ``public_keys`` are those that signed it at any time; without any, signatures are not verified. ``checkpoints`` are
    those that were exported and kept where the log is not: nothing else finds a log that was cut off together with its
    checkpoints, or replaced. For exported logs see :func:`~uploadguard.ledger.audit_files.verify_file`. Raises
    :class:`~uploadguard.errors.LedgerError` where the database fails.
    """
    verifier = Verifier(public_keys, checkpoints)
    with database.reading() as connection:
        early = load_checkpoints(connection)
        total = connection.execute(sa.select(sa.func.count()).select_from(schema.audit)).scalar_one()
    verifier.expect(one.seq for one in early if isinstance(one, Checkpoint))
    heads = 0
    for item in read_log(database):
        if isinstance(item, Head):
            verifier.head(item)
            heads += 1
            continue
        verifier.entry(item)
        if progress is not None and verifier.entries % _PROGRESS_EVERY == 0:
            progress(verifier.entries, max(total, verifier.entries))
    if heads > 1:
        verifier.fault(verifier.last, FaultKind.HEAD, "the log has several heads: somebody put one in")
    with database.reading() as connection:
        late = load_checkpoints(connection)
    for one in late:
        # What was signed while entries were read is for the next time.
        if not isinstance(one, Checkpoint) or one.seq <= verifier.last or one in early:
            verifier.checkpoint(one)
    return verifier.finish(now)


class Verifier:
    """Takes a log piece by piece, in its order, and says in the end what is wrong with it.

    ``exported`` are checkpoints that were kept elsewhere; ``first`` is the number that the log must begin with.
    """

    def __init__(self, public_keys: Iterable[PublicKey], exported: Iterable[Checkpoint], *, first: int = 1) -> None:
        self.entries = 0
        self.last = first - 1
        self._first = first
        self._keys = {key.id: key for key in public_keys}
        self._exported = sorted(exported, key=lambda one: one.seq)
        self._previous: bytes | None = b"" if first == 1 else None
        self._ended = False
        self._checkpoints: list[Checkpoint | int | None] = []
        self._wanted: set[int] = set()
        self._digests: dict[int, bytes | None] = {}
        self._made: set[int] = set()
        self._after: dict[int, datetime] = {}
        self._faults: list[Fault] = []
        self._faults_total = 0
        self.expect(one.seq for one in self._exported)

    def fault(self, seq: int, kind: FaultKind, text: str) -> None:
        """Note what is wrong with, or at, the entry of that number."""
        self._faults_total += 1
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(seq, kind, text))

    def expect(self, numbers: Iterable[int]) -> None:
        """Remember the digests of these entries when they come: checkpoints of them will follow."""
        self._wanted.update(numbers)

    def entry(self, row: Row) -> None:
        """Take the next entry."""
        self.entries += 1
        self._ended = False
        seq, text, digest = row
        expected = self.last + 1
        if seq is None:
            self.fault(expected, FaultKind.INSERTED, "a row without a number was put in")
            return
        if seq < expected:
            why = "that number is there already" if self._first <= seq else f"the log begins with {self._first}"
            self.fault(seq, FaultKind.INSERTED, f"a row was put in under the number {seq}: {why}")
            return
        if seq > expected:
            self.fault(expected, FaultKind.MISSING, f"{_entries(expected, seq - 1)} missing: deleted")
            self._previous = None
        previous, self._previous = self._previous, digest
        self.last = seq
        try:
            entry = parse_entry(text) if text is not None else None
        except ValueError:
            entry = None
        if digest is None or len(digest) != _DIGEST_BYTES:
            self._previous = None
            self.fault(seq, FaultKind.ALTERED, f"the digest of entry {seq} was overwritten with something else")
        elif entry is not None and entry.seq != seq:
            self.fault(seq, FaultKind.MISNUMBERED, f"under {seq} stands what was written as entry {entry.seq}")
        elif text is None or (previous is not None and chained(previous, text) != digest):
            self.fault(
                seq, FaultKind.ALTERED, f"entry {seq} or its digest was changed, or it stands in place of another one"
            )
        elif entry is None:
            self.fault(seq, FaultKind.ALTERED, f"entry {seq} is not one that uploadguard writes")
        if entry is not None:
            self._mark(seq, digest, entry)

    def _mark(self, seq: int, digest: bytes | None, entry: AuditEntry) -> None:
        if entry.action == ACTION:
            self._made.add(seq)
        if seq in self._made or seq in self._wanted:
            self._digests[seq] = digest
        if seq == self._first or seq - 1 in self._digests:
            self._after[seq - 1] = entry.at

    def head(self, head: Head) -> None:
        """Take what the log says of its end so far; before its first entry, what it says of the one before that."""
        self._ended = True
        seq, digest = head
        if seq is None or digest is None:
            self.fault(self.last, FaultKind.HEAD, "the log's head was overwritten with something else")
        elif seq > self.last:
            self.fault(self.last + 1, FaultKind.MISSING, f"{_entries(self.last + 1, seq)} missing: cut off at the end")
        elif seq < self.last:
            what = _entries(seq + 1, self.last, "was", "were")
            self.fault(seq + 1, FaultKind.HEAD, f"{what} put in after the log's end, or its head was set back")
        elif self.entries == 0 and self._first > 1:
            self._previous = digest
        elif self._previous is not None and digest != self._previous:
            self.fault(seq, FaultKind.HEAD, f"the log's head does not agree with its last entry, {seq}")

    def checkpoint(self, checkpoint: Checkpoint | int | None) -> None:
        """Take the next checkpoint of the log: after its entry, if that was not announced by :meth:`expect`. In place
        of one that cannot be read stands its number, or None."""
        self._checkpoints.append(checkpoint)

    def finish(self, now: datetime | None = None) -> AuditReport:
        """Nothing follows: the report."""
        if not self._ended:
            self.fault(self.last + 1, FaultKind.HEAD, "the log's head is missing, so entries may be missing at the end")
        # Others than those of the entries, so that the first of them is among those kept.
        faults, self._faults = self._faults, []
        signed = self._verify_checkpoints()
        signed += self._verify_exported()
        faults = sorted(faults + self._faults, key=lambda one: one.seq)[:MAX_FAULTS]
        latest = max(signed, key=lambda one: one.seq, default=None)
        signed_to = latest.seq if latest is not None else 0
        unprotected_since = self._after.get(max(signed_to, self._first - 1))
        return AuditReport(
            first=self._first,
            last=self.last,
            entries=self.entries,
            checkpoints=len(self._checkpoints),
            exported=len(self._exported),
            signed_to=signed_to,
            signed_at=latest.at if latest is not None else None,
            unprotected=max(0, self.last - max(signed_to, self._first - 1)),
            unprotected_since=unprotected_since,
            faults=tuple(faults),
            faults_total=self._faults_total,
            warnings=tuple(self._warnings(unprotected_since, now or datetime.now(UTC))),
        )

    def _verify_checkpoints(self) -> list[Checkpoint]:
        signed: list[Checkpoint] = []
        link: bytes | None = b"" if self._first == 1 else None
        before = 0
        for one in self._checkpoints:
            if not isinstance(one, Checkpoint):
                self.fault(one or 0, FaultKind.SIGNATURE, f"the checkpoint of entry {one or 'none'} cannot be read")
                link = None
                continue
            if one.seq <= before or (one.seq <= self.last and one.seq not in self._made):
                self.fault(one.seq, FaultKind.CHECKPOINT, f"a checkpoint of entry {one.seq} was put in")
            if link is not None and one.previous != link:
                text = f"between the checkpoints of entries {before} and {one.seq} one was taken out, put in or changed"
                self.fault(one.seq, FaultKind.CHECKPOINT, text)
            if self._agrees(one, "the checkpoint"):
                signed.append(one)
            link, before = one.link, one.seq
        have = {one.seq if isinstance(one, Checkpoint) else one for one in self._checkpoints}
        for seq in sorted(self._made - have):
            self.fault(seq, FaultKind.CHECKPOINT, f"the checkpoint of entry {seq} was taken out")
        return signed

    def _verify_exported(self) -> list[Checkpoint]:
        signed: list[Checkpoint] = []
        ours = {one.seq: one for one in self._checkpoints if isinstance(one, Checkpoint)}
        for one in self._exported:
            if one.seq < self._first:
                continue
            if one.seq in ours and ours[one.seq] != one:
                text = f"the checkpoint of entry {one.seq} is not the one that was exported"
                self.fault(one.seq, FaultKind.CHECKPOINT, text)
            if self._agrees(one, "the exported checkpoint"):
                signed.append(one)
        return signed

    def _agrees(self, one: Checkpoint, what: str) -> bool:
        """Whether a checkpoint's signature is good and the log is what it says."""
        good = bool(self._keys)
        if self._keys:
            key = self._keys.get(one.key_id)
            if key is None:
                text = (
                    f"{what} of entry {one.seq} is signed with a key that is not among those given: "
                    "give that one's public key too if it was yours, else somebody signed another log"
                )
                self.fault(one.seq, FaultKind.SIGNATURE, text)
                good = False
            elif not key.signed(one):
                text = f"{what} of entry {one.seq} was changed after it was signed, or signed with another key"
                self.fault(one.seq, FaultKind.SIGNATURE, text)
                good = False
        if one.seq > self.last:
            text = f"{what} of entry {one.seq} says that there is one, but the log ends with {self.last}: cut off"
            self.fault(self.last + 1, FaultKind.MISSING, text)
            return False
        if self._digests.get(one.seq) != one.digest:
            text = (
                f"entry {one.seq} is not the one that {what} of {one.at:%Y-%m-%d %H:%M} UTC signs: "
                "the log was written anew from there or earlier"
            )
            self.fault(one.seq, FaultKind.REWRITTEN, text)
            return False
        return good

    def _warnings(self, unprotected_since: datetime | None, now: datetime) -> Iterator[str]:
        if not self._keys:
            yield (
                "no public key is given, so signatures were not verified: whoever can write the log can also make one "
                "that verifies"
            )
        elif unprotected_since is not None and now - unprotected_since > _OVERDUE:
            yield (
                f"entries since {unprotected_since:%Y-%m-%d %H:%M} UTC are not signed: checkpoints are not made, or "
                "were taken out"
            )
        if not self._exported:
            yield (
                "no exported checkpoint is given: a log that was cut off together with its checkpoints, or replaced, "
                "would not be found"
            )


def _entries(first: int, last: int, one: str = "is", several: str = "are") -> str:
    return f"entry {first} {one}" if first == last else f"entries {first} to {last} {several}"
