"""The exit codes of all commands, in one place."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.models import Verdict

__all__ = ["EXIT_HELP", "Exit", "highest", "of_verdict"]


class Exit(enum.IntEnum):
    """What a command ended with."""

    OK = 0
    ERROR = 1
    USAGE = 2
    OVER_BUDGET = 3
    ALARM = 4
    NOT_SCANNED = 10
    QUEUE = 20
    BLOCK = 30
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for the help and the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done; for checks: every file is allowed",
    Exit.ERROR: "an error: a file could not be read, a bad configuration, ...",
    Exit.USAGE: "the command line is wrong",
    Exit.OVER_BUDGET: "a latency budget was missed",
    Exit.ALARM: (
        "somebody must look: a report is late or refused, decisions wait in the spool, an audit log is broken, a list "
        "is held back or tripped, the hash set is stale"
    ),
    Exit.NOT_SCANNED: "a file could not be inspected in full",
    Exit.QUEUE: "a file is to be kept until a person decides",
    Exit.BLOCK: "a file is not to be accepted",
    Exit.INTERRUPTED: "interrupted from the keyboard",
}

EXIT_HELP = "\n".join(["\b", "Exit codes:", *(f"  {code.value:>3}  {code.meaning}" for code in Exit)]) + (
    "\n\nWith several files it is the highest of their verdicts; an error goes before all verdicts, "
    "since the run is then incomplete."
)
"""For the end of help texts; the leading control character keeps click from joining the lines."""


def of_verdict(verdict: Verdict) -> Exit:
    """The exit code of a check that ended so."""
    return Exit(10 * verdict.value)


def highest(codes: Iterable[Exit]) -> Exit:
    """The exit code of a run over several files."""
    found = set(codes)
    return Exit.ERROR if Exit.ERROR in found else max(found, default=Exit.OK)
