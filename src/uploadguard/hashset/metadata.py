"""What a segment says of the list it belongs to, and what the hash set says of a list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from uploadguard.errors import ListError

__all__ = [
    "IndexKind",
    "ListInfo",
    "Role",
    "SegmentId",
    "SegmentMetadata",
    "SignalInfo",
    "SignalName",
    "Tombstones",
    "check_list_name",
    "check_signal_name",
    "summarise",
]

Role = Literal["deny", "allow"]
IndexKind = Literal["exact", "hamming"]

_LIST_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"
_SIGNAL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,31}$"
_SEGMENT_ID = r"^[0-9a-f]{16}$"

SegmentId = Annotated[str, StringConstraints(pattern=_SEGMENT_ID)]
"""A random number in hex that no other segment has."""

SignalName = Annotated[str, StringConstraints(pattern=_SIGNAL_NAME)]
"""The name of a signal type."""


class FrozenModel(BaseModel):
    """Base of what is stored as JSON: frozen, unknown keys refused, no coercion, no values in error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class SignalInfo(FrozenModel):
    """The hashes of one signal type in a segment: how they are looked up, each one's length, how many there are."""

    kind: IndexKind
    length_bytes: Annotated[int, Field(ge=1, le=64)]
    count: Annotated[int, Field(ge=0, lt=2**32)]


class Tombstones(FrozenModel):
    """How many entries of one segment were taken back, and how many hashes they have, by signal type."""

    segment_id: SegmentId
    entries: Annotated[int, Field(gt=0, lt=2**32)]
    hashes: dict[SignalName, Annotated[int, Field(gt=0, lt=2**32)]]


class SegmentMetadata(FrozenModel):
    """The list that a segment belongs to, and its part of it.

    ``entries`` counts those with at least one hash. ``tombstones`` are on entries of older segments of the list, and of
    the segment itself; no entry has two. ``added_at`` and ``updated_at`` are the times of the first and the latest
    import that brought something to the segment. ``merged_up_to`` is of merged segments: the id of the latest segment
    whose content is in this one.
    """

    segment_id: SegmentId
    list_name: Annotated[str, StringConstraints(pattern=_LIST_NAME)] = Field(repr=False)
    role: Role
    source: str = Field(repr=False)
    added_at: AwareDatetime
    updated_at: AwareDatetime
    entries: Annotated[int, Field(ge=0, lt=2**32)]
    signals: dict[SignalName, SignalInfo]
    tombstones: tuple[Tombstones, ...] = ()
    merged_up_to: SegmentId | None = None

    @property
    def revision(self) -> str:
        """What a list holds if this is its last segment has this name: merging segments does not change it."""
        return self.merged_up_to if self.merged_up_to is not None else self.segment_id

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As segments were written before there was ``merged_up_to``, where it says nothing."""
        fields: dict[str, Any] = serialise(self)
        if self.merged_up_to is None:
            del fields["merged_up_to"]
        return fields


@dataclass(frozen=True, slots=True)
class ListInfo:
    """One list of the hash set.

    ``source`` is the name of the file, or whatever it came from, of the latest import. ``added_at`` is the time of the
    first import that is still there and ``updated_at`` that of the latest, in UTC. ``hashes`` counts hashes by signal
    type. ``dead_entries`` were removed or replaced and take room until compaction; ``entries`` and ``hashes`` are
    without them.
    """

    name: str = field(repr=False)
    role: Role
    source: str = field(repr=False)
    added_at: datetime
    updated_at: datetime
    entries: int
    hashes: Mapping[str, int]
    segments: int = 1
    dead_entries: int = 0


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
    hashes: Counter[str] = Counter()
    for part in parts:
        hashes.update({name: signal.count for name, signal in part.signals.items()})
    dead = 0
    present = {part.segment_id for part in parts}
    for tombstones in (item for part in parts for item in part.tombstones if item.segment_id in present):
        hashes.subtract(tombstones.hashes)
        dead += tombstones.entries
    latest = parts[-1]
    return ListInfo(
        name=latest.list_name,
        role=latest.role,
        source=latest.source,
        added_at=min(part.added_at for part in parts),
        updated_at=max(part.updated_at for part in parts),
        entries=sum(part.entries for part in parts) - dead,
        hashes=MappingProxyType({name: count for name, count in hashes.items() if count > 0}),
        segments=len(parts),
        dead_entries=dead,
    )
