"""What comes of handing a task to its action, and how that is written: with an audit entry, where it is final."""

from __future__ import annotations

import enum
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection

from uploadguard.actions import Action, Evidence, Receipt, State
from uploadguard.config_ledger import OutboxSettings
from uploadguard.errors import ActionError, LeaseLostError, LedgerError, PostponedError, RefusedError
from uploadguard.ledger import audit
from uploadguard.ledger.database import Database
from uploadguard.ledger.delivery.groups import GroupCommit
from uploadguard.ledger.delivery.journal import TakenBackError, TaskJournal
from uploadguard.ledger.delivery.leases import Lease
from uploadguard.ledger.delivery.rows import After, Written, update_under_lease
from uploadguard.ledger.delivery.waits import asked_s, longest_s
from uploadguard.logs import redact

__all__ = ["Ending", "Outcome", "Settling", "carry_out"]

_MAX_ERROR = 500


class Ending(enum.StrEnum):
    """How an attempt ended."""

    FILED = "filed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    POSTPONED = "postponed"
    AGAIN = "again"
    """To be tried again at once: a person took it back, or not any more, while it was carried out."""
    LOST = "lost"
    """Another worker has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's. ``error`` says for the operator why it is not done. ``outage``: whether the other side was down;
    None where it was not asked."""

    ending: Ending
    error: str | None = None
    after_s: float | None = None
    outage: bool | None = None
    remote_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def carry_out(
    action: Action,
    lease: Lease,
    progress: GroupCommit[Written],
    evidence: Callable[[int, str], Evidence | None] | None,
) -> Outcome:
    """Hand the task to its action. Raises nothing: whatever an action raises is an outcome."""
    if lease.cancelled and lease.state is State.PENDING:
        return Outcome(Ending.CANCELLED)
    if lease.task is None:
        return Outcome(Ending.REFUSED, lease.problem)
    journal = TaskJournal(lease, progress, evidence)
    lease.since = time.monotonic()
    try:
        receipt: object = action.deliver(lease.task, journal)
    except LeaseLostError:
        return Outcome(Ending.LOST)
    except TakenBackError:
        return Outcome(Ending.AGAIN)
    except PostponedError as error:
        return Outcome(Ending.POSTPONED, _text(error), error.after_s, bool(error.outage))
    except RefusedError as error:
        return Outcome(Ending.REFUSED, _text(error), outage=False)
    except ActionError as error:
        return Outcome(Ending.POSTPONED, _text(error), outage=False)
    except LedgerError as error:
        return Outcome(Ending.POSTPONED, _text(error))
    except BaseException as error:  # noqa: BLE001 - even one that ends its thread must not take the worker along
        # Its text may quote the upload.
        return Outcome(Ending.POSTPONED, f"the action raised {type(error).__name__}", outage=False)
    finally:
        lease.since = None
    if not isinstance(receipt, Receipt):
        said = f"the action returned {type(receipt).__name__}, not a Receipt"
        return Outcome(Ending.POSTPONED, said, outage=False)
    if lease.task.cancelled:
        return Outcome(Ending.CANCELLED, outage=False)
    return Outcome(Ending.FILED, outage=False, remote_id=receipt.remote_id, facts=receipt.facts)


def _text(error: Exception) -> str:
    return redact(_plain(str(error)))[:_MAX_ERROR] or type(error).__name__


def _plain(text: str) -> str:
    """Neither database keeps a NUL, and UTF-8 knows no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class _Settled:
    written: Written
    lease: Lease
    ending: Ending
    error: str | None


class Settling:
    """Writes outcomes: final ones with their audit entries, those of several threads in one transaction."""

    def __init__(self, database: Database, settings: OutboxSettings) -> None:
        self._settings = settings
        self._final: GroupCommit[_Settled] = GroupCommit(database.writing, _append)
        self._going_on: GroupCommit[_Settled] = GroupCommit(database.changing)

    def settle(self, lease: Lease, outcome: Outcome) -> Ending:
        """Write what became of a task, and give up its lease; returns what it came to. Raises
        :class:`~uploadguard.errors.LedgerError`: then nothing was written."""
        if outcome.ending is Ending.LOST:
            return Ending.LOST
        final = outcome.ending in _FINAL
        group = self._final if final else self._going_on
        settled = group.write(lease.id, partial(self._write, lease=lease, outcome=outcome))
        return _ENDINGS.get(settled.written, settled.ending)

    def _write(self, connection: Connection, lease: Lease, outcome: Outcome) -> _Settled:
        ending = outcome.ending
        free = {"lease": None, "lease_until": None, "error": outcome.error}
        cancelled = None
        if ending is Ending.FILED:
            values = {"state": State.FILED.value, "done_at": After(), **_receipt(lease, outcome)}
        elif ending is Ending.REFUSED:
            values = {"state": State.REFUSED.value, "refused_in": lease.state.value, "alarmed_at": None}
        elif ending is Ending.CANCELLED:
            values = {"state": State.CANCELLED.value, "done_at": After()}
            cancelled = True
        elif ending is Ending.AGAIN:
            values = {"next_at": After()}
        else:
            # At random, so that tasks which failed together do not come back together.
            wait_s = random.uniform(0, longest_s(self._settings, lease.attempts))  # noqa: S311 - no secret
            values = {"next_at": After(max(wait_s, asked_s(outcome.after_s)))}
        written = update_under_lease(connection, lease.id, lease.token, {**free, **values}, cancelled=cancelled)
        if written is Written.CONTRADICTED:
            # It is wanted again. What had been opened is retracted by now.
            anew: dict[str, Any] = {"state": State.PENDING.value, "remote_id": None, "notes": {}, "next_at": After()}
            if update_under_lease(connection, lease.id, lease.token, {**free, **anew}) is Written.LOST:
                written = Written.LOST
        return _Settled(written, lease, ending, outcome.error)


_FINAL = frozenset({Ending.FILED, Ending.REFUSED, Ending.CANCELLED})
_ENDINGS = {Written.LOST: Ending.LOST, Written.CONTRADICTED: Ending.AGAIN}


def _receipt(lease: Lease, outcome: Outcome) -> dict[str, Any]:
    """What a receipt says, as far as it can be kept: that the task is done stands in any case."""
    values: dict[str, Any] = {}
    if isinstance(outcome.remote_id, str) and outcome.remote_id:
        values["remote_id"] = _plain(outcome.remote_id)
    try:
        values["notes"] = {**lease.notes, **json.loads(json.dumps(dict(outcome.facts), allow_nan=False))}
    except (TypeError, ValueError, RecursionError):
        values["error"] = "filed; the action's facts are no JSON, and were left out"
    return values


def _append(connection: Connection, group: Sequence[_Settled]) -> None:
    """The audit entries of what was settled."""
    audit.append_all(
        connection,
        [
            audit.Act("outbox", f"task.{one.ending}", f"task:{one.lease.id}", {"action_name": one.lease.action})
            for one in group
            if one.written in (Written.KEPT, Written.KEPT_CANCELLED)
        ],
    )
