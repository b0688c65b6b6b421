"""An uploadguard plugin that files reports with NCMEC's CyberTipline: tables of the kind ``ncmec`` in ``[actions]``.

:mod:`~uploadguard_ncmec.action` is the order of steps, :mod:`~uploadguard_ncmec.api` the calls,
:mod:`~uploadguard_ncmec.documents` what a report says, :mod:`~uploadguard_ncmec.schema` the form that it must have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uploadguard import hookimpl
from uploadguard.actions import Action
from uploadguard.destinations.options import read_options
from uploadguard_ncmec.action import NcmecAction
from uploadguard_ncmec.options import NcmecOptions

__all__ = ["NcmecAction", "NcmecOptions"]


@hookimpl
def uploadguard_actions(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Action]:
    """An action for each table of the kind ``ncmec``."""
    return [
        NcmecAction(name, read_options(NcmecOptions, name, table))
        for name, table in tables.items()
        if table.get("kind") == "ncmec"
    ]
