"""What a list reader must do: stream, survive damage, say where it is, and never repeat a hash."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import tracemalloc
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ListReader, ReadOptions
from uploadguard.signals.base import SignalType
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing.conformance._checks import in_threads, leaks, require
from uploadguard.testing.conformance._streams import EndlessFile, FailingFile, ShortReads

__all__ = ["ListReaderConformance", "SampleEntry"]

_HEAD_BYTES = 1 << 16
_ENTRIES = 40
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_MAX_READ_AHEAD_BYTES = 4 << 20
_MAX_GROWTH_BYTES = 256 << 10
_WINDOW_ENTRIES = 8_000
_OVER_LONG_BYTES = 8 << 20

_JUNK = (b"\0\0\0\0", b"\xff\xfe\xfd", b"\xc3(", b"\x1b[31m", b"\xed\xa0\x80", b"{[(<", b"x" * _OVER_LONG_BYTES)

Item = ListEntry | BadLine


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """One entry as the format writes it, and the hashes that it must be read as, by signal type."""

    text: bytes
    hashes: Mapping[str, bytes]


class ListReaderConformance:
    """For a :class:`~uploadguard.lists.base.ListReader`.

    A file is ``header``, the entries with ``separator`` between them, and ``footer``.
    """

    filename = "sample.txt"
    header = b""
    separator = b"\n"
    footer = b"\n"
    first_line = 1
    """The number of the first entry's line, or of its item in formats without lines; entries take up one each."""

    has_lines = True
    """Whether an entry is a line. False leaves out what only lines can survive: bytes that are not of the format."""

    bad_entries: tuple[bytes, ...] = ()
    """What stands where an entry would but gives none: with a hash too short, or not hex, and otherwise good."""

    def make(self) -> ListReader:
        """A fresh reader, as the plugin registers it."""
        raise NotImplementedError

    def entry(self, index: int) -> SampleEntry:
        """A good entry for each index from 0 up, its hashes different from all others'."""
        raise NotImplementedError

    def signal_types(self) -> list[SignalType]:
        """The signal types that are registered while reading."""
        return [*DIGESTS, Pdq()]

    def options(self) -> ReadOptions:
        """How to read the sample files."""
        return ReadOptions({signal.name: signal for signal in self.signal_types()})

    def test_it_follows_the_protocol(self) -> None:
        reader = self.make()
        require(isinstance(reader, ListReader), f"{type(reader).__name__} lacks a member of ListReader")
        require(isinstance(reader.name, str), "the name is not a text")
        require(reader.name != "" and set(reader.name) <= _NAME_CHARS, "the name is not of a-z, 0-9, - and _")
        require(self.bad_entries != (), "give the suite at least one of bad_entries")

    def test_every_entry_is_read(self) -> None:
        items = self._read(self._file())
        bad = [item for item in items if isinstance(item, BadLine)]
        require(not bad, f"bad lines in a good file, the first: {bad[0].reason if bad else ''}")
        self._require_entries(items, range(_ENTRIES), "a good file")

    def test_entries_say_which_line_they_are(self) -> None:
        lines = [item.line for item in self._read(self._file())]
        require(lines == list(range(self.first_line, self.first_line + _ENTRIES)), "lines are not numbered from 1")

    def test_entries_are_well_formed(self) -> None:
        items = self._read(self._file())
        self._require_well_formed(items)
        ids = {item.entry_id for item in items if isinstance(item, ListEntry)}
        require(len(ids) == _ENTRIES, "two entries have the same id")

    def test_fields_hold_no_hash(self) -> None:
        for index, item in enumerate(self._read(self._file())):
            if isinstance(item, ListEntry):
                fields = json.dumps(dict(item.fields))
                for name, value in self.entry(index).hashes.items():
                    require(not leaks(fields, self._format(name, value)), f"fields repeat the {name}")

    def test_hashes_in_upper_case_are_the_same(self) -> None:
        texts = []
        for index in range(_ENTRIES):
            sample = self.entry(index)
            text = sample.text
            for name, value in sample.hashes.items():
                written = self._format(name, value)
                if self.options().signal_types[name].parse(written.upper() if written.islower() else written) == value:
                    text = text.replace(written.encode(), written.upper().encode())
            texts.append(text)
        self._require_entries(self._read(self._file(texts)), range(_ENTRIES), "a file with hashes in upper case")

    def test_a_bad_entry_costs_itself_only(self) -> None:
        for bad, place in itertools.product(self.bad_entries, (0, 3, 7)):
            texts = [self.entry(index).text for index in range(7)]
            texts.insert(place, bad)
            items = self._read(self._file(texts))
            self._require_entries(items, range(7), f"a file with a bad entry at number {place + 1}")
            lines = [item.line for item in items if isinstance(item, BadLine)]
            require(lines != [], "a bad entry is passed over in silence")
            require(set(lines) == {self.first_line + place}, "a bad line carries another line's number")

    def test_bad_entries_are_not_repeated(self) -> None:
        for bad in self.bad_entries:
            for item in self._read(self._file([bad, self.entry(0).text])):
                if isinstance(item, BadLine):
                    require(item.reason.strip() != "", "a bad line has no reason")
                    require(not leaks(item.reason, bad.decode("latin-1")), "a reason repeats the hash")

    def test_bytes_of_no_format_cost_their_line_only(self) -> None:
        if not self.has_lines:
            return
        for junk in _JUNK:
            texts = [self.entry(index).text for index in range(6)]
            items = self._read(self._file([*texts[:3], junk, *texts[3:]]))
            self._require_entries(items, range(6), f"a file with {len(junk)} bytes of no format inside")
            lines = {item.line for item in items if isinstance(item, BadLine)}
            require(lines <= {self.first_line + 3}, "a bad line carries another line's number")
            last = items[-1].line
            require(last == self.first_line + 6, f"after a bad line, line {self.first_line + 6} is called {last}")

    def test_line_ends_and_byte_order_marks_change_nothing(self) -> None:
        data = self._file()
        forms = {"a byte order mark": b"\xef\xbb\xbf" + data, "no line end at its end": data.rstrip(b"\r\n")}
        if self.has_lines:
            forms["CR LF"] = data.replace(b"\n", b"\r\n")
            forms["both"] = b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
            forms["blank lines at its end"] = data + b"\n\n"
        for what, form in forms.items():
            items = self._read(form)
            self._require_entries(items, range(_ENTRIES), f"a file with {what}")
            require(not any(isinstance(item, BadLine) for item in items), f"a bad line in a file with {what}")

    def test_a_file_without_entries_has_none(self) -> None:
        for data in (b"", b"\n", b"\xef\xbb\xbf", self.header + self.footer):
            items = self._read_damaged(data)
            require(not any(isinstance(item, ListEntry) for item in items), "an entry comes from a file without any")

    def test_damaged_files_raise_list_format_error_only(self) -> None:
        for data in self._damaged_files():
            self._require_well_formed(self._read_damaged(data))

    def test_errors_do_not_repeat_hashes(self) -> None:
        secrets = " ".join(
            self._format(name, value) for index in range(8) for name, value in self.entry(index).hashes.items()
        )
        for data in self._damaged_files():
            for item in self._read_damaged(data, secrets):
                if isinstance(item, BadLine):
                    require(not leaks(item.reason, secrets), "a bad line's reason repeats a hash")

    def test_signal_types_that_are_not_registered_are_reported(self) -> None:
        nothing = ReadOptions({})
        try:
            items = list(self.make().read(io.BytesIO(self._file()), nothing))
        except ListFormatError:
            return
        require(not any(isinstance(item, ListEntry) for item in items), "an entry of an unregistered signal type")
        require(items != [], "hashes of unregistered signal types are passed over in silence")

    def test_it_streams(self) -> None:
        """The first entries must come before the file is read, and nothing may pile up while it is."""
        stream = EndlessFile(self.header, self.separator, lambda index: self.entry(index).text)
        items = self.make().read(io.BufferedReader(stream), self.options())
        entries = (item for item in items if isinstance(item, ListEntry))
        for _ in itertools.islice(entries, 10):
            read_ahead = stream.bytes_read
            require(read_ahead <= _MAX_READ_AHEAD_BYTES, f"{read_ahead} bytes read before the tenth entry")
        tracemalloc.start()
        try:
            deque(itertools.islice(entries, _WINDOW_ENTRIES), maxlen=0)
            before = _trough_bytes(entries)
            growth = _trough_bytes(entries) - before
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        require(growth <= _MAX_GROWTH_BYTES, f"{growth} bytes pile up over {_WINDOW_ENTRIES} entries")
        require(peak <= 2 * _MAX_READ_AHEAD_BYTES, f"{peak} bytes in use at once")

    def test_short_reads_change_nothing(self) -> None:
        for size in (1, 7, 1000):
            items = list(self.make().read(ShortReads(self._file(), size), self.options()))
            self._require_entries(items, range(_ENTRIES), f"a stream that gives {size} bytes at a time")

    def test_a_failing_stream_is_not_a_short_list(self) -> None:
        """Half a list taken for the whole would drop the rest from the hash set."""
        data = self._file()
        with pytest.raises(OSError, match="the disk is gone"):
            list(self.make().read(FailingFile(data[: len(data) // 2]), self.options()))

    def test_it_leaves_the_stream_open(self) -> None:
        stream = io.BytesIO(self._file())
        items = self.make().read(stream, self.options())
        for _ in items:
            pass
        del items
        require(not stream.closed, "the reader closes a stream that is not its own")

    def test_reads_do_not_disturb_each_other(self) -> None:
        reader, data = self.make(), self._file()
        expected = self._read(data)
        first, second = (reader.read(io.BytesIO(data), self.options()) for _ in range(2))
        pairs = list(zip(first, second, strict=True))
        require([item for item, _ in pairs] == expected, "two reads at once give other entries than one")
        require([item for _, item in pairs] == expected, "two reads at once give other entries than one")

        def read(data: bytes) -> list[Item]:
            return list(reader.read(io.BytesIO(data), self.options()))

        require(all(items == expected for items in in_threads(read, [data], repeats=16)), "read is not thread-safe")

    def test_probe_knows_its_own_files(self) -> None:
        data = self._file()
        own = self._probe(data, self.filename)
        require(own > 0, "probe gives 0 for a good file")
        require(own > self._probe(hashlib.shake_128().digest(_HEAD_BYTES), "data.bin"), "probe prefers random bytes")
        long = self._file([self.entry(index).text for index in range(5000)])[:_HEAD_BYTES]
        require(self._probe(long, self.filename) > 0, "probe gives 0 for the first 64 KiB of a good file")

    def test_probe_answers_0_to_100_to_anything(self) -> None:
        data = self._file()
        names = ("", self.filename, self.filename.upper(), "x" * 5000, "\udcff.csv", "../../etc/passwd", "\0")
        heads = [b"", b"\n", b"\xef\xbb\xbf", data, data[: len(data) // 3], self.header, *self._damaged_files()]
        for head in heads:
            self._probe(head, self.filename)
        for name in names:
            self._probe(data, name)

    def _file(self, texts: list[bytes] | None = None) -> bytes:
        if texts is None:
            texts = [self.entry(index).text for index in range(_ENTRIES)]
        return self.header + self.separator.join(texts) + self.footer

    def _format(self, name: str, value: bytes) -> str:
        return self.options().signal_types[name].format(value)

    def _probe(self, head: bytes, filename: str) -> int:
        try:
            sure = self.make().probe(head, filename)
        except Exception as error:
            message = f"probe raises {type(error).__name__} for a head of {len(head)} bytes"
            raise AssertionError(message) from error
        require(type(sure) is int and 0 <= sure <= 100, f"probe gives {sure!r}, not an int of 0 to 100")
        return sure

    def _read(self, data: bytes) -> list[Item]:
        return list(self.make().read(io.BytesIO(data), self.options()))

    def _read_damaged(self, data: bytes, secrets: str = "") -> list[Item]:
        """What is read up to a :class:`ListFormatError`; any other error fails the test."""
        items: list[Item] = []
        try:
            for item in self.make().read(io.BytesIO(data), self.options()):
                items.append(item)  # noqa: PERF402 - what came before an error counts
        except ListFormatError as error:
            require(not leaks(str(error), secrets), "a ListFormatError repeats a hash")
        except Exception as error:
            message = f"read raises {type(error).__name__} for a damaged file of {len(data)} bytes"
            raise AssertionError(message) from error
        return items

    def _damaged_files(self) -> Iterator[bytes]:
        """Random bytes, and good files cut short or with bytes changed, dropped or doubled; always the same ones."""
        rng = random.Random(20)  # noqa: S311 - has to be the same each time, no more
        data = self._file([self.entry(index).text for index in range(8)])
        for size in (1, 2, 3, 10, 100, 1000, 10_000):
            yield rng.randbytes(size)
            yield self.header + rng.randbytes(size) + self.footer
        for _ in range(60):
            yield data[: rng.randrange(len(data))]
        for _ in range(120):
            damaged = bytearray(data)
            for _ in range(rng.randrange(1, 6)):
                place = rng.randrange(len(damaged))
                kind = rng.randrange(4)
                if kind == 0:
                    damaged[place] = rng.randrange(256)
                elif kind == 1:
                    del damaged[place : place + rng.randrange(1, 20)]
                elif kind == 2:
                    damaged[place:place] = damaged[place : place + 30]
                else:
                    damaged[place:place] = rng.choice([b'"', b"\0", b"\r", b"\n", b",", b"}", b"]", b"\xff", b"\\u"])
            yield bytes(damaged)

    def _require_well_formed(self, items: list[Item]) -> None:
        signals = self.options().signal_types
        for item in items:
            if isinstance(item, BadLine):
                require(type(item.line) is int and item.line >= 0, "a bad line's number is not an int from 1")
                require(isinstance(item.reason, str) and item.reason != "", "a bad line has no reason")
                continue
            require(isinstance(item, ListEntry), f"read yields a {type(item).__name__}")
            require(isinstance(item.entry_id, str) and item.entry_id.strip() != "", "an entry has no id")
            require(item.category is None or isinstance(item.category, str), "a category is not a text")
            require(type(item.line) is int and item.line >= 1, "an entry's line is not an int from 1")
            require(len(item.hashes) > 0, "an entry has no hash")
            for name, value in item.hashes:
                require(name in signals, "a hash is of a signal type that is not registered")
                require(type(value) is bytes and len(value) == signals[name].length_bytes, "a hash has a wrong length")
            try:
                json.dumps(dict(item.fields), allow_nan=False, ensure_ascii=False).encode()
            except (TypeError, ValueError):
                pytest.fail("fields are not JSON types, or hold what UTF-8 cannot")

    def _require_entries(self, items: list[Item], indices: range, what: str) -> None:
        found = [dict(item.hashes) for item in items if isinstance(item, ListEntry)]
        expected = [dict(self.entry(index).hashes) for index in indices]
        require(len(found) == len(expected), f"{what}: {len(found)} entries instead of {len(expected)}")
        require(found == expected, f"{what}: entries are read with other hashes, or in another order")


def _trough_bytes(entries: Iterator[ListEntry]) -> int:
    """The least memory in use while some thousand entries are read: what is kept when a block of the file is gone."""
    samples = []
    for _ in range(_WINDOW_ENTRIES // 50):
        deque(itertools.islice(entries, 50), maxlen=0)
        samples.append(tracemalloc.get_traced_memory()[0])
    return min(samples)
