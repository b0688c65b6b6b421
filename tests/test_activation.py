"""Lists are tried before they come into force: by hits on ordinary pictures, growth and shrink; one place for all."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest

from uploadguard.activation import Gate, ListSafety
from uploadguard.config import Settings
from uploadguard.errors import ConfigError, HeldListError, ListFormatError, StagedListError
from uploadguard.hashset import HashSet
from uploadguard.importing import FileUpdate, ListImport, import_list, update_from_file
from uploadguard.lists.samples import SampleItem, SampleWriter, benign_corpus
from uploadguard.models import Hash
from uploadguard.plugins import Plugins
from uploadguard.trial import Corpus, ListTrial

HEADERS = [item for item in benign_corpus() if "twentyten/images/headers" in item.label][:4]


def plugins(**safety: Any) -> Plugins:
    return Plugins(Settings.load(None, safety=safety))


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    return HashSet.create(tmp_path / "set")


def row(entry_id: str, item: SampleItem, *signal_types: str, flip: int = 0) -> str:
    values = {one.signal_type: bytearray(one.value) for one in item.hashes}
    for bit in range(flip):
        values["pdq"][bit // 8] ^= 1 << bit % 8
    cells = [values[name].hex() if name in signal_types else "" for name in ("md5", "sha256", "pdq")]
    return ",".join([entry_id, "A1", *cells])


def listing(count: int, *rows: str, seed: int = 1, start: int = 0) -> io.BytesIO:
    """A list of made-up entries, and these rows."""
    rng = random.Random(seed)
    made = [
        f"{number},A1,{rng.randbytes(16).hex()},{rng.randbytes(32).hex()},{rng.randbytes(32).hex()}"
        for number in range(start, start + count)
    ]
    return io.BytesIO("\n".join(["id,category,md5,sha256,pdq", *made, *rows]).encode())


def test_a_made_up_list_comes_into_force_at_once(hash_set: HashSet) -> None:
    done = import_list(hash_set, "a", listing(300), plugins())
    assert (done.in_force, done.generation) == (True, 1)
    assert done.judgement is not None
    assert done.judgement.within_bounds
    ((judged,)) = done.judgement.corpora
    assert (judged.brought.items, judged.new, judged.matched) == (len(benign_corpus()), 0, None)
    update = update_from_file(hash_set, "a", listing(3, start=1000, seed=2), plugins(), removed=["4"])
    assert (update.update.in_force, update.update.added, update.update.removed) == (True, 3, 1)
    assert hash_set.staging.changes() == ()


@pytest.mark.parametrize("signal_types", [("md5",), ("sha256",), ("pdq",)])
def test_a_poisoned_list_is_held_and_says_what_it_matches(hash_set: HashSet, signal_types: tuple[str, ...]) -> None:
    import_list(hash_set, "a", listing(300), plugins())
    bad = listing(300, row("poison", HEADERS[0], *signal_types))
    with pytest.raises(HeldListError, match=r"ordinary pictures \(safety.max_benign_hits is 0\)") as caught:
        import_list(hash_set, "a", bad, plugins(), replace=True)
    outcome = caught.value.outcome
    assert isinstance(outcome, ListImport)
    assert (outcome.in_force, outcome.generation, outcome.info.entries) == (False, 1, 301)
    assert outcome.judgement is not None
    hits = outcome.judgement.corpora[0].brought.hits
    assert {hit.match.entry_id for hit in hits} == {"poison"}
    assert HEADERS[0].label in {hit.label for hit in hits}
    assert [info.entries for info in hash_set.lists()] == [300]
    assert [item.list_name for item in hash_set.staging.changes()] == ["a"]
    for text in (str(caught.value), repr(caught.value), repr(outcome)):
        assert "poison" not in text
        assert all(one.value.hex() not in text for one in HEADERS[0].hashes)


@pytest.mark.parametrize(("flip", "is_held"), [(31, True), (32, False)])
def test_distances_count_as_in_checks(hash_set: HashSet, flip: int, is_held: bool) -> None:
    bad = listing(300, row("poison", HEADERS[1], "pdq", flip=flip))
    if is_held:
        with pytest.raises(HeldListError):
            import_list(hash_set, "a", bad, plugins())
    else:
        assert import_list(hash_set, "a", bad, plugins()).in_force


def test_a_rule_for_the_list_counts_in_its_trial(hash_set: HashSet) -> None:
    narrow = Plugins(Settings.load(None, policy={"lists": {"a": {"signals": {"pdq": {"max_distance_bits": 8}}}}}))
    assert import_list(hash_set, "a", listing(9, row("x", HEADERS[1], "pdq", flip=9)), narrow).in_force
    with pytest.raises(HeldListError):
        import_list(hash_set, "b", listing(9, row("x", HEADERS[1], "pdq", flip=9)), narrow)


def test_the_widest_limit_of_any_tenant_counts(hash_set: HashSet) -> None:
    wide = {"policy": {"signals": {"pdq": {"max_distance_bits": 40}}}}
    with pytest.raises(HeldListError):
        import_list(
            hash_set,
            "a",
            listing(9, row("x", HEADERS[1], "pdq", flip=35)),
            Plugins(Settings.load(None, tenants={"kids": wide})),
        )


def test_hashes_that_checks_would_not_look_up_do_not_count(hash_set: HashSet) -> None:
    plain = next(item for item in benign_corpus() if item.label == "made up: white 512x512 PNG")
    quality = next(one.quality for one in plain.hashes if one.signal_type == "pdq")
    assert quality is not None
    assert quality < 50
    assert import_list(hash_set, "a", listing(9, row("x", plain, "pdq")), plugins()).in_force
    with pytest.raises(HeldListError):
        import_list(hash_set, "b", listing(9, row("x", plain, "md5")), plugins())


def test_an_allow_list_may_match_ordinary_pictures(hash_set: HashSet) -> None:
    done = import_list(hash_set, "fine", listing(9, row("x", HEADERS[0], "sha256")), plugins(), role="allow")
    assert done.in_force
    assert done.judgement is not None
    assert done.judgement.corpora[0].new == 1


def test_hits_that_are_in_force_already_hold_nothing_back(hash_set: HashSet) -> None:
    rows = [row(f"x{number}", item, "md5") for number, item in enumerate(HEADERS)]
    import_list(hash_set, "a", listing(300, rows[0]), plugins(activation="direct"))
    assert update_from_file(hash_set, "a", listing(3, start=1000), plugins()).update.in_force
    assert import_list(hash_set, "a", listing(300, rows[0], seed=3), plugins(), replace=True).in_force
    with pytest.raises(HeldListError, match=r"would match 2 of .*, 1 of them anew") as caught:
        update_from_file(hash_set, "a", listing(3, rows[1], start=2000), plugins())
    assert isinstance(caught.value.outcome, FileUpdate)
    with pytest.raises(StagedListError, match="staged already"):
        update_from_file(hash_set, "a", listing(3, start=3000), plugins())
    done = update_from_file(hash_set, "a", listing(3, start=3000), plugins(), restage=True)
    assert done.update.in_force
    assert hash_set.staging.changes() == ()
    assert update_from_file(hash_set, "a", listing(3, rows[1]), plugins(max_benign_hits=2)).update.in_force
    with pytest.raises(HeldListError):
        update_from_file(hash_set, "a", listing(3, rows[2]), plugins(max_benign_hits=2))


def test_an_allow_list_that_becomes_another_is_held_for_what_it_matches(hash_set: HashSet) -> None:
    import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "sha256")), plugins(), role="allow")
    with pytest.raises(HeldListError):
        import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "sha256")), plugins(), replace=True)
    assert [info.role for info in hash_set.lists()] == ["allow"]


def test_growth_and_shrink_are_bounded_for_lists_that_are_not_ones_own(hash_set: HashSet) -> None:
    import_list(hash_set, "small", listing(99), plugins())
    assert import_list(hash_set, "small", listing(2000), plugins(), replace=True).in_force
    import_list(hash_set, "a", listing(100), plugins())
    with pytest.raises(HeldListError, match=r"grow from 100 to 301 entries \(safety.max_growth_percent is 200\)"):
        import_list(hash_set, "a", listing(301), plugins(), replace=True)
    assert import_list(hash_set, "a", listing(300), plugins(), replace=True).in_force
    assert import_list(hash_set, "a", listing(3000), plugins(max_growth_percent=0), replace=True).in_force
    with pytest.raises(HeldListError, match="shrink from 3,000 to 1,499"):
        update_from_file(hash_set, "a", None, plugins(), removed=map(str, range(1501)))


def test_manual_stages_and_direct_does_not_try(hash_set: HashSet) -> None:
    manual = import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "md5")), plugins(activation="manual"))
    assert not manual.in_force
    assert manual.judgement is not None
    assert not manual.judgement.within_bounds
    assert hash_set.generation == 0
    direct = import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "md5")), plugins(activation="direct"))
    assert (direct.in_force, direct.judgement) == (True, None)
    staged = import_list(hash_set, "b", listing(9), plugins(activation="direct"), stage=True)
    assert not staged.in_force
    assert import_list(hash_set, "c", listing(9), plugins(), stage=True).in_force is False


def test_activation_is_judged_again_by_the_bounds_of_then(hash_set: HashSet) -> None:
    with pytest.raises(HeldListError):
        import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "md5")), plugins())

    def gate(force: bool = False, **safety: Any) -> Gate:
        chosen = plugins(**safety)
        return Gate(ListSafety(chosen.settings, chosen), stage=False, force=force, allow_shrink=False)

    assert not hash_set.staging.activate("a", judge=gate()).in_force
    assert hash_set.staging.activate("a", judge=gate(max_benign_hits=1)).in_force
    hash_set.rollback(0)
    import_list(hash_set, "a", listing(9, row("x", HEADERS[0], "md5")), plugins(), stage=True)
    assert hash_set.staging.activate("a", judge=gate(force=True)).in_force


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A sample of 200 pictures that nobody has, with hashes of their own."""
    rng = random.Random(9)
    path = tmp_path / "sample.jsonl"
    with SampleWriter(path) as writer:
        for _ in range(200):
            hashes = (Hash("md5", rng.randbytes(16)), Hash("pdq", rng.randbytes(32), 90))
            writer.add(SampleItem(0, "", (*hashes, Hash("sha256", rng.randbytes(32)))))
    return path


