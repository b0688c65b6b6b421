"""Signal types and digests that break one rule each, with the test of the suite that must find it and what it says."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from uploadguard.signals.base import parse_hex
from uploadguard.signals.pdq import Pdq


class Sound:
    """A signal type that is only read from lists; each broken one changes one thing."""

    name = "sound"
    length_bytes = 32
    max_distance_bits = 0

    def parse(self, text: str) -> bytes:
        return parse_hex(text, self.length_bytes)

    def format(self, value: bytes) -> str:
        return value.hex()


class WithoutFormat:
    name, length_bytes, max_distance_bits = "sound", 32, 0

    def parse(self, text: str) -> bytes:
        return parse_hex(text, 32)


class UpperCaseName(Sound):
    name = "Sound"


class TooLong(Sound):
    length_bytes = 65


class NoHammingLength(Sound):
    length_bytes, max_distance_bits = 16, 3


class TooWide(Sound):
    max_distance_bits = 128


class Negative(Sound):
    max_distance_bits = -1


class FloatLimit(Sound):
    max_distance_bits = 3.0  # type: ignore[assignment]


class OtherEachTime(Sound):
    def __init__(self) -> None:
        self.name = f"sound{time.perf_counter_ns() % 10**12}"


class Reversed(Sound):
    def format(self, value: bytes) -> str:
        return value[::-1].hex()


class Short(Sound):
    def parse(self, text: str) -> bytes:
        return super().parse(text)[:-1]


class Mutable(Sound):
    def parse(self, text: str) -> Any:
        return bytearray(super().parse(text))


class WithLineEnd(Sound):
    def format(self, value: bytes) -> str:
        return value.hex() + "\n"


class Lossy(Sound):
    def format(self, value: bytes) -> str:
        return bytes(32).hex()


class LowerCaseOnly(Sound):
    def parse(self, text: str) -> bytes:
        if text != text.lower():
            raise ValueError("must be in lower case")
        return super().parse(text)


class CaseMatters(Sound):
    def parse(self, text: str) -> bytes:
        return bytes(byte ^ text.isupper() for byte in super().parse(text))


class Lenient(Sound):
    def parse(self, text: str) -> bytes:
        return bytes.fromhex(text)  # skips blanks, and takes any length


class Stripping(Sound):
    def parse(self, text: str) -> bytes:
        return super().parse(text.strip())


class OtherError(Sound):
    def parse(self, text: str) -> bytes:
        if len(text) != 64:
            raise KeyError("no hash")
        return super().parse(text)


class Repeating(Sound):
    def parse(self, text: str) -> bytes:
        try:
            return super().parse(text)
        except ValueError:
            raise ValueError(f"not a hash: {text}") from None


class RepeatingInCause(Sound):
    def parse(self, text: str) -> bytes:
        try:
            return bytes(int(part, 16) for part in (text[i : i + 16] for i in range(0, len(text), 16)))
        except ValueError as error:  # the error of int() shows its argument
            raise ValueError("not a hash") from error


class NoReason(Sound):
    def parse(self, text: str) -> bytes:
        try:
            return super().parse(text)
        except ValueError:
            raise ValueError from None


class SharedBuffer(Sound):
    def parse(self, text: str) -> bytes:
        self.text = text
        time.sleep(0.0001)
        return super().parse(self.text)


class SharedFormat(Sound):
    def format(self, value: bytes) -> str:
        self.value = value
        time.sleep(0.0001)
        return self.value.hex()


class SoundDigest(Sound):
    name = "sounddigest"

    def new(self) -> Any:
        return Hasher()


class Hasher:
    """Keeps all pieces; what is broken changes what it does with them."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))

    def digest(self) -> bytes:
        return hashlib.sha256(b"".join(self.pieces)).digest()


def digest_of(hasher: type) -> type[SoundDigest]:
    """The sound digest with another running digest."""
    return type(hasher.__name__, (SoundDigest,), {"new": lambda self: hasher()})


class Truncated(Hasher):
    def digest(self) -> bytes:
        return super().digest()[:31]


class Hex(Hasher):
    def digest(self) -> Any:
        return super().digest().hex()


class Salted(Hasher):
    def digest(self) -> bytes:
        return hashlib.sha256(b"%d" % id(self) + b"".join(self.pieces)).digest()


class HeadOnly(Hasher):
    def digest(self) -> bytes:
        return hashlib.sha256(b"".join(self.pieces)[:500]).digest()


class LastPieceOnly(Hasher):
    def digest(self) -> bytes:
        return hashlib.sha256(self.pieces[-1] if self.pieces else b"").digest()


class CountsPieces(Hasher):
    def digest(self) -> bytes:
        return hashlib.sha256(b"%d" % len(self.pieces) + b"".join(self.pieces)).digest()


