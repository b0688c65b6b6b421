"""The built-in signal types and list readers pass the suites that plugins must pass."""

from __future__ import annotations

import hashlib
import json

from uploadguard.lists import CsvReader, IcseReader, JsonlReader, TxtReader, VicsReader
from uploadguard.signals.digests import DIGESTS, Digest
from uploadguard.signals.imagehashes import ImageHashSignal
from uploadguard.signals.pdq import Pdq
from uploadguard.testing.conformance import (
    DigestSignalConformance,
    ListReaderConformance,
    PixelSignalConformance,
    SampleEntry,
)


class TestMd5(DigestSignalConformance):
    def make(self) -> Digest:
        return DIGESTS[0]


class TestSha1(DigestSignalConformance):
    def make(self) -> Digest:
        return DIGESTS[1]


class TestSha256(DigestSignalConformance):
    def make(self) -> Digest:
        return DIGESTS[2]


class TestPdqAuto(PixelSignalConformance):
    def make(self) -> Pdq:
        return Pdq()


class TestPdqExact(PixelSignalConformance):
    def make(self) -> Pdq:
        return Pdq(mode="exact")


class TestPhash(PixelSignalConformance):
    def make(self) -> ImageHashSignal:
        return ImageHashSignal("phash")


class TestDhash(PixelSignalConformance):
    def make(self) -> ImageHashSignal:
        return ImageHashSignal("dhash")


class TestWhash(PixelSignalConformance):
    def make(self) -> ImageHashSignal:
        return ImageHashSignal("whash")


def digests(index: int) -> dict[str, bytes]:
    """Made-up hashes, different for each index."""
    seed = f"sample {index}".encode()
    return {"md5": hashlib.md5(seed).digest(), "sha1": hashlib.sha1(seed).digest()}


class TestTxt(ListReaderConformance):
    filename = "hashes.txt"
    bad_entries = (
        b"9e107d9d372bb6826bd81d3542a419d",
        b"md5 9e107d9d372bb6826bd81d3542a419dg",
        b"neither this nor that",
    )

    def make(self) -> TxtReader:
        return TxtReader()

    def entry(self, index: int) -> SampleEntry:
        value = digests(index)["md5"]
        return SampleEntry(value.hex().encode(), {"md5": value})


class TestTxtWithNames(TestTxt):
    def entry(self, index: int) -> SampleEntry:
        value = digests(index)["sha1"]
        return SampleEntry(f"sha1 {value.hex()} id-{index}".encode(), {"sha1": value})


class TestCsv(ListReaderConformance):
    filename = "hashes.csv"
    header = b"id,md5,sha1,category,note\n"
    first_line = 2
    bad_entries = (
        b'7,9e107d9d372bb6826bd81d3542a419d,,A,"too short"',
        b"8,9e107d9d372bb6826bd81d3542a419dg,,A,",
        b"9,,,,",
        b'10,"9e107d9d372bb6826bd81d3542a419d6,,A,never closed',
    )

    def make(self) -> CsvReader:
        return CsvReader()

    def entry(self, index: int) -> SampleEntry:
        values = digests(index)
        return SampleEntry(f"{index},{values['md5'].hex()},{values['sha1'].hex()},A,n".encode(), values)


class TestIcse(ListReaderConformance):
    filename = "baseline.csv"
    first_line = 2
    header = b"MD5;SHA1;Image ID;Baseline\n"
    bad_entries = (b"9e107d9d372bb6826bd81d3542a419d;;7;Yes", b"9e107d9d372bb6826bd81d3542a419dg;;7;Yes")

    def make(self) -> IcseReader:
        return IcseReader()

    def entry(self, index: int) -> SampleEntry:
        values = digests(index)
        return SampleEntry(f"{values['md5'].hex()};{values['sha1'].hex()};{index};Yes".encode(), values)


class TestJsonl(ListReaderConformance):
    filename = "hashes.jsonl"
    bad_entries = (
        b'{"id": 7, "md5": "9e107d9d372bb6826bd81d3542a419d"}',
        b'{"id": 7, "md5": 158}',
        b'{"id": 7}',
        b'{"id": 7, "md5": "9e107d9d372bb6826bd81d3542a419d6"',
    )

    def make(self) -> JsonlReader:
        return JsonlReader()

    def entry(self, index: int) -> SampleEntry:
        values = digests(index)
        record = {"id": index, **{name: value.hex() for name, value in values.items()}, "note": "\u00e9"}
        return SampleEntry(json.dumps(record).encode(), values)


class TestVics(ListReaderConformance):
    filename = "cases.json"
    header = b'{"odata.metadata": "http://example.org/DataModels/1.2.xml/US", "value": ['
    separator = b",\n"
    footer = b"]}\n"
    has_lines = False
    bad_entries = (
        b'{"MediaID": 7, "Category": 1, "MD5": "9e107d9d372bb6826bd81d3542a419d"}',
        b'{"MediaID": 7, "Category": 1}',
        b"158",
    )

    def make(self) -> VicsReader:
        return VicsReader()

    def entry(self, index: int) -> SampleEntry:
        values = digests(index)
        record = {"MediaID": index, "Category": 1, "MD5": values["md5"].hex(), "SHA1": values["sha1"].hex()}
        return SampleEntry(json.dumps(record).encode(), values)
