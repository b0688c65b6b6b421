"""The hash set's directory: lists in and out, what is refused, and what is left on the disk."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hashset.made_up import TYPES, entries, entry, expected_files, files_of, holds
from uploadguard.errors import (
    EmptyListError,
    HashSetBusyError,
    HashSetError,
    ListError,
    ListFormatError,
    ManifestError,
    SegmentError,
    UnknownListError,
)
from uploadguard.hashset import HashSet
from uploadguard.hashset import manifest as manifest_module
from uploadguard.hashset.files import write_lock
from uploadguard.hashset.manifest import Manifest, read_manifest, write_manifest
from uploadguard.lists.base import ListEntry


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    return HashSet.create(tmp_path / "set", lock_timeout_s=10)


def test_lists_come_and_go_by_generation(hash_set: HashSet) -> None:
    assert (hash_set.generation, hash_set.lists(), hash_set.load().entries_total) == (0, (), 0)
    info = hash_set.add_list("first", entries(3, "a"), TYPES, source="a.csv")
    assert (info.name, info.role, info.source, info.entries, info.segments) == ("first", "deny", "a.csv", 3, 1)
    assert info.hashes == dict.fromkeys(TYPES, 3)
    assert abs(info.added_at - datetime.now(UTC)) < timedelta(minutes=5)
    hash_set.add_list("second", entries(2, "b"), TYPES, role="allow")
    assert [item.name for item in hash_set.lists()] == ["first", "second"]
    generation = hash_set.load()
    assert generation.number == hash_set.generation == 2
    assert generation.lists == hash_set.lists()
    assert holds(generation, "a0")
    assert holds(generation, "b1")
    hash_set.remove_list("first")
    assert hash_set.generation == 3
    after = hash_set.load()
    assert not holds(after, "a0")
    assert holds(after, "b1")
    assert holds(generation, "a0"), "the old generation goes on"
    assert files_of(hash_set) == expected_files(hash_set)


def test_a_taken_name_needs_replace_or_append(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(3, "a"), TYPES)
    with pytest.raises(ListError, match="use replace to put this in its place, or append"):
        hash_set.add_list("a", entries(3, "b"), TYPES)
    appended = hash_set.add_list("a", entries(2, "b"), TYPES, append=True)
    assert (appended.entries, appended.segments) == (5, 2)
    assert all(holds(hash_set.load(), seed) for seed in ("a0", "b1"))
    replaced = hash_set.add_list("a", entries(4, "c"), TYPES, replace=True, role="allow")
    assert (replaced.entries, replaced.segments, replaced.role) == (4, 1, "allow")
    assert [holds(hash_set.load(), seed) for seed in ("a0", "b1", "c3")] == [False, False, True]
    with pytest.raises(ListError, match="of the role 'allow', not 'deny'"):
        hash_set.add_list("a", entries(1, "d"), TYPES, append=True)
    with pytest.raises(ValueError, match="not both"):
        hash_set.add_list("a", entries(1), TYPES, append=True, replace=True)
    assert hash_set.generation == 3
    assert files_of(hash_set) == expected_files(hash_set)


def test_replace_and_append_take_new_names_too(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(1, "a"), TYPES, replace=True)
    hash_set.add_list("b", entries(1, "b"), TYPES, append=True)
    assert [info.name for info in hash_set.lists()] == ["a", "b"]


def test_removing_what_is_not_there(hash_set: HashSet) -> None:
    with pytest.raises(UnknownListError, match="no list of that name") as caught:
        hash_set.remove_list("secret-name")
    assert "secret-name" not in str(caught.value)
    assert hash_set.generation == 0


@pytest.mark.parametrize("name", ["", ".a", "a/b", "../a", "a" * 65, "a\n", "a\0"])
def test_names_that_no_list_may_have(hash_set: HashSet, name: str) -> None:
    with pytest.raises(ListError, match="not a name for a list"):
        hash_set.add_list(name, entries(1), TYPES)
    assert hash_set.generation == 0


def broken(error: BaseException) -> Iterator[ListEntry]:
    yield entry(1)
    raise error


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ([], EmptyListError),
        ([ListEntry("a", ())], EmptyListError),
        ([entry(1), ListEntry("a", (("md5", b"short"),))], ListFormatError),
        (broken(OSError("the list file went away")), OSError),
        (broken(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_an_import_that_fails_changes_nothing(hash_set: HashSet, listed: object, error: type[BaseException]) -> None:
    hash_set.add_list("a", entries(2), TYPES)
    before = {path.name: path.read_bytes() for path in hash_set.directory.iterdir()}
    with pytest.raises(error) as caught:
        hash_set.add_list("a", listed, TYPES, replace=True)  # type: ignore[arg-type]
    assert caught.type is error  # an OSError of the reader is not one of the hash set's
    assert {path.name: path.read_bytes() for path in hash_set.directory.iterdir()} == before
    assert holds(hash_set.load(), 1)


def test_nobody_else_can_read_it(hash_set: HashSet) -> None:
    old_umask = os.umask(0)
    try:
        open_set = HashSet.create(hash_set.directory.parent / "other" / "set")
        open_set.add_list("a", entries(2), TYPES)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(open_set.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in open_set.directory.iterdir()} == {0o600}


def test_creating(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no hash set here; create it"):
        HashSet.open(tmp_path / "set")
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    (empty / ".manifest.json.1234.tmp").write_bytes(b"left by a creation that was cut short")
    HashSet.create(str(empty)).add_list("a", entries(1), TYPES)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    assert HashSet.open(str(empty)).generation == 1
    with pytest.raises(HashSetError, match="there is a hash set already; open it"):
        HashSet.create(empty)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").touch()
    with pytest.raises(HashSetError, match="is not empty"):
        HashSet.create(tmp_path / "home")
    (empty / "manifest.json").unlink()
    with pytest.raises(HashSetError, match="is not empty"):  # segments that only lost their manifest
        HashSet.create(empty)


def test_changed_since_sees_every_change_of_another_writer(hash_set: HashSet) -> None:
    other = HashSet.open(hash_set.directory)
    for number in range(1, 30):
        assert not hash_set.changed_since(number - 1)
        if number % 2:
            other.add_list("a", entries(1), TYPES)
        else:
            other.remove_list("a")
        assert hash_set.changed_since(number - 1)
        assert hash_set.generation == number


def test_changed_since_does_not_read_an_unchanged_manifest(hash_set: HashSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hash_set.changed_since(0)
    monkeypatch.setattr("uploadguard.hashset.directory.read_manifest", None)
    assert not hash_set.changed_since(0)


def test_two_manifests_in_a_row_never_share_a_time(hash_set: HashSet) -> None:
    path = hash_set.directory / "manifest.json"
    os.utime(path, ns=(2**62, 2**62))  # a clock that was far ahead
    hash_set.add_list("a", entries(1), TYPES)
    assert path.stat().st_mtime_ns > 2**62


def test_loading_again_keeps_the_segments_that_stayed(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(2, "a"), TYPES)
    first = hash_set.load()
    hash_set.add_list("b", entries(2, "b"), TYPES)
    second = hash_set.load(previous=first)
    assert second.segments[0] is first.segments[0]
    first.close()
    assert holds(second, "a1")
    assert holds(second, "b1")


def test_damage_on_the_disk_is_found_by_loading(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(50), TYPES)
    (path,) = hash_set.directory.glob("segment-*")
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(SegmentError, match=f"{path}: its section"):
        hash_set.load()
    hash_set.load(verify=False)
    path.write_bytes(data[:-1])
    with pytest.raises(SegmentError, match="in place of"):
        hash_set.load(verify=False)
    path.unlink()
    with pytest.raises(SegmentError, match="is missing; import the list again"):
        hash_set.load()
    hash_set.add_list("a", entries(1), TYPES, replace=True)
    assert holds(hash_set.load(), 0)


def test_a_sound_segment_of_another_list_is_not_taken(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(2, "a"), TYPES)
    hash_set.add_list("b", entries(2, "b"), TYPES)
    first, second = sorted(hash_set.directory.glob("segment-*"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(SegmentError, match="is not the file that the manifest names"):
        hash_set.load(verify=False)


def test_any_change_to_the_manifest_is_found(hash_set: HashSet) -> None:
    hash_set.add_list("secret-name", entries(2), TYPES)
    path = hash_set.directory / "manifest.json"
    data = path.read_bytes()
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(ManifestError, match=str(path)) as caught:
            HashSet.open(hash_set.directory)
        assert "secret-name" not in str(caught.value)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ManifestError):
            HashSet.open(hash_set.directory)
    path.write_bytes(data.replace(b'"format_version": 2', b'"format_version": 3'))
    with pytest.raises(ManifestError, match="format version is not 2"):
        HashSet.open(hash_set.directory)


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of))
HOSTILE = [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 10_000, b"null", b'{"format": "uploadguard hash set"}']


@given(st.binary() | JSON.map(json.dumps).map(str.encode) | st.sampled_from(HOSTILE))
def test_garbage_is_no_manifest(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "garbage"
    directory.mkdir(exist_ok=True)
    (directory / "manifest.json").write_bytes(data)
    with pytest.raises(ManifestError):
        HashSet.open(directory)


def test_a_manifest_cannot_name_files_elsewhere(hash_set: HashSet) -> None:
    hash_set.add_list("a", entries(1), TYPES)
    manifest = read_manifest(hash_set.directory).manifest
    for file in ("../segment", "/etc/passwd", "manifest.json", manifest.segments[0].file + "\n"):
        forged = manifest.segments[0].model_copy(update={"file": file})
        write_manifest(hash_set.directory, Manifest.model_construct(generation=1, segments=(forged,)))
        with pytest.raises(ManifestError, match="is altered"):
            HashSet.open(hash_set.directory)
    twice = manifest.next([manifest.segments[0]] * 2)
    write_manifest(hash_set.directory, twice)
    with pytest.raises(ManifestError, match="names a segment twice"):
        HashSet.open(hash_set.directory)


def test_leftovers_of_dead_writers_go_with_the_next_change_and_nothing_else(hash_set: HashSet) -> None:
    leftovers = [".segment-1-0123456789abcdef.ugs.aa.tmp", ".manifest.json.bb.tmp", "segment-9-0123456789abcdef.ugs"]
    for name in (*leftovers, "notes.txt"):
        (hash_set.directory / name).write_bytes(b"x")
    hash_set.add_list("a", entries(1), TYPES)
    assert files_of(hash_set) == expected_files(hash_set) | {"notes.txt"}


def test_leftovers_are_gone_before_an_import_needs_their_room(hash_set: HashSet) -> None:
    leftover = hash_set.directory / ".segment-1-0123456789abcdef.ugs.aa.tmp"
    leftover.write_bytes(b"x")

    def watching() -> Iterator[ListEntry]:
        assert not leftover.exists()
        yield entry(1)

    hash_set.add_list("a", watching(), TYPES)


def test_a_second_writer_waits_or_is_told_that_it_is_busy(hash_set: HashSet) -> None:
    impatient = HashSet.open(hash_set.directory, lock_timeout_s=0.05)
    with write_lock(hash_set.directory / "write.lock", 0):
        for change in (
            lambda: impatient.add_list("a", entries(1), TYPES),
            lambda: impatient.remove_list("a"),
        ):
            with pytest.raises(HashSetBusyError, match="another process has been changing the hash set"):
                change()
        assert impatient.generation == 0  # reading needs no lock
    impatient.add_list("a", entries(1), TYPES)


def test_the_lock_is_free_after_a_failure(hash_set: HashSet) -> None:
    with pytest.raises(EmptyListError):
        hash_set.add_list("a", [], TYPES)
    HashSet.open(hash_set.directory, lock_timeout_s=0).add_list("a", entries(1), TYPES)


def test_an_update_that_changes_nothing_and_a_rollback_count_as_tending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a feed without news would make the hash set stale, and so would going back."""
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(3), TYPES)
    hash_set.add_list("b", entries(3), TYPES)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return later

    monkeypatch.setattr(manifest_module, "datetime", Later)

    def tended() -> dict[str, bool]:
        return {info.name: info.updated_at == later for info in hash_set.load().lists}

    assert tended() == {"a": False, "b": False}
    before = hash_set.previous_generations
    update = hash_set.update_list("a", (), ["not there"], TYPES)
    assert (update.removed, update.info.updated_at) == (0, later)
    assert tended() == {"a": True, "b": False}
    assert hash_set.previous_generations == before, "nothing to go back to is lost"
    hash_set.add_list("c", entries(3), TYPES)
    assert tended() == {"a": True, "b": False, "c": False}, "it is carried on"
    hash_set.rollback()
    assert tended() == {"a": True, "b": True}
    hash_set.remove_list("a")
    assert "a" not in read_manifest(hash_set.directory).manifest.confirmed
