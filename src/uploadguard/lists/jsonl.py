"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.lines import head_lines, read_lines
from uploadguard.lists.objects import ObjectBuilder
from uploadguard.lists.parsing import CATEGORY_KEYS, ID_KEYS, is_hash_key, normalise

__all__ = ["JsonlReader"]


class JsonlReader:
    """Reads an object a line: hashes in keys called after signal types, as ``signal_type`` and ``hash``, or nested.

    Nested hashes stand under ``hashes``: an object, or an array of objects in the long form. Keys are compared without
    case, dashes and underscores. An id and a category are recognised by name; ``options.columns`` goes before. All
    other keys become fields.
    """

    name = "jsonl"

    def probe(self, head: bytes, filename: str) -> int:
        """Sure of a first line that is an object with a hash in it; takes any ``.jsonl`` or ``.ndjson``."""
        named = filename.lower().endswith((".jsonl", ".ndjson"))
        first = next(iter(head_lines(head)), "")
        value = _load(first) if first.startswith("{") else None
        if not isinstance(value, dict):
            return 30 if named else 0
        with_hash = any(is_hash_key(key) or normalise(key) in ("hash", "hashes") for key in value)
        return (90 if named else 80) if with_hash else (60 if named else 20)

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[ListEntry | BadLine]:
        """Yield entries and bad lines in file order.

        Raises :class:`~uploadguard.errors.ListFormatError` where ``options.columns`` has a key that is in no object.
        """
        builder = ObjectBuilder(options, id_keys=ID_KEYS, category_keys=CATEGORY_KEYS)
        for item in read_lines(stream):
            if isinstance(item, BadLine):
                yield item
                continue
            number, text = item
            if not text or text.isspace():
                continue
            value = _load(text)
            if isinstance(value, dict):
                yield from builder.build(number, value)
            else:
                yield BadLine(number, "not a JSON object" if value is not None else "not JSON")
        builder.require_columns()


def _load(text: str) -> Any:
    """The line's value; None if it is not JSON, or nested so deeply that Python gives up."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> NoReturn:
    """``NaN`` and the infinities are not JSON."""
    raise ValueError(constant)
