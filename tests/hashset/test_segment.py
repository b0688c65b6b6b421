"""Segment files: what is written comes back, and damage of any kind is found and harms nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hashset.made_up import TYPES, entries, entry, flip_bits, value
from uploadguard.errors import EmptyListError, ListError, ListFormatError, SegmentError
from uploadguard.hashset import Generation, Segment, build_segment
from uploadguard.hashset.layout import BODY_OFFSET, HEADER_BYTES, Header, Section, pack_table, unpack_table
from uploadguard.hashset.segment_writer import write_segment
from uploadguard.hashset.tombstones import Delta
from uploadguard.lists.base import ListEntry
from uploadguard.models import Hash

SMALL = build_segment(entries(5), TYPES, list_name="small", role="allow", source="small.csv")


def use(segment: Segment) -> None:
    """Touch everything that a match can touch."""
    for name in segment.metadata.signals:
        seeds = [value(name, number) for number in range(5)]
        for _, number, _ in segment.query(name, [*seeds, bytes(len(seeds[0]))], 256 if name == "pdq" else 64):
            segment.entry(number)


def sections_of(data: bytes) -> dict[str, Section]:
    header = Header.unpack(data[:HEADER_BYTES], len(data))
    return unpack_table(data[header.table_offset :], header)


def sealed(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """``data`` with its sections (of unchanged length) put through ``change``, all checksums made right again."""
    body = bytearray(data)
    sections = []
    for section in sections_of(data).values():
        content = change(section.name, data[section.offset : section.end])
        assert len(content) == section.length
        body[section.offset : section.end] = content
        sections.append(Section(section.name, section.offset, section.length, hashlib.sha256(content).digest()))
    header = Header.unpack(data[:HEADER_BYTES], len(data))
    table = pack_table(sections)
    body[header.table_offset :] = table
    resealed = Header(len(body), len(sections), header.table_offset, hashlib.sha256(table).digest())
    body[:HEADER_BYTES] = resealed.pack()
    return bytes(body)


def test_everything_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(SMALL)
    for segment in (Segment.open(path, verify=True), Segment.from_buffer(SMALL)):
        assert segment.metadata.list_name == "small"
        assert segment.metadata.role == "allow"
        assert segment.metadata.source == "small.csv"
        assert segment.metadata.added_at.utcoffset() is not None
        assert segment.metadata.entries == 5
        assert {name: info.count for name, info in segment.metadata.signals.items()} == dict.fromkeys(TYPES, 5)
        assert segment.size_bytes == len(SMALL)
        for number in range(5):
            for name, (_, limit) in TYPES.items():
                assert segment.is_exact(name) == (limit == 0)
                assert segment.query(name, [value(name, number)], limit) == [(0, number, 0)]
                assert segment.query(name, [flip_bits(value(name, number), 0)], limit) == (
                    [(0, number, 1)] if limit else []
                )
            stored = segment.entry(number)
            assert stored.entry_id == f"id-{number}"
            assert stored.category == f"category-{number}"
            assert stored.fields == {"seed": str(number)}
    assert Segment.open(path).checksum == Segment.from_buffer(SMALL).checksum


def test_signal_types_without_hashes_have_no_hits_and_take_no_room() -> None:
    segment = Segment.from_buffer(build_segment([entry(1, "md5")], TYPES, list_name="a"))
    assert set(segment.metadata.signals) == {"md5"}
    assert segment.query("pdq", [bytes(32)], 256) == []
    assert segment.query("never heard of", [b""], 256) == []
    assert not segment.is_exact("pdq")


def test_entries_without_a_hash_are_left_out() -> None:
    mixed = [ListEntry("none", ()), entry(1), ListEntry("none either", ()), entry(2)]
    segment = Segment.from_buffer(build_segment(mixed, TYPES, list_name="a"))
    assert segment.metadata.entries == 2
    assert [segment.entry(number).entry_id for number in range(2)] == ["id-1", "id-2"]


def test_many_hashes_of_one_entry_and_one_hash_of_many_entries() -> None:
    frames = ListEntry("video", (*(("pdq", value("pdq", n)) for n in range(9)), ("md5", value("md5", 0))))
    same = [ListEntry(f"copy-{n}", (("md5", value("md5", 0)),)) for n in range(20)]
    segment = Segment.from_buffer(build_segment([frames, *same], TYPES, list_name="a"))
    assert segment.query("pdq", [value("pdq", n) for n in range(9)], 31) == [(n, 0, 0) for n in range(9)]
    assert segment.query("md5", [value("md5", 0)], 0) == [(0, n, 0) for n in range(21)]


@given(
    text=st.text(min_size=1),
    category=st.none() | st.text(),
    fields=st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
    ),
)
def test_entries_of_any_text_come_back(text: str, category: str | None, fields: dict[str, Any]) -> None:
    listed = ListEntry(text, (("md5", bytes(16)),), category=category, fields=fields)
    stored = Segment.from_buffer(build_segment([listed], TYPES, list_name="a")).entry(0)
    assert (stored.entry_id, stored.category, stored.fields) == (text, category, fields)


def test_sections_are_aligned_and_large_ones_by_page() -> None:
    data = build_segment(entries(500), TYPES, list_name="a")
    for section in sections_of(data).values():
        assert section.offset % (4096 if section.length >= 4096 else 64) == 0
        assert section.offset >= BODY_OFFSET
    Segment.from_buffer(data)


def test_every_flipped_byte_is_found_and_harms_nothing() -> None:
    rng = random.Random(1)
    for offset in range(len(SMALL)):
        flipped = bytearray(SMALL)
        flipped[offset] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        with pytest.raises(SegmentError):
            Segment.from_buffer(bytes(flipped), verify=True)
        with contextlib.suppress(SegmentError):  # without verifying, it may go unnoticed, but nothing worse
            use(Segment.from_buffer(bytes(flipped), verify=False))


def test_truncation_at_every_length_is_found_without_verifying(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    for length in range(len(SMALL)):
        with pytest.raises(SegmentError, match=r"too few for a segment|in place of"):
            Segment.from_buffer(SMALL[:length], verify=False)
    for length in (0, 1, HEADER_BYTES - 1, HEADER_BYTES, BODY_OFFSET, len(SMALL) - 1):
        path.write_bytes(SMALL[:length])
        with pytest.raises(SegmentError, match=str(path)) as caught:
            Segment.open(path)
        assert caught.value.path == path
    with pytest.raises(SegmentError, match="in place of"):
        Segment.from_buffer(SMALL + b"\0", verify=False)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"GIF89a", "is not a segment file; remove it or import the list again"),
        (8, b"\x03", "is of format version 3, and this release reads version 2; update uploadguard or import"),
        (12, b"\xff", "its header is altered; import the list again"),
        (len(SMALL) - 1, b"\x01", "its section table is altered; import the list again"),
    ],
)
def test_messages_say_what_is_wrong_and_what_to_do(offset: int, data: bytes, message: str) -> None:
    changed = bytearray(SMALL)
    changed[offset : offset + len(data)] = data
    with pytest.raises(SegmentError, match=message):
        Segment.from_buffer(bytes(changed), verify=False)


def test_a_flipped_byte_in_a_section_names_the_section(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    for section in sections_of(SMALL).values():
        changed = bytearray(SMALL)
        changed[section.offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(SegmentError, match=f"{path}: its section '{section.name}' is altered"):
            Segment.open(path, verify=True)


def test_padding_is_checked() -> None:
    gaps = set(range(HEADER_BYTES, len(SMALL)))
    for section in sections_of(SMALL).values():
        gaps -= set(range(section.offset, section.end))
    gaps -= set(range(Header.unpack(SMALL[:HEADER_BYTES], len(SMALL)).table_offset, len(SMALL)))
    assert len(gaps) > BODY_OFFSET - HEADER_BYTES  # before the sections and between them
    for offset in sorted(gaps)[:: len(gaps) // 50]:
        changed = bytearray(SMALL)
        changed[offset] = 1
        with pytest.raises(SegmentError, match="bytes before its section"):
            Segment.from_buffer(bytes(changed))


def test_ids_of_entries_that_are_not_there_are_refused_at_the_hit_and_by_verify() -> None:
    for name, limit in (("pdq", 31), ("md5", 0)):
        forged = sealed(
            SMALL, lambda section, data, name=name: b"\xff" * len(data) if section == f"signals/{name}/ids" else data
        )
        segment = Segment.from_buffer(forged, verify=False)
        (_, number, _), *_ = segment.query(name, [value(name, 3)], limit)
        with pytest.raises(SegmentError, match="refers to an entry that it does not hold"):
            segment.entry(number)
        with pytest.raises(SegmentError, match="refers to an entry that it does not hold"):
            segment.verify()
    with pytest.raises(SegmentError, match="refers to an entry"):
        Segment.from_buffer(SMALL).entry(-1)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([2**64 - 1] * 6, "an entry lies outside it"),
        ([0, 2**63, 2**62, 2**61, 2**60, 2**59], "an entry lies outside it"),
        ([9, 8, 7, 6, 5, 4], "an entry lies outside it"),
        ([0, 0, 0, 0, 0, 0], "an entry lies outside it"),
        ([3, 5, 9, 11, 12, 19], "an entry in it is altered"),
    ],
)
def test_offsets_of_entries_are_not_trusted(offsets: list[int], message: str) -> None:
    packed = np.array(offsets, np.uint64).astype("<u8").tobytes()
    forged = sealed(SMALL, lambda section, data: packed if section == "entries/offsets" else data)
    segment = Segment.from_buffer(forged, verify=False)
    for number in range(5):
        with pytest.raises(SegmentError, match=message):
            segment.entry(number)


@pytest.mark.parametrize(
    "text", [b"[" * 20_000, b"[1]", b'{"id":1,"category":null,"fields":{}}', b"\xff\xfe", b"1" * 9000]
)
def test_entries_that_are_not_what_was_written_are_refused(text: bytes) -> None:
    listed = ListEntry("x" * 30_000, (("md5", bytes(16)),))
    data = build_segment([listed], TYPES, list_name="a")
    forged = sealed(data, lambda name, old: text.ljust(len(old)) if name == "entries/json" else old)
    with pytest.raises(SegmentError, match="an entry in it is altered"):
        Segment.from_buffer(forged).entry(0)


def test_metadata_that_does_not_fit_the_sections_is_refused() -> None:
    for old, new in (
        (b'"count":5', b'"count":4'),
        (b'"entries":5', b'"entries":6'),
        (b'"length_bytes":16', b'"length_bytes":15'),
        (b'"length_bytes":32', b'"length_bytes":99'),
        (b'"kind":"exact"', b'"kind":"exakt"'),
        (b'"pdq"', b'"xyz"'),
        (b'{"segment_id"', b'["segment_id"'),
        (b'"list_name":"small"', b'"list_name":"sm/ll"'),
    ):
        forged = sealed(SMALL, lambda name, data, o=old, n=new: data.replace(o, n) if name == "metadata" else data)
        assert forged != SMALL
        with pytest.raises(SegmentError) as caught:
            Segment.from_buffer(forged, verify=False)
        assert "sm/ll" not in str(caught.value)


@settings(max_examples=300)
@given(data=st.data())
def test_forged_sections_with_right_checksums_harm_nothing(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(sections_of(SMALL))), min_size=1))

    def forge(name: str, old: bytes) -> bytes:
        return data.draw(st.binary(min_size=len(old), max_size=len(old))) if name in names else old

    try:
        segment = Segment.from_buffer(sealed(SMALL, forge), verify=False)
        use(segment)
        segment.verify()
    except SegmentError:
        pass


@given(st.binary(max_size=600))
def test_any_bytes_are_refused(data: bytes) -> None:
    for candidate in (data, SMALL[:16] + data, SMALL[:HEADER_BYTES] + data):
        with pytest.raises(SegmentError):
            Segment.from_buffer(candidate)


def test_offsets_of_sections_are_not_trusted() -> None:
    header = Header.unpack(SMALL[:HEADER_BYTES], len(SMALL))
    for change in (
        {"offset": 2**64 - 64}, {"offset": 0}, {"offset": 4097}, {"length": 2**63}, {"length": 2**64 - 1},
        {"name": "metadata"}, {"name": "x"}, {"length": 0},
    ):  # fmt: skip
        sections = list(sections_of(SMALL).values())
        first = {"name": sections[0].name, "offset": sections[0].offset, "length": sections[0].length, **change}
        table = pack_table([Section(checksum=sections[0].checksum, **first), *sections[1:]])  # type: ignore[arg-type]
        body = bytearray(SMALL)
        body[header.table_offset :] = table
        body[:HEADER_BYTES] = Header(
            len(SMALL), header.section_count, header.table_offset, hashlib.sha256(table).digest()
        ).pack()
        with pytest.raises(SegmentError, match=r"section table is inconsistent|has no section"):
            Segment.from_buffer(bytes(body), verify=False)
    for table_offset, count in ((2**64 - 128, 1), (0, 2**31), (header.table_offset + 128, header.section_count - 1)):
        body[:HEADER_BYTES] = Header(len(SMALL), count, table_offset, hashlib.sha256(b"").digest()).pack()
        with pytest.raises(SegmentError, match="section table"):
            Segment.from_buffer(bytes(body), verify=False)
    sections = list(sections_of(SMALL).values())
    last = sections[-1]
    table = pack_table([*sections[:-1], Section(last.name, last.offset, last.length + 200, last.checksum)])
    body[header.table_offset :] = table
    body[:HEADER_BYTES] = Header(
        len(SMALL), header.section_count, header.table_offset, hashlib.sha256(table).digest()
    ).pack()
    with pytest.raises(SegmentError, match="section table is inconsistent"):
        Segment.from_buffer(bytes(body), verify=False)


def test_nothing_to_import_is_an_error() -> None:
    for nothing in ([], [ListEntry("a", ())]):
        with pytest.raises(EmptyListError):
            build_segment(nothing, TYPES, list_name="a")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (ListEntry("a", (("md5", bytes(15)),), line=7), "7: a md5 hash of 15 bytes in place of 16"),
        (ListEntry("a", (("other", bytes(16)),), line=7), "7: a hash of signal type 'other', which is not among"),
        (ListEntry("a", (("md5", bytes(16)),), fields={"a": b""}, line=7), "7: an entry with fields that are not JSON"),
        (ListEntry("a", (("md5", bytes(16)),), fields={"a": float("nan")}, line=7), "7: an entry with fields"),
        (ListEntry(5, (("md5", bytes(16)),), line=7), "7: an entry whose id or category is not text"),  # type: ignore[arg-type]
    ],
)
def test_entries_that_break_the_contract_are_named_by_line(listed: ListEntry, message: str) -> None:
    with pytest.raises(ListFormatError, match=message):
        build_segment([entry(1), listed], TYPES, list_name="a")


@pytest.mark.parametrize("shape", [(16, 31), (65, 0), (0, 0), (32, -1)])
def test_signal_types_that_cannot_be_looked_up_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no look-up for"):
        build_segment([entry(1, "md5")], {**TYPES, "other": shape}, list_name="a")
    with pytest.raises(ValueError, match="not a name for a signal type"):
        build_segment([entry(1, "md5")], {**TYPES, "Other/": (16, 0)}, list_name="a")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a" * 65, "a\n", "é", "a b"])
def test_names_that_no_list_may_have(name: str) -> None:
    with pytest.raises(ListError, match="not a name for a list"):
        build_segment([entry(1)], TYPES, list_name=name)


def test_progress_counts_up_to_the_end() -> None:
    told: list[int] = []
    write_segment(io.BytesIO(), (entry(n, "md5") for n in range(20_500)), TYPES, list_name="a", progress=told.append)
    assert told == [10_000, 20_000, 20_500]


def test_entries_are_taken_one_at_a_time() -> None:
    alive = 0

    class Counted(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[ListEntry]:
        nonlocal alive
        for _ in range(1000):
            alive += 1
            assert alive < 5
            yield ListEntry("a", (("md5", Counted(16)),))

    build_segment(stream(), TYPES, list_name="a")


def test_a_wrong_length_is_named_without_the_value() -> None:
    segment = Segment.from_buffer(SMALL)
    for name in ("pdq", "md5"):
        with pytest.raises(ValueError, match=r"hashes of \[3\] bytes in place of"):
            segment.query(name, [b"abc"], 31)


def test_reprs_hold_no_list_name_and_no_entry() -> None:
    segment = Segment.from_buffer(SMALL)
    for shown in (repr(segment), repr(segment.metadata), repr(segment.entry(0))):
        assert "small" not in shown
        assert "id-0" not in shown
        assert "seed" not in shown


def test_a_segment_outlives_its_file_and_serves_threads(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(build_segment(entries(300), TYPES, list_name="a"))
    segment = Segment.open(path)
    path.unlink()
    failures: list[object] = []

    def look_up(start: int) -> None:
        for number in range(start, 300, 4):
            hits = segment.query("pdq", [value("pdq", number)], 31)
            if hits != [(0, number, 0)] or segment.entry(number).entry_id != f"id-{number}":
                failures.append(hits)

    threads = [threading.Thread(target=look_up, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_tombstones_are_not_trusted() -> None:
    older = Segment.from_buffer(SMALL)
    delta = Delta([older], "0123456789abcdef")
    delta.remove(["id-1", "id-3"])
    output = io.BytesIO()
    write_segment(output, [entry(7)], TYPES, list_name="small", delta=delta)
    data, section = output.getvalue(), f"tombstones/{older.metadata.segment_id}"
    assert Segment.from_buffer(data).tombstones(older.metadata.segment_id).tolist() == [1, 3]
    for rows in ([3, 1], [1, 1]):
        packed = np.array(rows, "<u4").tobytes()
        forged = sealed(data, lambda name, old, new=packed: new if name == section else old)
        with pytest.raises(SegmentError, match="tombstones are out of order"):
            Segment.from_buffer(forged)
    forged = sealed(data, lambda name, old: old.replace(b'"entries":2', b'"entries":3') if name == "metadata" else old)
    with pytest.raises(SegmentError, match="tombstones are inconsistent"):
        Segment.from_buffer(forged, verify=False)
    far = np.array([1, 2**32 - 1], "<u4").tobytes()
    forged = sealed(data, lambda name, old: far if name == section else old)
    generation = Generation.of([older, Segment.from_buffer(forged)])
    assert [len(generation.match([Hash("md5", value("md5", seed))], {})) for seed in (1, 3, 7)] == [0, 1, 1]


def test_hash_counts_of_any_width() -> None:
    counts = {"none": 0, "one": 1, "many": 300}
    hashes = {name: tuple(("pdq", value("pdq", f"{name}{n}")) for n in range(count)) for name, count in counts.items()}
    listed = [ListEntry(name, (*hashes[name], ("md5", bytes(16)))) for name in counts]
    segment = Segment.from_buffer(build_segment(listed, TYPES, list_name="a"))
    for row, count in enumerate(counts.values()):
        found = segment.count_hashes(np.array([row], np.uint32))
        assert found == ({"pdq": count, "md5": 1} if count else {"md5": 1})
