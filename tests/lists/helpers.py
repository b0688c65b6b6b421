"""Made-up hashes, and signal types that stand for the built-in ones."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

from uploadguard.lists import BUILTIN_READERS, BadLine, ListEntry, ListReader, ReadOptions
from uploadguard.signals.base import parse_hex


@dataclass(frozen=True)
class Hex:
    """A signal type that lists write as hex."""

    name: str
    length_bytes: int
    max_distance_bits: int = 0

    def parse(self, text: str) -> bytes:
        return parse_hex(text, self.length_bytes)

    def format(self, value: bytes) -> str:
        return value.hex()


MD5, SHA1, SHA256 = Hex("md5", 16), Hex("sha1", 20), Hex("sha256", 32)
PDQ, PHASH, PHOTODNA = Hex("pdq", 32, 31), Hex("phash", 8, 8), Hex("photodna", 144, 1)
USUAL = (MD5, SHA1, SHA256, PDQ)


def made_up(signal: Hex, seed: object = 0) -> bytes:
    """A value that no real medium is known to have."""
    return hashlib.shake_256(repr((signal.name, seed)).encode()).digest(signal.length_bytes)


def text_of(signal: Hex, seed: object = 0) -> str:
    return made_up(signal, seed).hex()


def options(*signals: Hex, **more: Any) -> ReadOptions:
    return ReadOptions(signal_types={signal.name: signal for signal in signals or USUAL}, **more)


def reader(name: str) -> ListReader:
    return next(reader for reader in BUILTIN_READERS if reader.name == name)


def read(name: str, data: str | bytes, settings: ReadOptions | None = None) -> list[ListEntry | BadLine]:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return list(reader(name).read(stream, settings or options()))


def entries(items: list[ListEntry | BadLine]) -> list[ListEntry]:
    return [item for item in items if isinstance(item, ListEntry)]


def bad(items: list[ListEntry | BadLine]) -> list[tuple[int, str]]:
    """The line and reason of each bad line."""
    return [(item.line, item.reason) for item in items if isinstance(item, BadLine)]
