"""What a signal type computed from the upload's bytes must do."""

from __future__ import annotations

import hashlib

from uploadguard.signals.base import DigestSignal
from uploadguard.testing.conformance._checks import in_threads, require
from uploadguard.testing.conformance.signals import SignalTypeConformance

__all__ = ["DigestSignalConformance"]

_SIZES_BYTES = (0, 1, 55, 56, 63, 64, 65, 127, 128, 1000, 100_003)


def _data(size_bytes: int) -> bytes:
    return hashlib.shake_128(b"%d" % size_bytes).digest(size_bytes)


class DigestSignalConformance(SignalTypeConformance):
    """For a :class:`~uploadguard.signals.base.DigestSignal`."""

    def make(self) -> DigestSignal:
        """A fresh signal type, as the plugin registers it."""
        raise NotImplementedError

    def test_it_is_a_digest(self) -> None:
        signal = self.make()
        require(isinstance(signal, DigestSignal), f"{type(signal).__name__} lacks a member of DigestSignal")

    def test_digests_have_their_length(self) -> None:
        signal = self.make()
        for size in _SIZES_BYTES:
            value = self._digest(_data(size))
            require(type(value) is bytes, f"digest() gives {type(value).__name__}, not bytes")
            require(len(value) == signal.length_bytes, f"{len(value)} bytes instead of {signal.length_bytes}")
            require(signal.parse(signal.format(value)) == value, "a digest does not survive format and parse")

    def test_the_same_bytes_have_the_same_digest(self) -> None:
        for size in _SIZES_BYTES:
            digests = {self._digest(_data(size)) for _ in range(3)}
            require(len(digests) == 1, f"{size} bytes have several digests")

    def test_other_bytes_have_another_digest(self) -> None:
        data = bytearray(_data(1000))
        digests = {self._digest(bytes(data))}
        for place in range(0, len(data), 50):
            data[place] ^= 1
            digests.add(self._digest(bytes(data)))
            data[place] ^= 1
        require(len(digests) == 21, "changing a byte does not always change the digest")

    def test_bytes_may_arrive_in_pieces(self) -> None:
        for size in _SIZES_BYTES:
            data = _data(size)
            whole = self._digest(data)
            for piece in (1, 7, 64, 4096):
                if size // piece > 5000:
                    continue
                hasher = self.make().new()
                for start in range(0, size, piece):
                    hasher.update(data[start : start + piece])
                require(hasher.digest() == whole, f"{size} bytes in pieces of {piece} have another digest")

    def test_empty_pieces_change_nothing(self) -> None:
        hasher = self.make().new()
        for piece in (b"", _data(100), b""):
            hasher.update(piece)
        require(hasher.digest() == self._digest(_data(100)), "an empty piece changes the digest")

    def test_bytes_may_be_a_memoryview(self) -> None:
        data = _data(1000)
        hasher = self.make().new()
        hasher.update(memoryview(data)[:500])
        hasher.update(memoryview(bytearray(data))[500:])
        require(hasher.digest() == self._digest(data), "a memoryview has another digest than its bytes")

    def test_it_keeps_no_reference_to_the_bytes(self) -> None:
        """The caller reads the next piece into the same buffer."""
        data = bytearray(_data(1000))
        hasher = self.make().new()
        hasher.update(memoryview(data))
        data[:] = bytes(1000)
        require(hasher.digest() == self._digest(_data(1000)), "the digest changes with the caller's buffer")

    def test_asking_for_the_digest_ends_nothing(self) -> None:
        data = _data(1000)
        hasher = self.make().new()
        hasher.update(data[:400])
        require(hasher.digest() == hasher.digest() == self._digest(data[:400]), "a second digest() differs")
        hasher.update(data[400:])
        require(hasher.digest() == self._digest(data), "bytes after a digest() are not taken in")

    def test_running_digests_share_nothing(self) -> None:
        signal = self.make()
        first, second = signal.new(), signal.new()
        for start in range(0, 1000, 100):
            first.update(_data(1000)[start : start + 100])
            second.update(_data(1001)[start : start + 100])
        second.update(_data(1001)[1000:])
        require(first.digest() == self._digest(_data(1000)), "two running digests disturb each other")
        require(second.digest() == self._digest(_data(1001)), "two running digests disturb each other")

    def test_threads_can_share_the_signal_type(self) -> None:
        signal = self.make()

        def digest(data: bytes) -> bytes:
            hasher = signal.new()
            for start in range(0, len(data), 1000):
                hasher.update(data[start : start + 1000])
            return hasher.digest()

        inputs = [_data(10_000 + index) for index in range(8)]
        require(in_threads(digest, inputs) == [self._digest(data) for data in inputs] * 4, "new() is not thread-safe")

    def _digest(self, data: bytes) -> bytes:
        hasher = self.make().new()
        hasher.update(data)
        return hasher.digest()
