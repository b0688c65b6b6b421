"""Matching against all segments of a generation."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hashset.made_up import TYPES, distances_bits, entries, entry, flip_bits, holds, value
from uploadguard.errors import HashSetError, NotReadyError
from uploadguard.hashset import Generation, HashSet, Segment, build_segment
from uploadguard.lists.base import ListEntry
from uploadguard.models import Hash, Match

LIMITS = {"pdq": 31, "phash": 8}


def segment_of(listed: list[ListEntry], name: str = "a", **options: str) -> Segment:
    return Segment.from_buffer(build_segment(listed, TYPES, list_name=name, **options))


def pdq(code: bytes, variant: str = "original", frame: int = 0) -> Hash:
    return Hash("pdq", code, variant=variant, frame=frame)


def test_a_match_says_all_that_the_list_says() -> None:
    generation = Generation.of([segment_of([entry(1)]), segment_of([entry(2)], "b", role="allow")])
    close = flip_bits(value("pdq", 2), 3, 200)
    found = generation.match([pdq(close, "rot90", 4), Hash("md5", value("md5", 1))], LIMITS)
    said = [replace(match, source="", listed_at=None, updated_at=None) for match in found]
    assert said == [
        Match("a", "id-1", "category-1", "md5", 0, exact=True, fields={"seed": "1"}),
        Match("b", "id-2", "category-2", "pdq", 2, "rot90", 4, allow=True, fields={"seed": "2"}),
    ]


def test_a_match_says_where_its_entry_comes_from(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "hashset")
    hash_set.add_list("a", [entry(1)], TYPES, source="first.csv")
    hash_set.update_list("a", [entry(2)], [], TYPES, source="second.csv")
    generation = hash_set.load()
    segments = {segment.metadata.source: segment.metadata for segment in generation.segments}
    (info,) = hash_set.lists()
    for seed, source in ((1, "first.csv"), (2, "second.csv")):
        (match,) = generation.match([Hash("md5", value("md5", seed))], LIMITS)
        assert (match.source, match.listed_at) == (source, segments[source].added_at)
        assert match.updated_at == info.updated_at


def test_exact_is_said_of_digests_only() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    matches = generation.match([Hash(name, value(name, 1)) for name in TYPES], LIMITS)
    assert {match.signal_type: (match.exact, match.distance_bits) for match in matches} == {
        "md5": (True, 0),
        "sha256": (True, 0),
        "pdq": (False, 0),
        "phash": (False, 0),
    }


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 60),
    limit=st.integers(0, 256),
    segments=st.integers(1, 3),
    hashes=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 60), st.sampled_from(["original", "rot90"]),
                              st.integers(0, 2)), max_size=6),
)  # fmt: skip
def test_match_is_the_brute_force(
    seed: int, rows: int, limit: int, segments: int, hashes: list[tuple[int, int, str, int]]
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (max(1, rows // 2), 32), dtype=np.uint8)[rng.integers(0, max(1, rows // 2), rows)]
    entry_of_row = np.sort(rng.integers(0, rows, rows))  # some entries have several hashes
    parts = []
    for part in range(segments):
        listed = [
            ListEntry(
                f"{part}/{number}",
                tuple(("pdq", codes[row].tobytes()) for row in np.flatnonzero(entry_of_row == number)),
            )
            for number in range(rows)
            if part == number % segments
        ]
        if any(item.hashes for item in listed):
            parts.append((part, segment_of(listed, f"list-{part}")))
    asked = [
        pdq(flip_bits(codes[row % rows].tobytes(), *rng.choice(256, bits, replace=False).tolist()), variant, frame)
        for row, bits, variant, frame in hashes
    ]
    expected = {}
    for item in asked:
        for row, distance in enumerate(distances_bits(codes, np.frombuffer(item.value, np.uint8))):
            number = int(entry_of_row[row])
            key = (f"{number % segments}/{number}", item.frame)
            if distance <= limit:
                found = (int(distance), item.variant != "original")
                expected[key] = min(expected.get(key, found), found)
    matches = Generation.of([segment for _, segment in parts]).match(asked, {"pdq": limit})
    assert len(matches) == len(expected)
    assert {
        (match.entry_id, match.frame): (match.distance_bits, match.variant != "original") for match in matches
    } == expected
    assert [match.distance_bits for match in matches] == sorted(match.distance_bits for match in matches)


def test_of_several_variants_of_a_frame_the_closest_comes_back() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    code = value("pdq", 1)
    asked = [pdq(flip_bits(code, 1, 2)), pdq(flip_bits(code, 5), "rot90"), pdq(flip_bits(code, 6), "flip_x")]
    (match,) = generation.match(asked, LIMITS)
    assert (match.variant, match.distance_bits) == ("rot90", 1)


def test_the_original_goes_before_a_variant_as_close() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    code = flip_bits(value("pdq", 1), 9)
    (match,) = generation.match([pdq(code, "rot90"), pdq(code, "original"), pdq(code, "flip_x")], LIMITS)
    assert match.variant == "original"


def test_frames_and_signal_types_match_on_their_own() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    asked = [pdq(value("pdq", 1), frame=frame) for frame in range(3)] + [Hash("phash", value("phash", 1))]
    matches = generation.match(asked, LIMITS)
    assert [(match.signal_type, match.frame) for match in matches] == [("pdq", 0), ("pdq", 1), ("pdq", 2), ("phash", 0)]


def test_duplicates_and_several_lists_all_come_back() -> None:
    same = [ListEntry(f"copy-{n}", entry(1).hashes) for n in range(3)]
    generation = Generation.of([segment_of(same, "a"), segment_of(same, "b"), segment_of(same, "c", role="allow")])
    for asked in (pdq(value("pdq", 1)), Hash("sha256", value("sha256", 1))):
        matches = generation.match([asked], LIMITS)
        assert [(match.list_name, match.entry_id) for match in matches] == [
            (name, f"copy-{n}") for name in "abc" for n in range(3)
        ]


def test_the_limit_is_inclusive_and_given_per_signal_type() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    for limit in (0, 1, 31, 256):
        at_limit = pdq(flip_bits(value("pdq", 1), *range(limit)))
        assert [match.distance_bits for match in generation.match([at_limit], {"pdq": limit})] == [limit]
        assert generation.match([at_limit], {"pdq": limit - 1}) == [] if limit else True
    with pytest.raises(ValueError, match="no limit for signal type 'pdq'"):
        generation.match([pdq(bytes(32))], {"phash": 8})


def test_a_distance_is_never_asked_of_an_exact_index_in_vain() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    with pytest.raises(HashSetError, match="imported for exact look-up and cannot be matched within 8 bits"):
        generation.match([Hash("md5", bytes(16))], {"md5": 8})


def test_signal_types_that_no_list_holds_match_nothing() -> None:
    generation = Generation.of([segment_of([entry(1, "md5")])])
    assert generation.match([pdq(bytes(32)), Hash("new", b"?")], {}) == []
    assert Generation.of([]).match([pdq(bytes(32))], {}) == []


def test_counts_and_lists() -> None:
    generation = Generation.of(
        [
            segment_of(list(entries(3)), "a"),
            segment_of(list(entries(4)), "b", role="allow"),
            segment_of(list(entries(5, "x")), "a"),
        ],
        number=9,
    )
    assert generation.number == 9
    assert generation.entries_total == 8
    assert [(info.name, info.role, info.entries, info.segments) for info in generation.lists] == [
        ("a", "deny", 8, 2),
        ("b", "allow", 4, 1),
    ]
    assert generation.lists[0].hashes == dict.fromkeys(TYPES, 8)
    assert repr(generation) == "Generation(number=9, lists=2, entries_total=8)"
    assert "'a'" not in repr(generation.lists)


def test_built_in_and_stored_lists_match_together(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("stored", entries(3), TYPES)
    stored = hash_set.load()
    both = Generation.of([segment_of([entry("built-in")], "built-in"), *stored.segments], number=stored.number)
    assert holds(both, "built-in")
    assert holds(both, 2)
    assert not holds(stored, "built-in")
    stored.close()  # what another generation holds stays open
    assert holds(both, 2)


def test_a_closed_generation_never_answers_that_nothing_matches() -> None:
    generation = Generation.of([segment_of([entry(1)])])
    generation.close()
    generation.close()
    with pytest.raises(NotReadyError):
        generation.match([pdq(bytes(32))], LIMITS)
    with pytest.raises(NotReadyError):
        _ = generation.segments
    assert generation.entries_total == 1


def test_matches_under_way_survive_closing(tmp_path: Path) -> None:
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(2000), TYPES)
    started = threading.Barrier(5)
    outcomes: list[str] = []

    def match_until_closed(generation: Generation, first: int) -> None:
        started.wait()
        try:
            for number in range(first, 10**9):
                assert holds(generation, number % 2000)
        except NotReadyError:
            outcomes.append("closed")

    for _ in range(5):
        generation = hash_set.load(verify=False)
        threads = [threading.Thread(target=match_until_closed, args=(generation, n * 400)) for n in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        generation.close()
        for thread in threads:
            thread.join()
    assert outcomes == ["closed"] * 20


def test_matches_are_json(tmp_path: Path) -> None:
    (match,) = Generation.of([segment_of([entry(1, "md5")])]).match([Hash("md5", value("md5", 1))], {})
    assert json.loads(json.dumps(match.to_dict()))["fields"] == {"seed": "1"}
