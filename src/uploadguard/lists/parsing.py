"""What all list readers share: which hashes may enter a list, and what is kept of the rest of an entry."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.signals.base import SignalType, parse_hex

__all__ = [
    "CATEGORY_KEYS",
    "HASH_KEYS",
    "ID_KEYS",
    "MAX_FIELD_CHARS",
    "ROLES",
    "SIGNAL_TYPE_KEYS",
    "EntryBuilder",
    "UnregisteredError",
    "ambiguous",
    "as_flag",
    "as_text",
    "is_hash_key",
    "looks_like_hash",
    "normalise",
    "provenance",
    "role_of",
]

MAX_FIELD_CHARS = 4096
"""A longer value is not provenance (an embedded picture, say) and is left out of an entry's fields."""

ID_KEYS = ("id", "entryid", "mediaid", "imageid", "contentid", "recordid")
"""Names of the entry's id, normalised, the likeliest first."""

CATEGORY_KEYS = ("category", "categoryid", "classification")
"""Names of the entry's category, normalised, the likeliest first."""

SIGNAL_TYPE_KEYS = ("signaltype", "hashtype", "hashname", "algorithm", "type")
"""Names of what says the signal type in the long form, normalised, the likeliest first."""

HASH_KEYS = ("hash", "hashvalue", "value")
"""Names of a hash whose signal type is said elsewhere, normalised, the likeliest first."""

ROLES = MappingProxyType({"id": ID_KEYS, "category": CATEGORY_KEYS, "signal_type": SIGNAL_TYPE_KEYS, "hash": HASH_KEYS})
"""What an operator can map a column to, beside signal types; with the names it has where nothing is mapped."""

_MAX_ID_CHARS = 512
_MAX_DEPTH = 4
_MAX_RESOLVED = 1024
_EMPTY_DIGESTS = frozenset(hashlib.new(name, b"").digest() for name in ("md5", "sha1", "sha256"))
_ALIASES = {"pdna": "photodna", "hashpdq": "pdq", "hashmd5": "md5", "hashsha1": "sha1", "hashsha256": "sha256"}
_KNOWN = frozenset(
    {"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "pdq", "photodna", "ahash", "dhash", "phash", "whash"}
    | {"tmk", "tmkpdqf", "vpdq", "ssdeep"}
)
_HASH_KEY = re.compile(r".*(?:md5|sha1|sha224|sha256|sha384|sha512|photodna|pdna|pdq)(?:hash|hex|base64|value)?")
_PICTURE_KEYS = frozenset({"miniature", "thumbnail", "preview", "imagedata"})
_PRINTABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,23}")
_HEX = re.compile(r"[0-9a-fA-F]+")
_HASH_LIKE = re.compile(r"[0-9a-fA-F]{16,}|[A-Za-z0-9+/]{192}")
_PHOTODNA_BYTES = 144
_PHOTODNA_BASE64_CHARS = 192


class UnregisteredError(ValueError):
    """The hash is of a signal type that is not registered here."""


@functools.lru_cache(maxsize=1024)
def normalise(name: str) -> str:
    """A column's, key's or signal type's name for comparison: ``SHA-1`` and ``sha_1`` are ``sha1``."""
    return "".join(char for char in name.lower() if char.isalnum())


@functools.lru_cache(maxsize=1024)
def is_hash_key(name: str) -> bool:
    """Whether a key's name says that its value is a hash (``ParentMD5``), of whatever registered or other type."""
    key = normalise(name)
    return key in _KNOWN or _HASH_KEY.fullmatch(key) is not None


def looks_like_hash(text: str) -> bool:
    """Whether a text may be a hash, of whatever signal type: long hex, or PhotoDNA in base64."""
    return _HASH_LIKE.fullmatch(text) is not None


