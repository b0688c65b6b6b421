"""The example plugin: its parts pass uploadguard's conformance suites, and its hooks do what they say."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pluggy
import pytest

import uploadguard_example
from uploadguard import Context, Decision, Media, Verdict, hookspecs
from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.media.base import Pixels
from uploadguard.signals.base import SignalType
from uploadguard.testing.conformance import ListReaderConformance, PixelSignalConformance, SampleEntry
from uploadguard_example.blockmean import BlockMean
from uploadguard_example.counter import VerdictCounter
from uploadguard_example.hashlines import HashLinesReader


class TestBlockMean(PixelSignalConformance):
    def make(self) -> BlockMean:
        return BlockMean()


class TestHashLines(ListReaderConformance):
    filename = "sample.hashlines"
    header = b"#hashlines 1\n"
    first_line = 2
    bad_entries = (b"md5:9e107d9d372bb6826bd81d3542a419d id=7", b"9e107d9d372bb6826bd81d3542a419d6", b"id=7")

    def make(self) -> HashLinesReader:
        return HashLinesReader()

    def signal_types(self) -> list[SignalType]:
        return [*super().signal_types(), BlockMean()]

    def entry(self, index: int) -> SampleEntry:
        seed = b"%d" % index
        hashes = {"md5": hashlib.md5(seed).digest(), "blockmean": hashlib.shake_128(seed).digest(8)}
        parts = " ".join(f"{name}:{value.hex()}" for name, value in hashes.items())
        return SampleEntry(f"{parts} id={index} category=spam source=made-up".encode(), hashes)


def decision(verdict: Verdict) -> Decision:
    return Decision(verdict, (), (), (), (), Media(0), 1)


def test_the_hash_of_a_picture_with_a_bright_corner() -> None:
    picture = np.zeros((160, 240), np.uint8)
    picture[:80, :120] = 200
    result = BlockMean().hash_pixels(Pixels(picture, 240, 160))
    assert result.value == bytes.fromhex("f0f0f0f000000000")
    assert result.quality == 100


def test_a_line_is_an_entry() -> None:
    data = (
        b"#hashlines 1\n# a comment\n\n"
        b"md5:9E107D9D372BB6826BD81D3542A419D6 pdq:00ff id=17 category=spam year=2024\n"
        b"foohash:0011 blockmean:00ff00ff00ff00f0 # and another\n"
    )
    signals: list[SignalType] = TestHashLines().signal_types()
    options = ReadOptions({signal.name: signal for signal in signals})
    assert list(HashLinesReader().read(io.BytesIO(data), options)) == [
        BadLine(4, "pdq: expected 64 hex digits, found 4 characters"),
        ListEntry(
            "17", (("md5", bytes.fromhex("9e107d9d372bb6826bd81d3542a419d6")),), "spam", {"year": "2024"}, line=4
        ),
        BadLine(5, "no signal type 'foohash' is registered here", ignored=True),
        ListEntry("5", (("blockmean", bytes.fromhex("00ff00ff00ff00f0")),), line=5),
    ]


def test_a_file_of_another_format_is_refused() -> None:
    with pytest.raises(ListFormatError, match="1: the first line is not '#hashlines 1'"):
        list(HashLinesReader().read(io.BytesIO(b"md5,sha1\n"), ReadOptions({})))
    assert HashLinesReader().probe(b"md5,sha1\n", "x.csv") == 0
    assert HashLinesReader().probe(b"", "x.HashLines") == 20


@pytest.mark.parametrize(
    ("context", "verdict"),
    [
        (Context(tenant="newcomers", filename="scan.TIF"), Verdict.QUEUE),
        (Context(tenant="newcomers", filename="photo.jpg"), None),
        (Context(tenant="newcomers"), None),
        (Context(tenant="members", filename="scan.tif"), None),
        (Context(filename="scan.tif"), None),
    ],
)
def test_the_rule_queues_by_tenant_and_extension(context: Context, verdict: Verdict | None) -> None:
    assert uploadguard_example.uploadguard_decide(context) is verdict


def test_the_counter_counts_each_verdict() -> None:
    counter = VerdictCounter()
    for verdict in (Verdict.ALLOW, Verdict.ALLOW, Verdict.BLOCK):
        counter.add(verdict)
    assert counter.counts() == {"allow": 2, "not_scanned": 0, "queue": 0, "block": 1}


def test_the_observer_counts_decisions() -> None:
    before = uploadguard_example.verdicts.counts()["queue"]
    uploadguard_example.uploadguard_decision_made(decision(Verdict.QUEUE))
    assert uploadguard_example.verdicts.counts()["queue"] == before + 1


def test_the_hooks_are_those_that_uploadguard_knows() -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(uploadguard_example, "example")
    manager.check_pending()
    [signals], [readers] = manager.hook.uploadguard_signal_types(), manager.hook.uploadguard_list_readers()
    assert [part.name for part in (*signals, *readers)] == ["blockmean", "hashlines"]
    context = Context(tenant="newcomers", filename="a.bmp")
    assert manager.hook.uploadguard_decide(decision=decision(Verdict.ALLOW), context=context) == [Verdict.QUEUE]
