"""List readers that break one rule each, with the test of the suite that must find it and what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions

Item = ListEntry | BadLine


class SoundReader:
    """Lines of an MD5 and an id under a first line ``#sound``; each broken one changes one thing."""

    name = "sound"
    encoding_errors = "replace"

    def probe(self, head: bytes, filename: str) -> int:
        return 90 if head.removeprefix(b"\xef\xbb\xbf").startswith(b"#sound") else 0

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        for number, line in enumerate(self.lines(stream), 1):
            text = line.decode("utf-8", self.encoding_errors).strip()
            if number == 1:
                text = text.removeprefix("\ufeff")
            if text and not text.startswith("#"):
                yield from self.items(number, text, options)

    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        yield from stream

    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        digest, _, entry_id = text.partition(" ")
        if "md5" not in options.signal_types:
            yield BadLine(number, "md5 is not registered here", ignored=True)
            return
        try:
            value = options.signal_types["md5"].parse(digest)
        except ValueError as error:
            yield BadLine(number, str(error))
        else:
            yield ListEntry(entry_id or str(number), (("md5", value),), line=number)


class Altering(SoundReader):
    """Changes every entry it reads."""

    changes: dict[str, Any] = {}  # noqa: RUF012

    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        for item in super().items(number, text, options):
            yield replace(item, **self.changes) if isinstance(item, ListEntry) else item


def altering(**changes: Any) -> type[SoundReader]:
    """A reader whose entries all have these attributes."""
    return type("Altering_" + "_".join(changes), (Altering,), {"changes": changes})


class WithoutProbe:
    name = "sound"

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        return iter(())


class BlankInName(SoundReader):
    name = "sound reader"


