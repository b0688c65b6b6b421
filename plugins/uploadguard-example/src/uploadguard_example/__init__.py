"""An uploadguard plugin to copy: what it implements is below, what it hands over is in the modules beside it.

The configuration loads it with ``plugins = ["example"]``. A hook may leave out arguments that it does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from uploadguard import Context, Decision, Verdict, hookimpl
from uploadguard.lists.base import ListReader
from uploadguard.signals.base import SignalType
from uploadguard_example.blockmean import BlockMean
from uploadguard_example.counter import VerdictCounter
from uploadguard_example.hashlines import HashLinesReader

__all__ = ["QUEUED_EXTENSIONS", "verdicts"]

QUEUED_EXTENSIONS = {"newcomers": frozenset({".tif", ".tiff", ".bmp"})}
"""By tenant, the file name extensions that a person looks at before they are served."""

verdicts = VerdictCounter()
"""The decisions of this process so far."""


@hookimpl
def uploadguard_signal_types() -> Sequence[SignalType]:
    """The block mean hash."""
    return [BlockMean()]


@hookimpl
def uploadguard_list_readers() -> Sequence[ListReader]:
    """The reader of ``.hashlines`` files."""
    return [HashLinesReader()]


@hookimpl
def uploadguard_decide(context: Context) -> Verdict | None:
    """Queue what :data:`QUEUED_EXTENSIONS` names; otherwise no opinion. The highest verdict of all wins."""
    extensions = QUEUED_EXTENSIONS.get(context.tenant or "", frozenset())
    extension = PurePosixPath(context.filename or "").suffix.lower()
    return Verdict.QUEUE if extension in extensions else None


@hookimpl
def uploadguard_decision_made(decision: Decision) -> None:
    """Count the verdict."""
    verdicts.add(decision.verdict)
