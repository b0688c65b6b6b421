"""An uploadguard plugin that asks EOKM's hash check service: tables of the kind ``eokm`` in ``[matchers]``.

The service is also called HashCheckService and Instant Image Identifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uploadguard import Guard, hookimpl
from uploadguard.logs import log
from uploadguard.matchers import Matcher
from uploadguard.remote import read_remote_options
from uploadguard_eokm.matcher import EokmMatcher
from uploadguard_eokm.options import EokmOptions

__all__ = ["EokmMatcher", "EokmOptions"]


@hookimpl
def uploadguard_matchers(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Matcher]:
    """A matcher for each table of the kind ``eokm``."""
    return [
        EokmMatcher(name, read_remote_options(EokmOptions, name, table))
        for name, table in tables.items()
        if table.get("kind") == "eokm"
    ]


@hookimpl
def uploadguard_startup(guard: Guard) -> None:
    """Say that it is the test environment that is asked: its "not known" says nothing of an upload."""
    if any(isinstance(one, EokmMatcher) and one.environment == "test" for one in guard.plugins.matchers.values()):
        log.warning(
            "match service of the kind eokm: the test environment is asked, which does not have what the live one has; "
            'environment = "live" asks that'
        )
