"""Every hook a plugin can implement.

Hooks register, objects work: a hook is called once, when a Guard opens, and hands over typed objects that do the work.
Only ``uploadguard_decide`` and the observers run per upload. A plugin marks its functions with
:data:`uploadguard.hookimpl`, is found through the entry-point group ``uploadguard``, and is loaded only if the
configuration's ``plugins`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from uploadguard.actions import Action
    from uploadguard.alarms import Alarm
    from uploadguard.guard import Guard
    from uploadguard.lists.base import ListReader
    from uploadguard.matchers import Matcher
    from uploadguard.media.base import Decoder
    from uploadguard.models import Context, Decision, Verdict
    from uploadguard.signals.base import SignalType

__all__ = ["PROJECT", "hookimpl"]

PROJECT = "uploadguard"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def uploadguard_signal_types() -> Sequence[SignalType]:  # type: ignore[empty-body]
    """Signal types to hash uploads with, to read from lists and to match. Names must be unique."""


@hookspec
def uploadguard_decoders() -> Sequence[Decoder]:  # type: ignore[empty-body]
    """Decoders for media types. A plugin's decoder goes before the built-in one of the same media type."""


@hookspec
def uploadguard_list_readers() -> Sequence[ListReader]:  # type: ignore[empty-body]
    """Readers of hash list formats. Names must be unique."""


@hookspec
def uploadguard_decide(decision: Decision, context: Context) -> Verdict | None:
    """A verdict of the plugin's own, or None. All plugins are asked and the highest verdict wins.

    A verdict below the policy's own counts only for plugins that ``policy.may_lower`` names. Runs in the check:
    keep it short and do no I/O.
    """


@hookspec
def uploadguard_actions(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Action]:  # type: ignore[empty-body]
    """Actions: destinations of reports, and callbacks to release, delete and ban. Names must be unique.

    ``tables`` are the configuration's ``[actions.NAME]``, by name, each with a ``kind``. A plugin makes an action of
    each table of its own kinds, named as the table, and raises :class:`~uploadguard.errors.ConfigError` for a wrong
    one. It may add others, which need no table. In tables of a file, ``path`` and keys that end in ``_file`` are
    already resolved against that file's directory.
    """


@hookspec
def uploadguard_matchers(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Matcher]:  # type: ignore[empty-body]
    """Match services to be asked beside the local hash set. Names must be unique.

    ``tables`` are the configuration's ``[matchers.NAME]``, by name, each with a ``kind``, as for
    ``uploadguard_actions``: a plugin makes a matcher of each table of its own kinds, named as the table.
    """


@hookspec
def uploadguard_alarm(alarm: Alarm) -> None:
    """Told of what an operator must look at: a report that is late or refused, too many open cases, a broken spool."""


@hookspec
def uploadguard_evidence_key() -> bytes | None:
    """The key that preserved files are encrypted with, 32 bytes, or None. One plugin may give one.

    Asked once, when the ledger opens, and only where ``evidence.path`` is set. For a key that lies in a key management
    service. Keys of the settings then only read.
    """


@hookspec
def uploadguard_decision_made(decision: Decision, context: Context) -> None:
    """Told of every decision, after it is final. An observer that raises is counted and logged, and changes nothing."""


@hookspec
def uploadguard_decision_revised(decision: Decision, context: Context) -> None:
    """Told when a match service's late answer changed a verdict: ``decision.revises`` is the earlier one's reference.

    Whoever serves the upload by now must stop. Told at least once: again where the process ended in the middle.
    """


@hookspec
def uploadguard_startup(guard: Guard) -> None:
    """The Guard is open and ready. Raising here stops it from opening."""


@hookspec
def uploadguard_shutdown(guard: Guard) -> None:
    """The Guard is about to close."""


@hookspec
def uploadguard_generation_changed(generation: int) -> None:
    """Checks that begin from now on see this generation of the hash set."""