class DropsTheLast(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        last = None
        for item in super().read(stream, options):
            if last is not None:
                yield last
            last = item


class AnyOrder(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        yield from sorted(super().read(stream, options), key=lambda item: getattr(item, "hashes", ()))


class HeaderIsBad(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        yield BadLine(1, "no hash")
        yield from super().read(stream, options)


class CountsFromZero(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        yield from super().items(number - 1, text, options)


class KeepsTheLine(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        for item in super().items(number, text, options):
            yield replace(item, fields={"raw": text}) if isinstance(item, ListEntry) else item


class LowerCaseOnly(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        if text.lower() == text:
            yield from super().items(number, text, options)
        else:
            yield BadLine(number, "not in lower case")


class StopsAtBad(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        for item in super().read(stream, options):
            yield item
            if isinstance(item, BadLine):
                return


class Silent(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        return (item for item in super().read(stream, options) if isinstance(item, ListEntry))


class NumbersBadLinesApart(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        bad = 0
        for item in super().read(stream, options):
            bad += isinstance(item, BadLine)
            yield replace(item, line=bad) if isinstance(item, BadLine) else item


class Repeating(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        for item in super().items(number, text, options):
            yield replace(item, reason=f"bad line: {text}") if isinstance(item, BadLine) else item


class NoReason(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        for item in super().items(number, text, options):
            yield replace(item, reason="") if isinstance(item, BadLine) else item


class StrictEncoding(SoundReader):
    encoding_errors = "strict"


class SkipsJunkUncounted(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        return (line for line in stream if line.isascii() and b"\0" not in line)


class KeepsTheMark(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        for line in stream:
            yield line.replace(b"\xef\xbb\xbf", b"mark")


class Phantom(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        empty = True
        for item in super().read(stream, options):
            empty = False
            yield item
        if empty:
            yield ListEntry("none", (("md5", bytes(16)),), line=1)


class EmptyIsAnError(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        first = stream.readline()
        if not first:
            raise EOFError
        yield first
        yield from super().lines(stream)


class RepeatingInError(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        for item in super().items(number, text, options):
            if isinstance(item, BadLine) and len(text) > 60:
                raise ListFormatError(f"not a line: {text}", line=number)
            yield item


class TakesUnregistered(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        if options.signal_types:
            yield from super().items(number, text, options)
        else:
            yield ListEntry("1", (("md5", bytes(16)),), line=number)


class SilentlyUnregistered(SoundReader):
    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        return super().items(number, text, options) if options.signal_types else iter(())


class ReadsItAll(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        return iter(stream.read().split(b"\n"))


class ReadsFarAhead(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        return iter(stream.read(6 << 20).split(b"\n"))


class Remembers(SoundReader):
    """Drops doubled entries, and so remembers all it has seen."""

    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        seen = set()
        for item in super().read(stream, options):
            if isinstance(item, ListEntry) and item.hashes not in seen:
                seen.add(item.hashes)
                yield item


class ShortReadIsTheEnd(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        return iter(stream.read(1 << 16).split(b"\n"))


class SwallowsErrors(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        try:
            yield from stream
        except OSError:
            return


class Closes(SoundReader):
    def lines(self, stream: BinaryIO) -> Iterator[bytes]:
        with stream:
            yield from stream


class SharedState(SoundReader):
    def read(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        self.number = 0
        for item in super().read(stream, options):
            self.number += 1
            yield replace(item, line=self.number + 1)


class SharedText(SoundReader):
    """Fine as long as no other thread comes between."""

    def items(self, number: int, text: str, options: ReadOptions) -> Iterator[Item]:
        self.text = text
        time.sleep(0.0001)
        return super().items(number, self.text, options)


class NeverSure(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return 0


class AlwaysSure(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return 50


class NeedsTheEnd(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return 90 if head.startswith(b"#sound") and head.endswith(b"\n") else 0


class OverSure(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return super().probe(head, filename) * 2


class FirstByte(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return 90 if head[0] == ord("#") else 0


class EncodesTheName(SoundReader):
    def probe(self, head: bytes, filename: str) -> int:
        return super().probe(head, filename) + filename.encode().endswith(b".sound")


READERS: list[tuple[str, Any, str]] = [
    ("test_it_follows_the_protocol", WithoutProbe, "lacks a member"),
    ("test_it_follows_the_protocol", BlankInName, "the name is not of"),
    ("test_every_entry_is_read", DropsTheLast, "39 entries instead of 40"),
    ("test_every_entry_is_read", AnyOrder, "in another order"),
    ("test_every_entry_is_read", HeaderIsBad, "bad lines in a good file"),
    ("test_entries_say_which_line_they_are", CountsFromZero, "not numbered"),
    ("test_entries_are_well_formed", altering(entry_id="1"), "the same id"),
    ("test_entries_are_well_formed", altering(entry_id=""), "no id"),
    ("test_entries_are_well_formed", altering(category=7), "category is not a text"),
    ("test_entries_are_well_formed", altering(fields={"a": b"b"}), "not JSON"),
    ("test_entries_are_well_formed", altering(fields={"a": "\ud800"}), "UTF-8 cannot"),
    ("test_entries_are_well_formed", altering(hashes=()), "no hash"),
    ("test_entries_are_well_formed", altering(hashes=(("md5", bytes(8)),)), "wrong length"),
    ("test_entries_are_well_formed", altering(hashes=(("md6", bytes(16)),)), "not registered"),
    ("test_fields_hold_no_hash", KeepsTheLine, "repeat the md5"),
    ("test_hashes_in_upper_case_are_the_same", LowerCaseOnly, "upper case"),
    ("test_a_bad_entry_costs_itself_only", StopsAtBad, "0 entries instead of 7"),
    ("test_a_bad_entry_costs_itself_only", Silent, "passed over in silence"),
    ("test_a_bad_entry_costs_itself_only", NumbersBadLinesApart, "another line's number"),
    ("test_bad_entries_are_not_repeated", Repeating, "repeats the hash"),
    ("test_bad_entries_are_not_repeated", NoReason, "no reason"),
    ("test_bytes_of_no_format_cost_their_line_only", StopsAtBad, "3 entries instead of 6"),
    ("test_bytes_of_no_format_cost_their_line_only", NumbersBadLinesApart, "another line's number"),
    ("test_bytes_of_no_format_cost_their_line_only", SkipsJunkUncounted, "line 8 is called 7"),
    ("test_line_ends_and_byte_order_marks_change_nothing", KeepsTheMark, "byte order mark"),
    ("test_a_file_without_entries_has_none", Phantom, "without any"),
    ("test_a_file_without_entries_has_none", EmptyIsAnError, "EOFError"),
    ("test_damaged_files_raise_list_format_error_only", StrictEncoding, "UnicodeDecodeError"),
    ("test_errors_do_not_repeat_hashes", Repeating, "reason repeats a hash"),
    ("test_errors_do_not_repeat_hashes", RepeatingInError, "ListFormatError repeats a hash"),
    ("test_signal_types_that_are_not_registered_are_reported", TakesUnregistered, "unregistered signal type"),
    ("test_signal_types_that_are_not_registered_are_reported", SilentlyUnregistered, "in silence"),
    ("test_it_streams", ReadsItAll, "wants the whole file"),
    ("test_it_streams", ReadsFarAhead, "before the tenth entry"),
    ("test_it_streams", Remembers, "pile up"),
    ("test_short_reads_change_nothing", ShortReadIsTheEnd, "1 bytes at a time"),
    ("test_a_failing_stream_is_not_a_short_list", SwallowsErrors, "DID NOT RAISE"),
    ("test_it_leaves_the_stream_open", Closes, "closes a stream"),
    ("test_reads_do_not_disturb_each_other", SharedState, "two reads at once"),
    ("test_reads_do_not_disturb_each_other", SharedText, "not thread-safe"),
    ("test_probe_knows_its_own_files", NeverSure, "0 for a good file"),
    ("test_probe_knows_its_own_files", AlwaysSure, "prefers random bytes"),
    ("test_probe_knows_its_own_files", NeedsTheEnd, "first 64 KiB"),
    ("test_probe_answers_0_to_100_to_anything", OverSure, "probe gives 180"),
    ("test_probe_answers_0_to_100_to_anything", FirstByte, "IndexError"),
    ("test_probe_answers_0_to_100_to_anything", EncodesTheName, "UnicodeEncodeError"),
]
