"""The keys that files are encrypted with: how they are written down, and what is derived from them.

Needs the ``cryptography`` package (extra ``encryption``), which is imported once there is a key.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from uploadguard.storage.files import write_new_file

__all__ = ["KEY_BYTES", "KEY_ID_BYTES", "Key", "Keys", "parse_keys", "read_key_file", "write_key_file"]

KEY_BYTES = 32
KEY_ID_BYTES = 16
_MAX_FILE_BYTES = 65536
_ID_LABEL = "uploadguard hash set, key id"


class Key:
    """A secret of 32 random bytes. ``id`` names it in files and messages, and tells nothing of the secret."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        """Raises ``ValueError`` for a secret of another length, or without the ``cryptography`` package."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key of {len(secret)} bytes in place of {KEY_BYTES}")
        if importlib.util.find_spec("cryptography") is None:
            raise ValueError("needs the cryptography package: pip install 'uploadguard[encryption]'")
        self._secret = secret
        self.id = self.derive(None, _ID_LABEL, KEY_ID_BYTES)

    def __repr__(self) -> str:
        return "Key(<redacted>)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not to be pickled; load it where it is needed")

    @property
    def short_id(self) -> str:
        """The id as messages show it."""
        return short_id(self.id)

    def derive(self, salt: bytes | None, label: str, length: int) -> bytes:
        """A key of ``length`` bytes for one salt and purpose, which ``label`` names, by HKDF with SHA-256 (RFC 5869).

        A label must stay as it is, or what was encrypted under it can no longer be read.
        """
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), length, salt, label.encode()).derive(self._secret)


class Keys:
    """The key that files are encrypted with as they are written, if they are, and all that they may be read with."""

    __slots__ = ("_by_id", "writing")

    def __init__(self, keys: Sequence[Key], *, write: bool = True) -> None:
        """The first of ``keys`` is written with, if ``write``. Raises ``ValueError`` if there is none."""
        if not keys:
            raise ValueError("holds no key; `uploadguard hashset newkey FILE` makes one")
        self._by_id = {key.id: key for key in keys}
        self.writing = keys[0] if write else None

    def __repr__(self) -> str:
        return f"Keys(<{len(self._by_id)} redacted>)"

    def find(self, key_id: bytes) -> Key | None:
        """The key of that id, if it is among these."""
        return self._by_id.get(key_id)


def short_id(key_id: bytes) -> str:
    """The beginning of a key's id, in hex: enough to tell a few keys apart."""
    return key_id[:4].hex()


def parse_keys(text: str) -> list[Key]:
    """The keys in ``text``, hex or base64, apart by white space. Raises ``ValueError``, without the text."""
    return [Key(_decode(word)) for word in text.split()]


def read_key_file(path: Path) -> list[Key]:
    """The keys in a file. Raises ``ValueError`` and ``OSError``."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES or not data.isascii():
        raise ValueError("is not a key file")
    return parse_keys(data.decode("ascii"))


def write_key_file(path: Path) -> Key:
    """Write a new random key to a new file, in hex, that its owner alone can read. Raises ``OSError``."""
    secret = secrets.token_bytes(KEY_BYTES)
    key = Key(secret)
    write_new_file(path, f"{secret.hex()}\n".encode("ascii"))
    return key


def _decode(word: str) -> bytes:
    if re.fullmatch(r"[0-9a-fA-F]{64}", word):
        return bytes.fromhex(word)
    try:
        found = base64.b64decode(word.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != KEY_BYTES:
        raise ValueError(f"holds what is not a key: {KEY_BYTES} bytes as 64 hex digits or in base64")
    return found
