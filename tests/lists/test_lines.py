from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.lists.base import BadLine
from uploadguard.lists.lines import MAX_LINE_BYTES, read_lines, utf8_stream


class Dribble(io.BytesIO):
    """A stream that gives a few bytes at a time, as a socket or a decompressor may."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.most if size is None or size < 0 else min(size, self.most))


def lines_of(data: bytes) -> list[tuple[int, str] | BadLine]:
    return list(read_lines(io.BytesIO(data)))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(end: bytes) -> None:
    assert lines_of(end.join([b"a", b"", b"b", b""])) == [(1, "a"), (2, ""), (3, "b")]
    assert lines_of(end.join([b"a", b"b"])) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + "é\nb".encode(),
        codecs.BOM_UTF16_LE + "é\nb".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "é\r\nb".encode("utf-16-be"),
    ],
)
def test_byte_order_marks(data: bytes) -> None:
    assert lines_of(data) == [(1, "é"), (2, "b")]


def test_empty() -> None:
    assert lines_of(b"") == []
    assert lines_of(codecs.BOM_UTF8) == []
    assert lines_of(codecs.BOM_UTF16_LE) == []


def test_a_line_that_does_not_decode_costs_itself_only() -> None:
    first, second, third = lines_of(b"a\n\xff\xfe\nc\n")
    assert (first, third) == ((1, "a"), (3, "c"))
    assert isinstance(second, BadLine)
    assert second.line == 2
    assert "encoding" in second.reason


def test_utf16_that_does_not_decode() -> None:
    half = "a\n".encode("utf-16-le") + b"\x00\xd8" + "\nc\nd".encode("utf-16-le") + b"\x00"
    first, second, third, fourth = lines_of(codecs.BOM_UTF16_LE + half)
    assert (first, third) == ((1, "a"), (3, "c"))
    assert isinstance(second, BadLine)
    assert isinstance(fourth, BadLine)
    assert (second.line, fourth.line) == (2, 4)


def test_nul() -> None:
    first, second, third = lines_of(b"a\nb\0\nc\n")
    assert (first, third) == ((1, "a"), (3, "c"))
    assert isinstance(second, BadLine)
    assert "NUL" in second.reason


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("length", [MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_over_long_lines(end: bytes, length: int) -> None:
    first, second, third = lines_of(end.join([b"a", b"x" * length, b"c", b""]))
    assert (first, third) == ((1, "a"), (3, "c"))
    assert isinstance(second, BadLine) == (length > MAX_LINE_BYTES)
    if isinstance(second, BadLine):
        assert second.line == 2


def test_over_long_last_line() -> None:
    first, second = lines_of(b"a\n" + b"x" * (MAX_LINE_BYTES + 1))
    assert first == (1, "a")
    assert isinstance(second, BadLine)


def test_reading_nothing_takes_nothing() -> None:
    for repair in (False, True):
        stream = utf8_stream(io.BytesIO(b"abcdef"), repair=repair)
        assert stream.read(0) == b""
        assert b"".join(iter(lambda: stream.read(4), b"")) == b"abcdef"  # noqa: B023


@given(st.lists(st.text(st.characters(exclude_characters="\0\r\n\ufeff", codec="utf-8"))), st.integers(1, 9))
def test_round_trip_in_any_encoding_and_portions(texts: list[str], most: int) -> None:
    expected = list(enumerate(texts, 1))
    for encoding, mark in [("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16-le", codecs.BOM_UTF16_LE)]:
        for end in ("\n", "\r\n", "\r"):
            data = mark + "".join(text + end for text in texts).encode(encoding)
            assert list(read_lines(Dribble(data, most))) == expected


@given(st.binary())
def test_any_bytes_give_one_item_a_line(data: bytes) -> None:
    numbers = [item.line if isinstance(item, BadLine) else item[0] for item in read_lines(Dribble(data, 3))]
    assert numbers == list(range(1, len(numbers) + 1))
