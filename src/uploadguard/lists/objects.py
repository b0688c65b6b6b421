"""JSON objects to entries: what JSON lines and VICS share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.parsing import (
    HASH_KEYS,
    ROLES,
    SIGNAL_TYPE_KEYS,
    EntryBuilder,
    as_flag,
    as_text,
    normalise,
    provenance,
    role_of,
)

__all__ = ["ObjectBuilder"]

_NESTED_KEYS = frozenset({"hashes", "alternativehashes"})
_Written = tuple[str | None, object]


class ObjectBuilder:
    """Makes entries of objects whose keys name signal types, the id and the category; the rest becomes fields.

    ``options.columns`` goes before: a signal type, the id or the category is then under that key alone. ``flags`` are
    keys of fields whose texts ``true`` and ``false`` become booleans. Raises
    :class:`~uploadguard.errors.ListFormatError` if a signal type in the options is not registered.
    """

    def __init__(
        self,
        options: ReadOptions,
        *,
        id_keys: Sequence[str],
        category_keys: Sequence[str],
        flags: frozenset[str] = frozenset(),
    ) -> None:
        self._builder = EntryBuilder(options)
        self._id_keys = id_keys
        self._category_keys = category_keys
        self._flags = flags
        self._columns = {role_of(meaning, self._builder): key for meaning, key in options.columns.items()}
        self._roles = {key.strip().lower(): role for role, key in self._columns.items()}
        self._missing = dict(self._roles)

    def build(
        self, line: int, item: Mapping[str, Any], constant: Mapping[str, Any] | None = None
    ) -> Iterator[ListEntry | BadLine]:
        """Yield a bad line for each hash that cannot be used, then the entry, if a hash is left.

        ``constant`` are fields of every entry in the file.
        """
        keys = {normalise(key): key for key in item}
        mapped = self._mapped(item) if self._columns else {}
        id_key = mapped.get("id") if "id" in self._columns else _first(keys, self._id_keys)
        category_key = mapped.get("category") if "category" in self._columns else _first(keys, self._category_keys)
        used = {key for key in (id_key, category_key) if key is not None}
        written = self._written(item, mapped, used)
        fields = provenance((key, value) for key, value in item.items() if key not in used)
        for key in self._flags & fields.keys():
            fields[key] = as_flag(fields[key])
        if constant:
            fields.update(constant)
        return self._builder.build(
            line,
            written,
            as_text(item[id_key]) if id_key is not None else None,
            as_text(item[category_key]) if category_key is not None else None,
            fields,
        )

    def require_columns(self) -> None:
        """Raise :class:`~uploadguard.errors.ListFormatError` if a key of the mapping was in none of the objects."""
        for key in self._missing:
            raise ListFormatError(f"no object has a key {key!r}")

    def _mapped(self, item: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an object that the mapping names, by what they stand for."""
        found = {}
        for key in item:
            wanted = key.strip().lower()
            if wanted in self._roles:
                found[self._roles[wanted]] = key
                self._missing.pop(wanted, None)
        return found

    def _written(self, item: Mapping[str, Any], mapped: Mapping[str, str], used: set[str]) -> list[_Written]:
        """The hashes of an object; adds the keys that they stand under to ``used``."""
        written: list[_Written] = []
        roles = {key: role for role, key in mapped.items()}
        for key, value in item.items():
            if key in roles and roles[key] in ROLES:
                continue
            name = roles.get(key) or self._builder.resolve(key)
            if name in self._columns and key not in roles:
                continue
            if name is not None:
                used.add(key)
                written.extend((name, text) for text in (value if isinstance(value, list) else [value]))
            elif normalise(key) in _NESTED_KEYS:
                used.add(key)
                written.extend(self._nested(value))
        if not written or "hash" in mapped:
            written.extend(self._long_form(item, used, mapped))
        return written

    def _nested(self, value: object) -> Iterator[_Written]:
        """The hashes under ``hashes``: an object by signal type, or an array of objects in either form."""
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                found = list(self._long_form(item, set())) or [
                    (self._builder.resolve(key) or key, text)
                    for key, texts in item.items()
                    for text in (texts if isinstance(texts, list) else [texts])
                ]
                yield from found
            elif item is not None:
                yield None, item

    def _long_form(
        self, item: Mapping[str, Any], used: set[str], mapped: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[_Written]:
        """The hash of an object that says signal type and hash in two keys; of the inferred type if it says none."""
        keys = {normalise(key): key for key in item}
        hash_key = mapped.get("hash") or _first(keys, HASH_KEYS)
        if hash_key is None:
            return
        type_key = mapped.get("signal_type") or _first(keys, SIGNAL_TYPE_KEYS)
        called = as_text(item[type_key]) if type_key is not None else None
        used.update(key for key in (hash_key, type_key) if key is not None)
        yield (self._builder.resolve(called) or called) if called is not None else None, item[hash_key]


def _first(keys: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((keys[name] for name in names if name in keys), None)
