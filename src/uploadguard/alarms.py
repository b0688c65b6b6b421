"""Alarms: what an operator must look at, soon."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from uploadguard.logs import log

__all__ = ["Alarm", "AlarmKind", "log_alarm"]


class AlarmKind(enum.StrEnum):
    """What is wrong. Stable: hosts route by it."""

    REPORT_LATE = "report_late"
    """A report is not filed, and its deadline is near or over."""
    REPORT_REFUSED = "report_refused"
    """A destination will not take a report as it is."""
    TASK_REFUSED = "task_refused"
    """A callback of the host's will not be carried out as it is."""
    NO_ACTION = "no_action"
    """Tasks wait for an action that no worker has: the configuration does not name it any more."""
    QUEUE_FULL = "queue_full"
    """More cases are open than ``ledger.max_open_cases``."""
    SPOOLING = "spooling"
    """The database is down; decisions go to the spool."""
    SET_ASIDE = "set_aside"
    """The spool holds what the database would not take, or what the disk damaged: `uploadguard ledger readmit`."""
    NOT_RECORDING = "not_recording"
    """Neither database nor spool takes decisions; uploads are refused."""
    LIST_TRIPPED = "list_tripped"
    """A hash list matched too much, so that its matches are only queued: `uploadguard lists status`."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. ``text`` is a sentence for the operator, ``count`` how many things it is about."""

    kind: AlarmKind
    text: str
    action: str | None = None
    count: int = 1


def log_alarm(alarm: Alarm) -> None:
    """What is done with every alarm, whoever else is told of it."""
    log.error("%s: %s", alarm.kind, alarm.text)
