"""The suite for list readers finds what is broken: for each of its tests, readers that must not pass it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.testing.broken_readers import READERS, SoundReader
from uploadguard.testing.conformance import ListReaderConformance, SampleEntry


class SoundSuite(ListReaderConformance):
    filename = "list.sound"
    header = b"#sound\n"
    first_line = 2
    bad_entries: tuple[bytes, ...] = (b"9e107d9d372bb6826bd81d3542a419d 7", b"9e107d9d372bb6826bd81d3542a419dg 7")
    reader: Any = SoundReader

    def make(self) -> SoundReader:
        made: SoundReader = self.reader()
        return made

    def entry(self, index: int) -> SampleEntry:
        value = hashlib.md5(b"%d" % index).digest()
        return SampleEntry(f"{value.hex()} id{index}".encode(), {"md5": value})


TESTS = sorted(name for name in dir(ListReaderConformance) if name.startswith("test_"))


@pytest.mark.parametrize("test", TESTS)
def test_what_is_sound_passes(test: str) -> None:
    getattr(SoundSuite(), test)()


@pytest.mark.parametrize(
    ("test", "broken", "message"), READERS, ids=[f"{test}-{broken.__name__}" for test, broken, _ in READERS]
)
def test_what_is_broken_fails(test: str, broken: Any, message: str) -> None:
    suite = SoundSuite()
    suite.reader = broken
    with pytest.raises((pytest.fail.Exception, AssertionError), match=message):
        getattr(suite, test)()


def test_every_test_of_the_suite_has_a_broken_case() -> None:
    assert len(TESTS) > 15
    assert set(TESTS) == {test for test, *_ in READERS}


def test_a_suite_without_bad_entries_is_refused() -> None:
    suite = SoundSuite()
    suite.bad_entries = ()
    with pytest.raises(pytest.fail.Exception, match="bad_entries"):
        suite.test_it_follows_the_protocol()
