"""An uploadguard plugin that asks Arachnid Shield: tables of the kind ``arachnid`` in ``[matchers]``.

:mod:`~uploadguard_arachnid.matcher` puts the questions, :mod:`~uploadguard_arachnid.answers` reads the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uploadguard import hookimpl
from uploadguard.matchers import Matcher
from uploadguard.remote import read_remote_options
from uploadguard_arachnid.matcher import MediaMatcher, PdqMatcher
from uploadguard_arachnid.options import ArachnidOptions

__all__ = ["ArachnidOptions", "MediaMatcher", "PdqMatcher"]


@hookimpl
def uploadguard_matchers(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Matcher]:
    """A matcher for each table of the kind ``arachnid``."""
    return [_matcher(name, table) for name, table in tables.items() if table.get("kind") == "arachnid"]


def _matcher(name: str, table: Mapping[str, Any]) -> PdqMatcher | MediaMatcher:
    options = read_remote_options(ArachnidOptions, name, table)
    return PdqMatcher(name, options) if options.send == "pdq" else MediaMatcher(name, options)
