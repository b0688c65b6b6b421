"""Encryption of files at rest: AES-256-GCM by the ``cryptography`` package, in chunks.

::

    0       header, 96 bytes: magic, version, chunk size, random file id, key id; SHA-256 of these
    96      chunks of the plain bytes, all of the same size but the last, each with its tag of 16 bytes behind it

Each file has a key of its own, derived from the configured one with the file id and what the file is for. A chunk's
nonce is its number and whether it is the last (the STREAM construction), and the header is its associated data, with a
context behind it that may say where the file belongs. So a chunk that is altered, moved, left out or taken from another
file is refused, and so is a file that was cut short, or stands in for one of another context.

Of a file that is read, only what is asked for is decrypted, into anonymous memory of this process.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uploadguard.storage.files import Output
from uploadguard.storage.keys import KEY_BYTES, KEY_ID_BYTES, Key, Keys, short_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "CHUNK_BYTES",
    "HEADER_BYTES",
    "DecryptionError",
    "Decryptor",
    "Encryptor",
    "Purpose",
    "decrypt",
    "encrypt",
    "key_id_of",
]

Purpose = Literal["segment", "manifest", "evidence", "tripped"]

CHUNK_BYTES = 1 << 16
"""What a single entry's look-up decrypts at the least, and a tenth slower to decrypt than larger ones."""

_MAGIC = b"\x89UGE\r\n\x1a\n"
_VERSION = 1
_HEADER = struct.Struct("<8sII32s16s")
_CHECKSUM_BYTES = 32
HEADER_BYTES = _HEADER.size + _CHECKSUM_BYTES
_FILE_ID_BYTES = 32
_TAG_BYTES = 16
_NONCE_NUMBER_BYTES = 11
_MAX_CHUNK_BYTES = 1 << 24
_WINDOW_BYTES = 1 << 24

_LABELS: dict[Purpose, str] = {
    "segment": "uploadguard hash set, segment",
    "manifest": "uploadguard hash set, manifest",
    "evidence": "uploadguard evidence, file",
    "tripped": "uploadguard hash set, tripped lists",
}
_KEY_SETTINGS: dict[Purpose, str] = {
    "segment": "hashset.encryption.key_file or hashset.encryption.key_env",
    "manifest": "hashset.encryption.key_file or hashset.encryption.key_env",
    "evidence": "evidence.key_file or evidence.key_env",
    "tripped": "hashset.encryption.key_file or hashset.encryption.key_env",
}


class DecryptionError(ValueError):
    """A file cannot be decrypted. ``altered``: it is damaged; otherwise the key is not at hand."""

    def __init__(self, reason: str, *, altered: bool) -> None:
        self.altered = altered
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class _Header:
    chunk_bytes: int
    file_id: bytes
    key_id: bytes

    def pack(self) -> bytes:
        body = _HEADER.pack(_MAGIC, _VERSION, self.chunk_bytes, self.file_id, self.key_id)
        return body + hashlib.sha256(body).digest()

    @classmethod
    def unpack(cls, data: bytes) -> _Header:
        body = data[: _HEADER.size]
        if len(data) < HEADER_BYTES or hashlib.sha256(body).digest() != data[_HEADER.size :]:
            raise DecryptionError("its header is altered or cut short", altered=True)
        _, version, chunk_bytes, file_id, key_id = _HEADER.unpack(body)
        if version != _VERSION:
            raise DecryptionError(
                f"is encrypted in version {version}, and this release reads version {_VERSION}; update uploadguard",
                altered=False,
            )
        if not 1 <= chunk_bytes <= _MAX_CHUNK_BYTES:
            raise DecryptionError("its header is inconsistent", altered=True)
        return cls(chunk_bytes, file_id, key_id)


def key_id_of(head: bytes | memoryview) -> bytes | None:
    """The id of the key that a file is encrypted with, by its first bytes; None if it is not. 80 bytes are enough."""
    if bytes(head[: len(_MAGIC)]) != _MAGIC:
        return None
    return bytes(head[_HEADER.size - KEY_ID_BYTES : _HEADER.size])