def test_the_hosts_own_sample_bounds_by_its_share(hash_set: HashSet, sample: Path) -> None:
    from uploadguard.lists.samples import read_sample

    rows = [row(f"x{number}", item, "md5") for number, item in enumerate(read_sample(sample))]
    assert import_list(hash_set, "a", listing(9, *rows[:2]), plugins(sample=sample, max_sample_percent=1.0)).in_force
    reason = r"3 of 200 pictures of the host's sample, 1.5 % \(safety.max_sample_percent is 1\)"
    with pytest.raises(HeldListError, match=reason):
        import_list(hash_set, "b", listing(9, *rows[:3]), plugins(sample=sample, max_sample_percent=1.0))
    with pytest.raises(HeldListError, match="host's sample"):
        import_list(hash_set, "c", listing(9, rows[0]), plugins(sample=sample))


def test_a_sample_that_cannot_be_read_stops_an_import_before_it_begins(hash_set: HashSet, tmp_path: Path) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("was read")

    with pytest.raises(ListFormatError, match="lists sample"):
        import_list(hash_set, "a", Unread(), plugins(sample=tmp_path / "gone.jsonl"))
    damaged = tmp_path / "sample.jsonl"
    damaged.write_text('{"format":"uploadguard sample","version":1}\n{"hashes":[["pdq","00"]]}\n')
    with pytest.raises(ListFormatError, match="pdq hash of 1 bytes"):
        import_list(hash_set, "a", listing(9), plugins(sample=damaged))
    assert hash_set.generation == 0
    assert hash_set.staging.changes() == ()


