"""What the plugin gives to uploadguard: actions of the kind ``s3``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uploadguard import hookimpl
from uploadguard.actions import Action

__all__ = ["uploadguard_actions"]


@hookimpl
def uploadguard_actions(tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Action]:
    """An action for each table of the kind ``s3``."""
    from uploadguard_s3.action import S3Action

    return [S3Action(name, table) for name, table in tables.items() if table.get("kind") == "s3"]
