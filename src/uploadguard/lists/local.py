"""The names of the lists that reviewers feed, by what they decide in the ledger's cases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["CONFIRMED_LIST", "DISMISSED_LIST", "LOCAL_LISTS"]

CONFIRMED_LIST: Final = "uploadguard-confirmed"
DISMISSED_LIST: Final = "uploadguard-dismissed"
LOCAL_LISTS: Final[Mapping[str, Literal["deny", "allow"]]] = MappingProxyType(
    {CONFIRMED_LIST: "deny", DISMISSED_LIST: "allow"}
)
"""Their roles, by name."""