def test_settings_that_no_guard_takes_are_refused_before_an_import(hash_set: HashSet) -> None:
    wrong = Plugins(Settings.load(None, policy={"signals": {"phash": {"max_distance_bits": 3}}}))
    with pytest.raises(ConfigError):
        import_list(hash_set, "a", listing(9), wrong)


def test_hits_to_show_are_bounded_and_all_are_counted(hash_set: HashSet) -> None:
    rows = [row(f"x{number}", HEADERS[0], "md5") for number in range(500)]
    with pytest.raises(HeldListError) as caught:
        import_list(hash_set, "a", listing(0, *rows), plugins())
    outcome = caught.value.outcome
    assert isinstance(outcome, ListImport)
    assert outcome.judgement is not None
    (judged,) = outcome.judgement.corpora
    assert (judged.brought.hits_total, len(judged.brought.hits), judged.matched) == (500, 200, 1)


def test_a_trial_of_several_frames_counts_a_picture_once(hash_set: HashSet) -> None:
    chosen = plugins(activation="direct")
    import_list(hash_set, "a", listing(50), chosen)
    rng = random.Random(1)
    rng.randbytes(16 + 32)
    first = rng.randbytes(32)
    item = SampleItem(7, "frames", (Hash("pdq", bytes(32), 80), Hash("pdq", first, 80), Hash("pdq", first[::-1], 80)))
    trial = ListTrial(chosen.settings, chosen).run(hash_set.load(), Corpus("x", lambda: [item]))
    assert (trial.items, trial.matched, trial.hits_total, trial.percent) == (1, frozenset({7}), 1, 100.0)