def as_text(value: object) -> str | None:
    """A scalar of a list as an id or a category: stripped text; None for nothing and for what is no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, Decimal)):
        return _clean(str(value).strip())[:_MAX_ID_CHARS] or None
    return None


def as_flag(value: Any) -> Any:
    """The texts ``true`` and ``false``, in any case, as booleans; all else as it is."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


@functools.lru_cache(maxsize=1024)
def _is_kept(key: str) -> bool:
    return "odata." not in key and not is_hash_key(key) and normalise(key) not in _PICTURE_KEYS


def provenance(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What is kept of an object as fields: JSON types, without nulls, hashes, pictures and OData's own keys.

    Nesting deeper than 4 and texts over :data:`MAX_FIELD_CHARS` are left out too.
    """
    return _keep_members(members, 0)


def _keep_members(members: Iterable[tuple[str, Any]], depth: int) -> dict[str, Any]:
    kept = {}
    for key, value in members:
        if value is not None and _is_kept(key) and (value := _keep(value, depth)) is not None:
            kept[_clean(key)] = value
    return kept


def _keep(value: Any, depth: int) -> Any:
    """The value in JSON types, or None to leave it out."""
    if isinstance(value, str):
        return _clean(value) if len(value) <= MAX_FIELD_CHARS else None
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(float(value)) else str(value)
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return _keep_members(value.items(), depth + 1)
    if isinstance(value, list):
        return [kept for item in value if (kept := _keep(item, depth + 1)) is not None]
    return None


def _clean(text: str) -> str:
    """The text with lone surrogates (``"\\ud800"`` is valid JSON) replaced, so that it can be stored."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class EntryBuilder:
    """Makes entries of what a list says, and is the one place that decides which hashes may enter.

    Raises :class:`~uploadguard.errors.ListFormatError` if ``options.signal_type`` is not registered.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._types = dict(options.signal_types)
        self._resolved: dict[str, str | None] = {}
        self._names = {normalise(name): name for name in self._types}
        self._refused = {name: _refused_values(signal) for name, signal in self._types.items()}
        self._by_hex_digits: dict[int, tuple[str, ...]] = {}
        for name, signal in sorted(self._types.items()):
            digits = 2 * signal.length_bytes
            self._by_hex_digits[digits] = (*self._by_hex_digits.get(digits, ()), name)
        self._signal_type = None
        if options.signal_type is not None:
            self._signal_type = self.resolve(options.signal_type)
            if self._signal_type not in self._types:
                registered = ", ".join(self.registered) or "none"
                raise ListFormatError(
                    f"no signal type {options.signal_type!r} is registered here; registered: {registered}"
                )

    @property
    def registered(self) -> tuple[str, ...]:
        """The names of the registered signal types, sorted."""
        return tuple(sorted(self._types))

    def resolve(self, written: str) -> str | None:
        """The signal type that a list calls so: a registered name, or a name of the field; None if it is neither."""
        try:
            return self._resolved[written]
        except KeyError:
            if len(self._resolved) >= _MAX_RESOLVED:  # names come from the file
                self._resolved.clear()
            return self._resolved.setdefault(written, self._resolve(normalise(written)))

    def _resolve(self, key: str) -> str | None:
        if key in self._names:
            return self._names[key]
        key = _ALIASES.get(key, key)
        if key.endswith("hash") and key not in _KNOWN and key not in self._names:
            key = key.removesuffix("hash")
        return self._names.get(key) or (key if key in _KNOWN else None)

    def parse(self, name: str, text: str) -> bytes:
        """The value of a hash as lists write it.

        Raises :class:`UnregisteredError`, or ``ValueError`` for a hash that must not enter a list. Neither repeats the
        hash.
        """
        try:
            signal = self._types[name]
        except KeyError:
            shown = f" {name!r}" if _PRINTABLE_NAME.fullmatch(name) and not _HEX.fullmatch(name) else " of that name"
            raise UnregisteredError(f"no signal type{shown} is registered here") from None
        try:
            value = signal.parse(text)
        except ValueError as error:
            value = _parse_photodna(text) if name == "photodna" else b""
            if not value:
                reason = str(error)
                shown = "not a valid hash" if text.lower() in reason.lower() else reason
                raise ValueError(f"{name}: {shown}") from None
        if value in self._refused[name]:
            raise ValueError(f"{name}: {_refusal(value)}")
        if len(value) != signal.length_bytes:
            raise ValueError(f"{name}: {len(value)} bytes instead of {signal.length_bytes}")
        return value

    def candidates(self, text: str) -> tuple[str, ...]:
        """The registered signal types that a bare hash may be of: the one the options name, or those of its length."""
        if self._signal_type is not None:
            return (self._signal_type,)
        names = self._by_hex_digits.get(len(text))
        return names if names and _HEX.fullmatch(text) else ()

    def infer(self, text: str) -> str:
        """The signal type of a bare hash. Raises ``ValueError`` unless there is exactly one."""
        names = self.candidates(text)
        if len(names) == 1:
            return names[0]
        if names:
            raise ValueError(ambiguous(len(text), names))
        raise ValueError(f"{len(text)} characters: not a hash of any registered signal type")

    def build(
        self,
        line: int,
        written: Iterable[tuple[str | None, object]],
        entry_id: str | None,
        category: str | None,
        fields: Mapping[str, Any],
    ) -> Iterator[ListEntry | BadLine]:
        """Yield a bad line for each hash that cannot be used, then the entry, if a hash is left.

        ``written`` pairs what :meth:`resolve` gave, or another name, or None for a bare hash, with the list's value;
        None and blank texts are no hash.
        """
        hashes: list[tuple[str, bytes]] = []
        found = False
        for name, value in written:
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            found = True
            if not isinstance(value, str):
                yield BadLine(line, f"{name or 'hash'}: not a text")
                continue
            text = value.strip()
            try:
                known = name if name is not None else self.infer(text)
                pair = known, self.parse(known, text)
            except UnregisteredError as error:
                yield BadLine(line, str(error), ignored=True)
            except ValueError as error:
                yield BadLine(line, str(error))
            else:
                if pair not in hashes:
                    hashes.append(pair)
        if hashes:
            yield ListEntry(entry_id or str(line), tuple(hashes), category, fields, line, numbered=not entry_id)
        elif not found:
            yield BadLine(line, "no hash")


def role_of(meaning: str, builder: EntryBuilder) -> str:
    """What the operator calls so: one of :data:`ROLES`, or a registered signal type.

    Raises :class:`~uploadguard.errors.ListFormatError`.
    """
    role = meaning if meaning in ROLES else builder.resolve(meaning)
    if role is None or role not in (*ROLES, *builder.registered):
        choices = ", ".join([*ROLES, *builder.registered])
        raise ListFormatError(f"cannot map {meaning!r} to a column: not one of {choices}")
    return role


def ambiguous(hex_digits: int, names: tuple[str, ...]) -> str:
    """The sentence for a bare hash whose length fits several signal types."""
    return f"a bare hash of {hex_digits} hex digits may be {' or '.join(names)}: pass --signal-type"


def _refused_values(signal: SignalType) -> frozenset[bytes]:
    if signal.max_distance_bits == 0:
        return _EMPTY_DIGESTS
    return frozenset({bytes(signal.length_bytes), b"\xff" * signal.length_bytes})


def _refusal(value: bytes) -> str:
    if value in _EMPTY_DIGESTS:
        return "the digest of an empty file, which would match every empty upload"
    return "all bits are the same, which would match every blank picture"


def _parse_photodna(text: str) -> bytes:
    """PhotoDNA in either of its two spellings; empty if it is in neither."""
    try:
        if len(text) == _PHOTODNA_BASE64_CHARS:
            return base64.b64decode(text, validate=True)
        return parse_hex(text, _PHOTODNA_BYTES)
    except (ValueError, binascii.Error):
        return b""