class Encryptor:
    """An :class:`~uploadguard.storage.files.Output` that encrypts what it passes on. Holds two chunks in memory.

    Going back is possible to the start only, where as much of the first chunk can be written again as there is of it.
    Whoever has written everything calls :meth:`finish`.
    """

    def __init__(
        self, output: Output, key: Key, purpose: Purpose, *, context: bytes = b"", chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        header = _Header(chunk_bytes, os.urandom(_FILE_ID_BYTES), key.id)
        self._output = output
        self._header = header.pack()
        self._associated = self._header + context
        self._cipher = _aes_gcm(_file_key(key, header.file_id, purpose))
        self._chunk_bytes = chunk_bytes
        self._first = bytearray()
        self._pending = bytearray()
        self._number = 0
        self._again: int | None = None

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take all of ``data``. Raises what ``output`` raises."""
        view = memoryview(data).cast("B")
        if self._again is not None:
            first = self._first if self._number else self._pending
            if self._again + len(view) > len(first):
                raise ValueError("only what stands in the first chunk can be written again")
            first[self._again : self._again + len(view)] = view
            self._again += len(view)
            return
        while len(view):
            if len(self._pending) == self._chunk_bytes:
                self._pass_on()
            room = self._chunk_bytes - len(self._pending)
            self._pending += view[:room]
            view = view[room:]

    def seek(self, offset: int, /) -> None:
        """Go back to the start. Raises ``ValueError`` for any other place."""
        if offset != 0:
            raise ValueError("an encrypted file can be written again at its start only")
        self._again = 0

    def finish(self) -> None:
        """Write what is held back: the last chunk, then header and first chunk."""
        if self._number:
            self._output.write(self._seal(self._pending, self._number, last=True))
            self._output.seek(0)
        first = self._first if self._number else self._pending
        self._output.write(self._header)
        self._output.write(self._seal(first, 0, last=self._number == 0))

    def _pass_on(self) -> None:
        """Write the chunk that is full, of which now is clear that it is not the last; of the first only its room."""
        if self._number == 0:
            self._first, self._pending = self._pending, bytearray()
            self._output.write(bytes(HEADER_BYTES + len(self._first) + _TAG_BYTES))
        else:
            self._output.write(self._seal(self._pending, self._number, last=False))
            self._pending.clear()
        self._number += 1

    def _seal(self, data: bytearray, number: int, *, last: bool) -> bytes:
        return self._cipher.encrypt(_nonce(number, last=last), data, self._associated)


class Decryptor:
    """Reads a file that :class:`Encryptor` wrote. Safe to share between threads."""

    def __init__(self, data: memoryview, keys: Keys | None, purpose: Purpose, *, context: bytes = b"") -> None:
        """``data`` is the whole file, mapped or in memory. Raises :class:`DecryptionError`."""
        self._data = data
        packed = bytes(data[:HEADER_BYTES])
        header = _Header.unpack(packed)
        self._associated = packed + context
        if keys is None:
            raise DecryptionError(f"is encrypted; set {_KEY_SETTINGS[purpose]}", altered=False)
        key = keys.find(header.key_id)
        if key is None:
            raise DecryptionError(
                f"is encrypted with the key of id {short_id(header.key_id)}, which is not among those that "
                f"{_KEY_SETTINGS[purpose]} gives",
                altered=False,
            )
        self._file_key = _file_key(key, header.file_id, purpose)
        self._chunk_bytes = header.chunk_bytes
        sealed_bytes = header.chunk_bytes + _TAG_BYTES
        stored_bytes = len(data) - HEADER_BYTES
        self._chunks = -(-stored_bytes // sealed_bytes)
        self.size_bytes = stored_bytes - self._chunks * _TAG_BYTES
        last_bytes = self.size_bytes - (self._chunks - 1) * header.chunk_bytes
        if self._chunks == 0 or last_bytes < 1:
            raise DecryptionError("is cut short", altered=True)

    @property
    def stored_bytes(self) -> int:
        """The size of the file."""
        return len(self._data)

    def read(self, start: int, end: int) -> memoryview:
        """Decrypt these plain bytes, into memory of their own, read-only, that core dumps leave out.

        Raises :class:`DecryptionError` if any of them is not what was written, and ``ValueError`` outside the file.
        """
        if not 0 <= start <= end <= self.size_bytes:
            raise ValueError("outside the file")
        if start == end:
            return memoryview(b"")
        first, behind = start // self._chunk_bytes, -(-end // self._chunk_bytes)
        base = first * self._chunk_bytes
        room = private_memory(min(behind * self._chunk_bytes, self.size_bytes) - base)
        cipher = self._cipher()
        for number, sealed in self._sealed(first, behind):
            place = number * self._chunk_bytes - base
            self._open(cipher, number, sealed, room[place : place + len(sealed) - _TAG_BYTES])
        return room[start - base : end - base].toreadonly()

    def authenticate(self, start: int, end: int) -> None:
        """Read the whole file, but for the chunks between these plain bytes. Raises :class:`DecryptionError`."""
        known = range(-(-start // self._chunk_bytes), end // self._chunk_bytes)
        scratch = private_memory(self._chunk_bytes)
        cipher = self._cipher()
        for number, sealed in self._sealed(0, self._chunks):
            if number not in known:
                self._open(cipher, number, sealed, scratch[: len(sealed) - _TAG_BYTES])

    def _cipher(self) -> AESGCM:
        return _aes_gcm(self._file_key)

    def _sealed(self, first: int, behind: int) -> Iterator[tuple[int, memoryview]]:
        """Numbers and stored bytes of some chunks.

        Of a map, what is read next is called for, and what was read is let go of, so that it does not count as this
        process's memory.
        """
        step = self._chunk_bytes + _TAG_BYTES
        window = max(1, _WINDOW_BYTES // step)
        mapped = self._data.obj if isinstance(self._data.obj, mmap.mmap) else None
        for start in range(first, behind, window):
            numbers = range(start, min(start + window, behind))
            if mapped is not None and behind - first > window:
                place = (HEADER_BYTES + numbers.stop * step) & -mmap.PAGESIZE
                if place < len(mapped):
                    mapped.madvise(mmap.MADV_WILLNEED, place, min(window * step, len(mapped) - place))
            for number in numbers:
                place = HEADER_BYTES + number * step
                yield number, self._data[place : place + step]
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _open(self, cipher: AESGCM, number: int, sealed: memoryview, into: memoryview) -> None:
        from cryptography.exceptions import InvalidTag

        try:
            cipher.decrypt_into(_nonce(number, last=number == self._chunks - 1), sealed, self._associated, into)
        except InvalidTag:
            raise DecryptionError("is altered or cut short", altered=True) from None


def encrypt(data: bytes, key: Key, purpose: Purpose) -> bytes:
    """``data`` as an encrypted file, at once."""
    output = io.BytesIO()
    encryptor = Encryptor(output, key, purpose)
    encryptor.write(data)
    encryptor.finish()
    return output.getvalue()


def decrypt(data: bytes, keys: Keys | None, purpose: Purpose) -> bytes:
    """What :func:`encrypt` was given. Raises :class:`DecryptionError`."""
    decryptor = Decryptor(memoryview(data), keys, purpose)
    return bytes(decryptor.read(0, decryptor.size_bytes))


def private_memory(size_bytes: int) -> memoryview:
    """Zeros that no file stands behind, left out of core dumps, on large pages where the system gives them.

    A forked child shares them as long as neither process writes to them.
    """
    room = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.madvise(mmap.MADV_DONTDUMP)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # not every system has them
            room.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(room)


def _file_key(key: Key, file_id: bytes, purpose: Purpose) -> bytes:
    return key.derive(file_id, _LABELS[purpose], KEY_BYTES)


def _aes_gcm(file_key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(file_key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE_NUMBER_BYTES, "big") + bytes([last])
