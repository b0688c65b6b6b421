"""Project VIC's VICS JSON, 1.x (CAID's too) and 2.0, one item at a time whatever the file's size."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import ijson

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.lines import Readable, utf8_head, utf8_stream
from uploadguard.lists.objects import ObjectBuilder

__all__ = ["MAX_ITEM_BYTES", "VicsReader"]

MAX_ITEM_BYTES = 1 << 22
"""The most that one item may take up in the file; more, and the file cannot be read in bounded memory."""

_MAX_DEPTH = 8
_CONTEXT_KEYS = ("odata.metadata", "@odata.context")
_MODEL = re.compile(r"DataModels/(\d+(?:\.\d+)*)(?:\.xml)?(?:/([A-Za-z]{2,16}))?(?=[/#]|$)", re.IGNORECASE)
_PROBE_CONTEXT = re.compile(rb'^\s*\{.{0,1000}?"(?:odata\.metadata|@odata\.context)"\s*:\s*"', re.DOTALL)
_PROBE_ITEMS = re.compile(rb'^\s*\{.{0,1000}?"value"\s*:\s*\[\s*\{.{0,4000}?"Media(?:ID)?"\s*:', re.DOTALL)
_FLAGS = frozenset(
    {"VictimIdentified", "OffenderIdentified", "IsDistributed", "IsPrecategorized", "IsSuspected", "SelfGenerated"}
)

_Event = tuple[str, Any]


class VicsReader:
    """Reads the media items of a VICS file: those in ``value``, or, in a file of cases, in each case's ``Media``.

    MediaID is the entry id and Category, whose codes differ by country, the category. Hashes are MD5, SHA1, PhotoDNA
    and AlternativeHashes. Flags written as text become booleans; everything else is kept as fields but for hashes,
    thumbnails and OData's links, and so are the data model's version and country if they stand before the items
    (``vics_version``, ``vics_country``). ``line`` is the item's number from 1.
    """

    name = "vics"

    def probe(self, head: bytes, filename: str) -> int:  # noqa: ARG002
        """Sure of an OData context or of media items in ``value``, whatever the file is called."""
        text = utf8_head(head)
        if _PROBE_ITEMS.match(text):
            return 95
        return 85 if _PROBE_CONTEXT.match(text) else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where the file breaks off, is not JSON, or has no media
        items; it names the item it happened in by its number, and all before were yielded.
        """
        builder = ObjectBuilder(options, id_keys=("mediaid",), category_keys=("category",), flags=_FLAGS)
        source = _Bounded(utf8_stream(stream, repair=True))
        document = _Document(ijson.basic_parse(source))
        items = document.items()
        number = 0
        while True:
            try:
                item = next(items, None)
            except (ijson.JSONError, ValueError, SystemError):
                # ijson's message quotes the file. It raises SystemError for integers of over 4,300 digits.
                raise ListFormatError(f"not JSON, or broken off, in item {number + 1}") from None
            except _TooLargeError:
                raise ListFormatError(f"item {number + 1} is larger than {MAX_ITEM_BYTES} bytes") from None
            if item is None:
                break
            number += 1
            source.used_bytes = 0
            if isinstance(item, dict):
                for found in builder.build(number, item, document.model):
                    yield found if isinstance(found, ListEntry) else replace(found, unit="item")
            else:
                yield BadLine(number, item, unit="item")
        if not document.found:
            raise ListFormatError("no 'value' array of media items")
        builder.require_columns()


class _TooLargeError(Exception):
    """One item takes up more than :data:`MAX_ITEM_BYTES`."""


class _Bounded:
    """A stream that refuses to give more than :data:`MAX_ITEM_BYTES` unless ``used_bytes`` is set back meanwhile."""

    def __init__(self, stream: Readable) -> None:
        self.used_bytes = 0
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if self.used_bytes > MAX_ITEM_BYTES:
            raise _TooLargeError
        block = self._stream.read(size)
        self.used_bytes += len(block)
        return block


class _Document:
    """The media items in a stream of JSON events.

    Not built with ijson's own object builder: that one holds a whole case, and strings a path together for each event,
    whose length a hostile file's nesting sets.
    """

    def __init__(self, events: Iterator[_Event]) -> None:
        self.model: dict[str, str] = {}
        self.found = False
        self._events = events
        self._next = itertools.chain(events, _ended()).__next__

    def items(self) -> Iterator[dict[str, Any] | str]:
        """Yield each item, or why it is none. Raises ijson's errors, and ListFormatError if the root is no object."""
        if self._next()[0] != "start_map":
            raise ListFormatError("not a JSON object")
        while (member := self._next())[0] != "end_map":
            event, value = self._next()
            if member[1] == "value" and event == "start_array":
                self.found = True
                yield from self._elements(cases=True)
            elif member[1] in _CONTEXT_KEYS and event == "string":
                self.model = _model(value)
            else:
                self._skip(event)
        for _ in self._events:  # raises if anything follows
            pass

    def _elements(self, *, cases: bool) -> Iterator[dict[str, Any] | str]:
        """The elements of an array that has begun, or of the ``Media`` arrays in them."""
        while (event := self._next()[0]) != "end_array":
            if event != "start_map":
                self._skip(event)
                yield "not a JSON object"
            elif not cases:
                yield self._object(1)
            else:
                yield from self._media_or_case()

    def _media_or_case(self) -> Iterator[dict[str, Any] | str]:
        members: dict[str, Any] = {}
        is_case = False
        while (member := self._next())[0] != "end_map":
            event, value = self._next()
            if member[1] == "Media" and event == "start_array":
                is_case = True
                yield from self._elements(cases=False)
            else:
                members[member[1]] = self._value(event, value, 1)
        if not is_case:
            yield members

    def _value(self, event: str, value: Any, depth: int) -> Any:
        """The value that begins with an event; None if it is nested too deeply to be of use."""
        if event not in ("start_map", "start_array"):
            return value
        if depth == _MAX_DEPTH:
            return self._skip(event)
        return self._object(depth + 1) if event == "start_map" else self._array(depth + 1)

    def _object(self, depth: int) -> dict[str, Any]:
        advance = self._next
        members = {}
        while (member := advance())[0] != "end_map":
            event, value = advance()
            members[member[1]] = value if event in ("string", "number") else self._value(event, value, depth)
        return members

    def _array(self, depth: int) -> list[Any]:
        elements = []
        while (head := self._next())[0] != "end_array":
            elements.append(self._value(*head, depth))
        return elements

    def _skip(self, event: str) -> None:
        """Go past the rest of the value that began with an event."""
        depth = int(event in ("start_map", "start_array"))
        while depth:
            event = self._next()[0]
            if event in ("start_map", "start_array"):
                depth += 1
            elif event in ("end_map", "end_array"):
                depth -= 1


def _ended() -> Iterator[_Event]:
    """What comes after the last event, where another was due."""
    yield from ()
    raise ijson.IncompleteJSONError("ended")


def _model(context: str) -> dict[str, str]:
    """The data model's version and country in an OData context, as fields."""
    found = _MODEL.search(context)
    if found is None:
        return {}
    version, country = found.groups()
    return {"vics_version": version, **({"vics_country": country} if country and country.lower() != "default" else {})}