class BytesOnly(Hasher):
    def update(self, data: Any) -> None:
        super().update(data.ljust(0))


class KeepsTheBuffer(Hasher):
    def update(self, data: Any) -> None:
        self.pieces.append(data)


class EndsWithDigest(Hasher):
    def digest(self) -> bytes:
        value = super().digest()
        self.pieces.append(b"padding")
        return value


class Deaf(Hasher):
    done: bytes | None = None

    def digest(self) -> bytes:
        self.done = self.done or super().digest()
        return self.done


class OneForAll(SoundDigest):
    def new(self) -> Any:
        self.hasher = getattr(self, "hasher", None) or Hasher()
        return self.hasher


class OneAtATime(SoundDigest):
    """Each new running digest resets the one before."""

    pieces: list[bytes]

    def new(self) -> Any:
        hasher = Hasher()
        self.pieces = hasher.pieces
        signal = self

        class Late(Hasher):
            def update(self, data: bytes | memoryview) -> None:
                time.sleep(0.0001)
                signal.pieces.append(bytes(data))

            def digest(self) -> bytes:
                return hashlib.sha256(b"".join(signal.pieces)).digest()

        return Late()


SIGNALS: list[tuple[str, Any, str]] = [
    ("test_it_follows_the_protocol", WithoutFormat, "lacks a member"),
    ("test_its_suite_is_the_one_for_its_kind", SoundDigest, "DigestSignalConformance"),
    ("test_its_suite_is_the_one_for_its_kind", Pdq, "PixelSignalConformance"),
    ("test_its_name_can_stand_in_lists_and_configuration", UpperCaseName, "name is refused"),
    ("test_its_hashes_fit_the_hash_set", TooLong, "length_bytes is 65"),
    ("test_its_hashes_fit_the_hash_set", NoHammingLength, "8 or 32 bytes"),
    ("test_its_hashes_fit_the_hash_set", TooWide, "unrelated pictures would match"),
    ("test_its_hashes_fit_the_hash_set", Negative, "is -1"),
    ("test_its_hashes_fit_the_hash_set", FloatLimit, "must be int"),
    ("test_every_instance_is_the_same_signal_type", OtherEachTime, "name differs"),
    ("test_parse_undoes_format", Reversed, "another value"),
    ("test_parse_undoes_format", Short, "31 bytes, not 32"),
    ("test_parse_undoes_format", Mutable, "bytearray"),
    ("test_parse_undoes_format", WithLineEnd, "control characters"),
    ("test_different_values_are_written_differently", Lossy, "one text"),
    ("test_hex_is_read_in_either_case", LowerCaseOnly, "refused"),
    ("test_hex_is_read_in_either_case", CaseMatters, "another value"),
    ("test_parse_refuses_what_is_no_hash", Lenient, "accepts an empty text"),
    ("test_parse_refuses_what_is_no_hash", Stripping, "accepts a hash with a line end"),
    ("test_parse_refuses_what_is_no_hash", OtherError, "KeyError"),
    ("test_refusals_do_not_repeat_the_hash", Repeating, "repeats the hash"),
    ("test_refusals_do_not_repeat_the_hash", RepeatingInCause, "repeats the hash"),
    ("test_refusals_do_not_repeat_the_hash", NoReason, "no reason"),
    ("test_threads_can_share_it", SharedBuffer, "parse is not thread-safe"),
    ("test_threads_can_share_it", SharedFormat, "format is not thread-safe"),
]

DIGESTS: list[tuple[str, Any, str]] = [
    ("test_it_is_a_digest", Sound, "lacks a member"),
    ("test_digests_have_their_length", digest_of(Truncated), "31 bytes"),
    ("test_digests_have_their_length", digest_of(Hex), "str, not bytes"),
    ("test_the_same_bytes_have_the_same_digest", digest_of(Salted), "several digests"),
    ("test_other_bytes_have_another_digest", digest_of(HeadOnly), "does not always change"),
    ("test_bytes_may_arrive_in_pieces", digest_of(LastPieceOnly), "in pieces of 1"),
    ("test_empty_pieces_change_nothing", digest_of(CountsPieces), "empty piece"),
    ("test_bytes_may_be_a_memoryview", digest_of(BytesOnly), "ljust"),
    ("test_it_keeps_no_reference_to_the_bytes", digest_of(KeepsTheBuffer), "caller's buffer"),
    ("test_asking_for_the_digest_ends_nothing", digest_of(EndsWithDigest), "second digest"),
    ("test_asking_for_the_digest_ends_nothing", digest_of(Deaf), "not taken in"),
    ("test_running_digests_share_nothing", OneForAll, "disturb each other"),
    ("test_threads_can_share_the_signal_type", OneAtATime, "not thread-safe"),
]
