"""What every signal type must do, whether it is computed from bytes, from pixels, or elsewhere."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator

import pytest

from uploadguard.hashset.metadata import check_signal_name
from uploadguard.signals.base import DigestSignal, PixelSignal, SignalType
from uploadguard.testing.conformance._checks import in_threads, leaks, require

__all__ = ["HAMMING_LENGTHS_BYTES", "MAX_LENGTH_BYTES", "SignalTypeConformance"]

MAX_LENGTH_BYTES = 64
"""The longest hash that the hash set holds."""

HAMMING_LENGTHS_BYTES = (8, 32)
"""The lengths of hashes that it finds by distance."""


class SignalTypeConformance:
    """For a signal type that is only read from lists; those computed from uploads have suites of their own."""

    text_is_hex = True
    """Whether lists write the hash in hex, in either case. False leaves out the checks that are about hex."""

    def make(self) -> SignalType:
        """A fresh signal type, as the plugin registers it."""
        raise NotImplementedError

    def values(self) -> list[bytes]:
        """Values that the signal type can have. By default any bytes of its length."""
        length_bytes = self.make().length_bytes
        random = [hashlib.shake_128(bytes([seed])).digest(length_bytes) for seed in range(8)]
        return [bytes(length_bytes), b"\xff" * length_bytes, *random]

    def test_it_follows_the_protocol(self) -> None:
        signal = self.make()
        require(isinstance(signal, SignalType), f"{type(signal).__name__} lacks a member of SignalType")

    def test_its_suite_is_the_one_for_its_kind(self) -> None:
        signal, suite = self.make(), [base.__name__ for base in type(self).__mro__]
        for protocol, needed in ((DigestSignal, "DigestSignalConformance"), (PixelSignal, "PixelSignalConformance")):
            if isinstance(signal, protocol):
                require(needed in suite, f"a {protocol.__name__} must be tested with {needed}")

    def test_its_name_can_stand_in_lists_and_configuration(self) -> None:
        name = self.make().name
        try:
            check_signal_name(name)
        except (ValueError, TypeError) as error:
            pytest.fail(f"the name is refused by the hash set: {error}")

    def test_its_hashes_fit_the_hash_set(self) -> None:
        signal = self.make()
        length, limit = signal.length_bytes, signal.max_distance_bits
        require(type(length) is int and type(limit) is int, "length_bytes and max_distance_bits must be int")
        require(1 <= length <= MAX_LENGTH_BYTES, f"length_bytes is {length}, not 1 to {MAX_LENGTH_BYTES}")
        require(limit >= 0, f"max_distance_bits is {limit}")
        if limit > 0:
            lengths = " or ".join(map(str, HAMMING_LENGTHS_BYTES))
            require(length in HAMMING_LENGTHS_BYTES, f"only hashes of {lengths} bytes are found by distance")
            require(limit < 4 * length, f"{limit} of {8 * length} bits: unrelated pictures would match")

    def test_every_instance_is_the_same_signal_type(self) -> None:
        first, second = self.make(), self.make()
        for attribute in ("name", "length_bytes", "max_distance_bits"):
            require(getattr(first, attribute) == getattr(second, attribute), f"{attribute} differs between instances")

    def test_parse_undoes_format(self) -> None:
        signal = self.make()
        for value in self.values():
            text = signal.format(value)
            require(isinstance(text, str) and text != "", "format must give a text")
            require(text == text.strip() and text.isprintable(), "format gives blanks or control characters")
            parsed = signal.parse(text)
            require(type(parsed) is bytes, f"parse gives {type(parsed).__name__}, not bytes")
            require(len(parsed) == signal.length_bytes, f"parse gives {len(parsed)} bytes, not {signal.length_bytes}")
            require(parsed == value, "parse(format(value)) is another value")

    def test_different_values_are_written_differently(self) -> None:
        signal, values = self.make(), self.values()
        require(len({signal.format(value) for value in values}) == len(set(values)), "two values have one text")

    def test_hex_is_read_in_either_case(self) -> None:
        signal = self.make()
        if not self.text_is_hex:
            return
        for value in self.values():
            text = signal.format(value)
            for written in (text.upper(), text.lower()):
                try:
                    parsed = signal.parse(written)
                except ValueError as error:
                    pytest.fail(f"hex in one of the two cases is refused: {error}")
                require(parsed == value, "hex in the other case is another value")

    def test_parse_refuses_what_is_no_hash(self) -> None:
        for kind, text in self._no_hashes():
            try:
                self.make().parse(text)
            except ValueError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever else it is, is the finding
                pytest.fail(f"parse raises {type(error).__name__} instead of ValueError for {kind}")
            pytest.fail(f"parse accepts {kind}")

    def test_refusals_do_not_repeat_the_hash(self) -> None:
        for kind, text in self._no_hashes():
            try:
                self.make().parse(text)
            except Exception as error:  # noqa: BLE001 - the kind of error is another test's matter
                shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
                require(str(error) != "", f"the ValueError for {kind} gives no reason")
                require(not leaks(shown, text), f"the error for {kind} repeats the hash, itself or in what caused it")

    def test_threads_can_share_it(self) -> None:
        signal, values = self.make(), self.values()
        texts = [signal.format(value) for value in values]
        require(in_threads(signal.format, values, repeats=20) == texts * 20, "format is not thread-safe")
        require(in_threads(signal.parse, texts, repeats=20) == values * 20, "parse is not thread-safe")

    def _no_hashes(self) -> Iterator[tuple[str, str]]:
        """What must be refused, with what it is."""
        text = self.make().format(self.values()[-1])
        middle = len(text) // 2
        yield "an empty text", ""
        yield "a hash with its last character missing", text[:-1]
        yield "a hash with its last two characters missing", text[:-2]
        yield "half a hash", text[:middle]
        yield "two hashes in a row", text + text
        yield "a thousand hashes in a row", text * 1000
        yield "a hash with a line end", text + "\n"
        yield "a hash with a NUL byte", text[:-1] + "\0"
        yield "a hash with a digit of another script", text[:-1] + "\uff11"
        yield "a hash with a lone surrogate", text[:middle] + "\ud800" + text[middle + 1 :]
        if self.text_is_hex:
            yield "blanks", " " * len(text)
            yield "a hash with two characters more", text + "00"
            yield "a hash that is not hex in one place", text[:middle] + "g" + text[middle + 1 :]
            yield "a hash with blanks inside", text[:2] + "  " + text[4:]
            yield "a hash with an underscore inside", text[:middle] + "_" + text[middle + 1 :]
            yield "a hash that begins with 0x", "0x" + text[2:]
            yield "a hash with a sign", "+" + text[1:]
