"""Cryptographic digests of the upload's original bytes: MD5, SHA-1 and SHA-256.

They find byte-identical files only, and for those they are proof enough to block by themselves. MD5 and SHA-1 are
what hotlines' lists hold; nothing here relies on them being hard to collide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from uploadguard.signals.base import ByteHasher, DigestSignal, parse_hex

__all__ = ["DIGESTS", "Digest", "MultiDigest"]

_CHUNK_BYTES = 1 << 18
"""Each chunk goes through every hasher while it is still in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest of :mod:`hashlib` as a signal type."""

    name: str
    length_bytes: int
    max_distance_bits: int = 0

    def parse(self, text: str) -> bytes:
        """Hex in either case to the digest. Raises ``ValueError``."""
        return parse_hex(text, self.length_bytes)

    def format(self, value: bytes) -> str:
        """The digest in lower-case hex."""
        return value.hex()

    def new(self) -> ByteHasher:
        """A fresh running digest."""
        return hashlib.new(self.name, usedforsecurity=False)


DIGESTS: tuple[Digest, ...] = (Digest("md5", 16), Digest("sha1", 20), Digest("sha256", 32))


class MultiDigest:
    """Several digests of the same bytes in one pass. The GIL is free while large chunks are hashed.

    A signal type that raises is left out from then on; ``failed`` has its name and the exception's class.
    """

    def __init__(self, signals: Sequence[DigestSignal]) -> None:
        self._hashers: list[tuple[DigestSignal, ByteHasher]] = []
        self.failed: dict[str, str] = {}
        self.size_bytes = 0
        for signal in signals:
            with self._isolating(signal):
                self._hashers.append((signal, signal.new()))

    def update(self, data: bytes | memoryview) -> None:
        """Take in more of the upload's bytes."""
        view = memoryview(data)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        for start in range(0, len(view), _CHUNK_BYTES):
            chunk = view[start : start + _CHUNK_BYTES]
            for signal, hasher in self._hashers:
                if signal.name not in self.failed:
                    with self._isolating(signal):
                        hasher.update(chunk)
        self.size_bytes += len(view)

    def digests(self) -> list[tuple[str, bytes]]:
        """Signal type and value of each digest of all bytes so far, without those that failed."""
        found = []
        for signal, hasher in self._hashers:
            if signal.name not in self.failed:
                with self._isolating(signal):
                    value = hasher.digest()
                    if len(value) != signal.length_bytes:
                        raise ValueError("a digest of the wrong length")
                    found.append((signal.name, value))
        return found

    @contextmanager
    def _isolating(self, signal: DigestSignal) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; the name is kept
            self.failed[signal.name] = type(error).__name__
