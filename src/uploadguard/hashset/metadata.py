"""What a segment says of the list it belongs to, and what the hash set says of a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from uploadguard.errors import ListError

__all__ = [
    "IndexKind",
    "ListInfo",
    "Role",
    "SegmentMetadata",
    "SignalInfo",
    "check_list_name",
    "check_signal_name",
    "summarise",
]

Role = Literal["deny", "allow"]
IndexKind = Literal["exact", "hamming"]

_LIST_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"
_SIGNAL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,31}$"


class FrozenModel(BaseModel):
    """Base of what is stored as JSON: frozen, unknown keys refused, no coercion, no values in error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class SignalInfo(FrozenModel):
    """The hashes of one signal type in a segment: how they are looked up, each one's length, how many there are."""

    kind: IndexKind
    length_bytes: Annotated[int, Field(ge=1, le=64)]
    count: Annotated[int, Field(ge=0, lt=2**32)]


class SegmentMetadata(FrozenModel):
    """The list that a segment belongs to, and its part of it. ``entries`` counts those with at least one hash."""

    list_name: Annotated[str, StringConstraints(pattern=_LIST_NAME)] = Field(repr=False)
    role: Role
    source: str = Field(repr=False)
    added_at: AwareDatetime
    entries: Annotated[int, Field(ge=0, lt=2**32)]
    signals: dict[Annotated[str, StringConstraints(pattern=_SIGNAL_NAME)], SignalInfo]


@dataclass(frozen=True, slots=True)
class ListInfo:
    """One list of the hash set.

    ``source`` is the name of the file, or whatever it came from, of the latest import. ``added_at`` is the time of the
    first import that is still there and ``updated_at`` that of the latest, in UTC. ``hashes`` counts hashes by signal
    type.
    """

    name: str = field(repr=False)
    role: Role
    source: str = field(repr=False)
    added_at: datetime
    updated_at: datetime
    entries: int
    hashes: Mapping[str, int]
    segments: int = 1


def check_list_name(name: str) -> None:
    """Raise :class:`~uploadguard.errors.ListError` unless ``name`` can name a list."""
    if not re.fullmatch(_LIST_NAME, name):
        raise ListError(
            "not a name for a list: use 1 to 64 of the letters a to z and A to Z, digits, '-', '_' and '.', "
            "not beginning with '.'"
        )


def check_signal_name(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` can name a signal type."""
    if not re.fullmatch(_SIGNAL_NAME, name):
        raise ValueError(f"not a name for a signal type: {name!r}; use up to 32 lower-case letters, digits, '-_.'")


def summarise(segments: Iterable[SegmentMetadata]) -> tuple[ListInfo, ...]:
    """The lists that the segments make up, in order of first appearance."""
    lists: dict[str, list[SegmentMetadata]] = {}
    for metadata in segments:
        lists.setdefault(metadata.list_name, []).append(metadata)
    return tuple(_summarise_one(parts) for parts in lists.values())


def _summarise_one(parts: Sequence[SegmentMetadata]) -> ListInfo:
    hashes: dict[str, int] = {}
    for part in parts:
        for name, signal in part.signals.items():
            hashes[name] = hashes.get(name, 0) + signal.count
    latest = max(parts, key=lambda part: part.added_at)
    return ListInfo(
        name=latest.list_name,
        role=latest.role,
        source=latest.source,
        added_at=min(part.added_at for part in parts),
        updated_at=latest.added_at,
        entries=sum(part.entries for part in parts),
        hashes=MappingProxyType(hashes),
        segments=len(parts),
    )
