"""Staged changes: seen by no look-up, kept whatever happens, put in force without compiling; one list's rollback."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path

import pytest

from tests.hashset import children
from tests.hashset.made_up import TYPES, create_set, entries, entry, expected_files, files_of, holds, open_set
from uploadguard.errors import (
    HashSetError,
    HashSetWriteError,
    ListError,
    ManifestError,
    SegmentError,
    StagedListError,
    UnknownListError,
)
from uploadguard.hashset import Candidate, Compilation, HashSet
from uploadguard.hashset.manifest import read_manifest, write_manifest
from uploadguard.lists.base import ListEntry
from uploadguard.storage.keys import write_key_file

HOW = Compilation(TYPES, "file")


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    """A hash set of one list, "a", with entries "old"."""
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(20, "old"), TYPES)
    return hash_set


def held(hash_set: HashSet, *seeds: str) -> list[bool]:
    generation = hash_set.load()
    return [holds(generation, seed) for seed in seeds]


def stage_update(hash_set: HashSet) -> None:
    """Stage: old3 goes, old4 is another, new comes."""
    other = ListEntry("id-old4", entry("other4").hashes)
    update = hash_set.staging.update_list("a", [other, entry("new")], ["id-old3"], HOW)
    assert (update.added, update.removed, update.in_force) == (2, 2, False)


def is_updated(hash_set: HashSet) -> bool:
    """Whether :func:`stage_update` is in force; fails if only part of it is."""
    generation = hash_set.load()
    found = [holds(generation, seed) for seed in ("old2", "old3", "old4", "new")]
    assert found in ([True, True, True, False], [True, False, False, True])
    return found[-1]


def test_what_is_staged_is_seen_by_nobody_until_it_is_activated(hash_set: HashSet) -> None:
    other = HashSet.open(hash_set.directory)
    update = hash_set.staging.add_list("b", entries(5, "b"), HOW, role="allow")
    assert (update.in_force, update.generation, update.info.entries) == (False, 1, 5)
    assert not other.changed_since(1)
    assert [info.name for info in other.lists()] == ["a"]
    assert held(other, "old0", "b0") == [True, False]
    (staged,) = other.staging.changes()
    assert (staged.list_name, staged.change.kind, staged.before, staged.outdated) == ("b", "new", None, None)
    assert (staged.after.entries, staged.after.role, staged.after.source) == (5, "allow", "file")
    assert files_of(other) == expected_files(other)
    path = other.directory / staged.change.segment.file
    before = path.stat()
    hash_set.add_list("c", entries(1, "c"), TYPES)  # another change leaves it alone
    done = other.staging.activate("b")
    assert (done.in_force, done.generation, done.info.entries, done.added) == (True, 3, 5, 5)
    assert held(hash_set, "old0", "b0", "c0") == [True, True, True]
    assert path.stat().st_ino == before.st_ino, "its file was written anew"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert other.staging.changes() == ()
    hash_set.rollback()
    assert held(hash_set, "b0") == [False]


def test_every_kind_of_change_can_wait(hash_set: HashSet) -> None:
    hash_set.staging.add_list("a", entries(3, "whole"), HOW, replace=True)
    (staged,) = hash_set.staging.changes()
    assert (staged.change.kind, staged.change.added, staged.change.removed) == ("replace", 3, 20)
    assert staged.before is not None
    assert (staged.before.entries, staged.after.entries) == (20, 3)
    assert held(hash_set, "old0", "whole0") == [True, False]
    hash_set.staging.activate("a")
    assert held(hash_set, "old0", "whole0") == [False, True]
    hash_set.staging.add_list("a", entries(2, "more"), HOW, append=True)
    hash_set.staging.activate("a")
    assert held(hash_set, "whole0", "more1") == [True, True]
    hash_set.rollback(1)
    stage_update(hash_set)
    (staged,) = hash_set.staging.changes()
    assert (staged.change.kind, staged.after.entries) == ("update", 20)
    assert not is_updated(hash_set)
    hash_set.staging.activate("a")
    assert is_updated(hash_set)
    assert files_of(hash_set) == expected_files(hash_set)


def test_a_candidate_tells_what_comes_what_is_and_what_will_be(hash_set: HashSet) -> None:
    stage_update(hash_set)
    candidate = hash_set.staging.candidate("a")
    assert [holds(candidate.brought(), seed) for seed in ("old2", "old3", "new")] == [False, False, True]
    assert [holds(candidate.current(), seed) for seed in ("old2", "old3", "new")] == [True, True, False]
    assert [holds(candidate.result(), seed) for seed in ("old2", "old3", "new")] == [True, False, True]
    assert not candidate.is_whole
    active = hash_set.staging.in_force("a")
    assert (holds(active.brought(), "old3"), holds(active.result(), "old3"), active.is_whole) == (True, True, True)
    assert not holds(active.current(), "old3")
    for ask in (hash_set.staging.candidate, hash_set.staging.in_force):
        with pytest.raises(UnknownListError):
            ask("b")


def test_one_change_a_list_is_staged_and_goes_only_when_told(hash_set: HashSet) -> None:
    stage_update(hash_set)
    for attempt in (
        lambda: hash_set.staging.update_list("a", [entry("x")], (), HOW),
        lambda: hash_set.staging.add_list("a", [entry("x")], HOW, append=True),
    ):
        with pytest.raises(StagedListError, match="would be lost"):
            attempt()
    with pytest.raises(StagedListError, match="would be lost"):
        hash_set.staging.add_list("a", [entry("x")], HOW)
    hash_set.staging.update_list("a", [entry("x")], (), HOW, restage=True)
    assert [item.change.added for item in hash_set.staging.changes()] == [1]
    hash_set.staging.add_list("a", entries(4, "whole"), HOW, replace=True)
    assert [item.change.kind for item in hash_set.staging.changes()] == ["replace"]
    hash_set.staging.add_list("b", entries(1, "b"), HOW)
    assert [item.list_name for item in hash_set.staging.changes()] == ["a", "b"]
    assert files_of(hash_set) == expected_files(hash_set)
    dropped = hash_set.staging.discard("a")
    assert (dropped.list_name, dropped.change.added) == ("a", 4)
    assert [item.list_name for item in hash_set.staging.changes()] == ["b"]
    assert len(list(hash_set.directory.glob("*.ugs"))) == 2
    with pytest.raises(UnknownListError, match="nothing is staged"):
        hash_set.staging.discard("a")
    with pytest.raises(UnknownListError, match="nothing is staged"):
        hash_set.staging.activate("a")
    assert hash_set.generation == 1


def test_removing_a_list_takes_what_is_staged_for_it_along(hash_set: HashSet) -> None:
    stage_update(hash_set)
    hash_set.remove_list("a", purge=True)
    assert hash_set.staging.changes() == ()
    assert not list(hash_set.directory.glob("*.ugs"))


def test_an_update_does_not_fit_a_list_that_has_changed(hash_set: HashSet) -> None:
    stage_update(hash_set)
    hash_set.update_list("a", [entry("late")], ["id-old3"], TYPES)
    (staged,) = hash_set.staging.changes()
    assert staged.outdated is not None
    for options in ({}, {"replace_changed": True}):
        with pytest.raises(StagedListError, match="stage the update again"):
            hash_set.staging.activate("a", **options)
    assert held(hash_set, "late", "new") == [True, False]
    hash_set.rollback_list("a")
    hash_set.staging.activate("a")  # the list is again what it was
    assert is_updated(hash_set)


def test_a_whole_list_undoes_later_changes_only_when_told(hash_set: HashSet) -> None:
    hash_set.staging.add_list("a", entries(3, "whole"), HOW, replace=True)
    hash_set.staging.add_list("b", entries(3, "staged"), HOW)
    hash_set.update_list("a", [entry("late")], (), TYPES)
    hash_set.add_list("b", [entry("direct")], TYPES)
    assert all(item.outdated is not None for item in hash_set.staging.changes())
    for name, reason in (("a", "would undo that"), ("b", "there is a list of that name by now")):
        with pytest.raises(StagedListError, match=reason):
            hash_set.staging.activate(name)
        hash_set.staging.activate(name, replace_changed=True)
    assert held(hash_set, "late", "direct", "whole0", "staged0") == [False, False, True, True]
    assert [info.name for info in hash_set.lists()] == ["a", "b"]


def test_an_append_fits_any_list_of_its_role(hash_set: HashSet) -> None:
    hash_set.staging.add_list("a", entries(3, "more"), HOW, append=True)
    hash_set.add_list("a", [entry("other")], TYPES, replace=True)
    assert [item.outdated for item in hash_set.staging.changes()] == [None]
    hash_set.staging.activate("a")
    assert held(hash_set, "old0", "other", "more2") == [False, True, True]
    hash_set.staging.add_list("a", entries(3, "still"), HOW, append=True)
    hash_set.add_list("a", [entry("other")], TYPES, replace=True, role="allow")
    with pytest.raises(ListError, match="of the role 'allow'"):
        hash_set.staging.activate("a")
    hash_set.add_list("a", [entry("other", "md5", "pdq")], {"md5": (16, 0), "pdq": (32, 0)}, replace=True)
    with pytest.raises(ListError, match="another kind of look-up"):
        hash_set.staging.activate("a")


@pytest.mark.parametrize("late", [0, 1, 3])
def test_what_is_staged_fits_still_after_a_compaction(
    hash_set: HashSet, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    from uploadguard.hashset import compaction

    hash_set.update_list("a", entries(5, "second"), ["id-old0"], TYPES)
    merge = compaction.merge_segments
    calls = itertools.count()

    def with_changes(*arguments: object, **options: object) -> object:
        done = merge(*arguments, **options)  # type: ignore[arg-type]
        if next(calls) == 0:  # the compaction holds no lock now
            for number in range(late):
                hash_set.update_list("a", [entry(f"late{number}")], [f"id-old{number + 10}", "id-late0"], TYPES)
            other = ListEntry("id-old4", entry("other4").hashes)
            gone = ["id-old3", "id-second2", "id-late0"]
            hash_set.staging.update_list("a", [other, entry("new")], gone, HOW)
        return done

    monkeypatch.setattr(compaction, "merge_segments", with_changes)
    hash_set.compact(keep_previous=True)
    monkeypatch.undo()
    (staged,) = hash_set.staging.changes()
    assert staged.outdated is None
    hash_set.compact()  # and once more, in quiet
    assert files_of(hash_set) == expected_files(hash_set)
    assert hash_set.verify().ok
    before = hash_set.lists()[0].entries
    done = hash_set.staging.activate("a")
    assert hash_set.verify().ok
    assert held(hash_set, "old3", "old4", "second2", "late0", "new", "old5") == [False] * 4 + [True] * 2
    assert held(hash_set, "late1", "late2", "old11") == [late > 1, late > 2, late < 2]
    there_before = late == 1  # of the later ones each removes the first
    assert done.info.entries == before + 2 - 3 - there_before


def test_an_outdated_update_is_carried_through_a_compaction(hash_set: HashSet) -> None:
    stage_update(hash_set)
    hash_set.update_list("a", [entry("late")], ["id-old3"], TYPES)
    hash_set.compact()
    (staged,) = hash_set.staging.changes()
    assert staged.outdated is not None
    assert hash_set.verify().ok


def test_deltas_that_are_activated_stay_few_segments(hash_set: HashSet) -> None:
    for number in range(30):
        hash_set.staging.update_list("a", [entry(f"new{number}")], [f"id-new{number - 1}"], HOW)
        hash_set.staging.activate("a")
    (info,) = hash_set.lists()
    assert info.segments <= 6
    assert info.entries == 21
    assert held(hash_set, "new28", "new29", "old0") == [False, True, True]


def test_a_judge_decides_between_compilation_and_force(hash_set: HashSet) -> None:
    seen: list[Candidate] = []

    def judge(candidate: Candidate) -> bool:
        seen.append(candidate)
        assert hash_set.staging.changes() == ()
        return holds(candidate.brought(), "good0")

    good = hash_set.staging.add_list("b", entries(2, "good"), HOW, judge=judge)
    assert (good.in_force, good.generation) == (True, 2)
    assert held(hash_set, "good0") == [True]
    bad = hash_set.staging.update_list("b", entries(2, "bad"), (), HOW, judge=judge)
    assert (bad.in_force, bad.generation, bad.info.entries) == (False, 2, 4)
    assert held(hash_set, "bad0") == [False]
    assert [(one.before.entries if one.before else None, one.after.entries) for one in seen] == [(None, 2), (2, 4)]
    again = hash_set.staging.activate("b", judge=lambda candidate: candidate.after.entries < 4)
    assert (again.in_force, again.generation) == (False, 2)
    assert [item.list_name for item in hash_set.staging.changes()] == ["b"]
    assert hash_set.staging.activate("b", judge=lambda candidate: True).in_force
    better = hash_set.staging.add_list("b", entries(2, "good"), HOW, judge=judge, replace=True)
    assert better.in_force


def test_a_good_list_takes_the_place_of_what_was_held(hash_set: HashSet) -> None:
    hash_set.staging.add_list("a", entries(2, "bad"), HOW, replace=True)
    hash_set.staging.add_list("a", entries(2, "good"), HOW, replace=True, judge=lambda candidate: True)
    assert hash_set.staging.changes() == ()
    assert held(hash_set, "good0", "bad0") == [True, False]


def test_what_a_judge_raises_changes_nothing(hash_set: HashSet) -> None:
    def judge(candidate: Candidate) -> bool:
        raise ListError("no sample")

    with pytest.raises(ListError, match="no sample"):
        hash_set.staging.add_list("b", entries(2, "b"), HOW, judge=judge)
    assert hash_set.staging.changes() == ()
    assert hash_set.generation == 1
    assert files_of(hash_set) == expected_files(hash_set)


def test_an_update_without_news_is_noted_and_not_staged(hash_set: HashSet) -> None:
    update = hash_set.staging.update_list("a", (), ["nobody"], HOW)
    assert (update.in_force, update.added, update.removed, update.generation) == (True, 0, 0, 2)
    assert hash_set.staging.changes() == ()


def test_damage_to_what_is_staged_is_found_and_not_put_in_force(hash_set: HashSet) -> None:
    hash_set.staging.add_list("b", entries(50, "b"), HOW)
    (staged,) = hash_set.staging.changes()
    assert hash_set.stats().staged_bytes == staged.size_bytes
    assert hash_set.stats().previous_bytes == 0
    path = hash_set.directory / staged.change.segment.file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert [(problem.path, problem.in_force) for problem in hash_set.verify().problems] == [(path, False)]
    with pytest.raises(SegmentError, match="altered"):
        hash_set.staging.activate("b")
    path.unlink()
    with pytest.raises(SegmentError, match="is missing; discard"):
        hash_set.staging.activate("b")
    hash_set.staging.discard("b")
    assert hash_set.verify().ok


def test_a_manifest_without_anything_staged_is_as_it_always_was(hash_set: HashSet) -> None:
    manifest, stamp, _ = read_manifest(hash_set.directory)
    text = (hash_set.directory / "manifest.json").read_text()
    assert "staged" not in text
    assert "merged_up_to" not in text
    hash_set.staging.add_list("b", entries(2, "b"), HOW)
    hash_set.staging.discard("b")
    assert (hash_set.directory / "manifest.json").read_text() == text
    hash_set.staging.add_list("b", entries(2, "b"), HOW)
    change = read_manifest(hash_set.directory).manifest.staged[0]
    other = change.segment.model_copy(update={"file": change.segment.file.replace("segment-", "segment-9")})
    twice = manifest.model_copy(update={"staged": (change, change.model_copy(update={"segment": other}))})
    write_manifest(hash_set.directory, twice, after=stamp)
    with pytest.raises(ManifestError, match="two changes staged"):
        read_manifest(hash_set.directory)
    document = json.loads(text)
    document["staged"] = []
    (hash_set.directory / "manifest.json").write_text(json.dumps(document, indent=1) + "\n")
    with pytest.raises(ManifestError, match="altered"):
        read_manifest(hash_set.directory)


def test_what_is_staged_is_encrypted_and_is_so_anew_by_compaction(tmp_path: Path) -> None:
    plain = create_set(tmp_path / "set")
    plain.add_list("a", entries(20, "old"), TYPES)
    stage_update(plain)
    write_key_file(tmp_path / "set.key")
    hash_set = open_set(tmp_path / "set")
    hash_set.staging.add_list("b", entries(9, "b"), HOW)
    (_, staged) = hash_set.staging.changes()
    assert b"id-b1" not in (hash_set.directory / staged.change.segment.file).read_bytes()
    assert hash_set.encrypted_files().encrypted == 2  # the manifest and the new one
    hash_set.compact()
    files = hash_set.encrypted_files()
    assert (files.files, files.encrypted, files.as_configured) == (4, 4, 4)
    hash_set.staging.activate("a")
    hash_set.staging.activate("b")
    assert is_updated(hash_set)
    assert held(hash_set, "b8") == [True]


def test_one_list_goes_back_and_the_others_stay(hash_set: HashSet) -> None:
    hash_set.add_list("b", entries(3, "b"), TYPES)
    hash_set.add_list("a", entries(5, "bad"), TYPES, replace=True)
    hash_set.update_list("b", [entry("b-more")], (), TYPES)
    planned = hash_set.find_rollback("a")
    done = hash_set.rollback_list("a")
    assert (planned.restored, planned.generation) == (2, 4)
    assert (done.restored, done.generation, done.info.entries) == (2, 5, 20)
    assert done.before is not None
    assert done.before.entries == 5
    assert held(hash_set, "old0", "bad0", "b0", "b-more") == [True, False, True, True]
    assert [info.name for info in hash_set.lists()] == ["b", "a"]
    assert hash_set.rollback_list("a").info.entries == 5, "a rollback takes it back"
    assert hash_set.rollback_list("a", 5).info.entries == 20
    with pytest.raises(HashSetError, match="what it held in generation 5"):
        hash_set.rollback_list("a", 5)
    with pytest.raises(HashSetError, match="no generation 77"):
        hash_set.rollback_list("a", 77)


def test_a_merge_is_not_another_version_of_a_list(hash_set: HashSet) -> None:
    hash_set.update_list("a", [entry("second")], ["id-old0"], TYPES)
    hash_set.add_list("b", entries(3, "b"), TYPES)
    hash_set.compact(keep_previous=True)
    assert hash_set.find_rollback("a").restored == 1
    with pytest.raises(HashSetError, match="none of the 3 previous generations"):
        hash_set.rollback_list("b")
    with pytest.raises(HashSetError, match="what it held in generation 2"):
        hash_set.rollback_list("a", 2)
    hash_set.rollback_list("a")
    assert held(hash_set, "old0", "second", "b0") == [True, False, True]


def test_a_list_that_is_gone_comes_back_and_a_new_one_has_nothing_to_go_back_to(hash_set: HashSet) -> None:
    hash_set.add_list("b", entries(3, "b"), TYPES)
    with pytest.raises(HashSetError, match="lists remove"):
        hash_set.rollback_list("b")
    with pytest.raises(HashSetError, match="generation 1 has no list of that name"):
        hash_set.rollback_list("b", 1)
    hash_set.remove_list("b")
    done = hash_set.rollback_list("b")
    assert (done.before, done.info.entries) == (None, 3)
    assert held(hash_set, "b0", "old0") == [True, True]
    hash_set.compact()
    with pytest.raises(HashSetError, match="none of the 0 previous"):
        hash_set.rollback_list("b")


def assert_whole(hash_set: HashSet) -> str:
    """Fails unless the set is whole and goes on; gives what became of :func:`stage_update`."""
    hash_set = HashSet.open(hash_set.directory)
    assert hash_set.verify().ok
    updated, staged = is_updated(hash_set), hash_set.staging.changes()
    assert hash_set.generation == 1 + updated
    assert not (updated and staged)
    hash_set.add_list("b", entries(1, "b"), TYPES)
    assert files_of(hash_set) == expected_files(hash_set)
    if staged:
        hash_set.staging.activate("a")
        assert is_updated(hash_set)
    return "in force" if updated else "staged" if staged else "nothing"


@pytest.mark.parametrize("change", ["stage", "activate", "discard"])
def test_killed_at_every_other_step(tmp_path: Path, change: str) -> None:
    outcomes = []
    for step in itertools.count(0, 2):
        hash_set = HashSet.create(tmp_path / f"set{step}")
        hash_set.add_list("a", entries(20, "old"), TYPES)
        if change != "stage":
            stage_update(hash_set)
        process, pipe = children.start(stage_and_die, hash_set.directory, change, step)
        process.join()
        if process.exitcode == 0:
            assert pipe.recv() == "survived"
            break
        assert process.exitcode == -9
        outcomes.append(assert_whole(hash_set))
    kinds = {"stage": ("nothing", "staged"), "activate": ("staged", "in force"), "discard": ("staged", "nothing")}
    before, after = kinds[change]
    assert set(outcomes) == {before, after}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == after)


def stage_and_die(pipe: children.Connection, directory: Path, change: str, step: int) -> None:
    hash_set = open_set(directory)
    with children.at_step(step, children._die, children.KILL_STEPS):
        do(hash_set, change)
    pipe.send("survived")


def do(hash_set: HashSet, change: str) -> None:
    if change == "stage":
        stage_update(hash_set)
    elif change == "activate":
        hash_set.staging.activate("a")
    else:
        hash_set.staging.discard("a")


@pytest.mark.parametrize("change", ["stage", "activate", "discard"])
def test_whatever_step_the_disk_refuses(tmp_path: Path, change: str) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outcomes = []
    for step in itertools.count():
        hash_set = HashSet.create(tmp_path / f"set{step}")
        hash_set.add_list("a", entries(20, "old"), TYPES)
        if change != "stage":
            stage_update(hash_set)
        error: HashSetWriteError | None = None
        with children.at_step(step, refuse, children.WRITE_STEPS) as made:
            try:
                do(hash_set, change)
            except HashSetWriteError as caught:
                error = caught
        if len(made) <= step:
            break
        outcome = assert_whole(hash_set)
        outcomes.append((outcome, error is None))
    done = {"stage": "staged", "activate": "in force", "discard": "nothing"}[change]
    assert {outcome for outcome, _ in outcomes} == {"staged", "nothing" if change != "activate" else "in force"}
    assert all(outcome == done for outcome, fine in outcomes if fine)
    assert len(outcomes) > 4
