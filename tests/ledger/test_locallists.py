"""The local lists: each host's hash set comes up to what the ledger says, whatever happens on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from uploadguard.config import Settings
from uploadguard.errors import HashSetWriteError
from uploadguard.hashset import HashSet, ListInfo
from uploadguard.ledger import schema
from uploadguard.ledger.database import Database, open_database
from uploadguard.ledger.locallists import apply_local_lists
from uploadguard.lists.base import ListEntry
from uploadguard.lists.local import CONFIRMED_LIST, DISMISSED_LIST
from uploadguard.models import Hash
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.storage.keys import Keys, write_key_file

KINDS = lookup_kinds((*DIGESTS, Pdq()))


@pytest.fixture
def hashset(settings: Settings) -> HashSet:
    return HashSet.create(settings.hashset.path, keep_previous=8)


def change(database: Database, *changes: str, list_name: str = CONFIRMED_LIST) -> None:
    """Put changes into the ledger: an entry's id, with a ``-`` before it where it is taken back."""
    now = datetime.now(UTC)
    rows = [
        {
            "list_name": list_name,
            "entry_id": name.removeprefix("-"),
            "hashes": [] if name.startswith("-") else [["sha256", sha256(name).hex()], ["pdq", sha256(name).hex()]],
            "removed": name.startswith("-"),
            "case_id": 1,
            "actor": "ann",
            "at": now,
        }
        for name in changes
    ]
    with database.writing() as connection:
        connection.execute(sa.insert(schema.local_entries), rows)


def sha256(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def entries(hashset: HashSet, *names: str, list_name: str = CONFIRMED_LIST) -> list[str]:
    """Which of these are in the list, by look-up of their digests."""
    generation = hashset.load()
    matches = generation.match([Hash("sha256", sha256(name)) for name in names], {"sha256": 0})
    found = [match.entry_id for match in matches if match.list_name == list_name]
    assert len(found) == len(set(found))
    return sorted(found)


def info(hashset: HashSet, name: str = CONFIRMED_LIST) -> ListInfo:
    return next(one for one in hashset.lists() if one.name == name)


def test_both_lists_come_with_their_roles(database: Database, hashset: HashSet) -> None:
    assert not apply_local_lists(database, hashset, KINDS)
    assert hashset.generation == 0
    change(database, "a", "b")
    change(database, "c", list_name=DISMISSED_LIST)
    assert apply_local_lists(database, hashset, KINDS)
    confirmed, dismissed = hashset.lists()
    assert (confirmed.name, confirmed.role, dict(confirmed.hashes)) == (CONFIRMED_LIST, "deny", {"sha256": 2, "pdq": 2})
    assert (dismissed.name, dismissed.role, dismissed.entries) == (DISMISSED_LIST, "allow", 1)
    (match,) = hashset.load().match([Hash("sha256", sha256("a"))], {"sha256": 0})
    assert (match.entry_id, match.category, match.allow) == ("a", "confirmed", False)
    (match,) = hashset.load().match([Hash("sha256", sha256("c"))], {"sha256": 0})
    assert (match.entry_id, match.category, match.allow) == ("c", "dismissed", True)


def test_a_second_time_changes_nothing(database: Database, hashset: HashSet) -> None:
    change(database, "a")
    assert apply_local_lists(database, hashset, KINDS)
    generation = hashset.generation
    assert not apply_local_lists(database, hashset, KINDS)
    assert hashset.generation == generation


def test_entries_go_and_come_again(database: Database, hashset: HashSet) -> None:
    change(database, "a", "b")
    apply_local_lists(database, hashset, KINDS)
    change(database, "-a", "c")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["b", "c"]
    change(database, "a", "-b", "b", "-c", "d", "-d")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c", "d") == ["a", "b"]
    change(database, "-a", "-b")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c", "d") == []
    assert info(hashset).entries == 0
    change(database, "a")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b") == ["a"]


def test_what_came_and_went_in_between_changes_nothing(database: Database, hashset: HashSet) -> None:
    change(database, "x", "-x")
    for _ in range(2):
        assert not apply_local_lists(database, hashset, KINDS)
        assert hashset.generation == 0
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    generation = hashset.generation
    change(database, "y", "-y")
    for _ in range(2):
        assert not apply_local_lists(database, hashset, KINDS)
        assert hashset.generation == generation


def test_a_generation_that_is_rolled_back_is_brought_forward(database: Database, hashset: HashSet) -> None:
    hashset.add_list("other", [ListEntry("o", (("sha256", sha256("o")),))], KINDS)
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    change(database, "b", "-a")
    apply_local_lists(database, hashset, KINDS)
    hashset.add_list("another", [ListEntry("o", (("sha256", sha256("o")),))], KINDS)
    change(database, "c")
    apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["b", "c"]
    hashset.rollback()  # to before "another", with the local list of then
    assert entries(hashset, "a", "b", "c") == ["b"]
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["b", "c"]
    hashset.rollback(0)  # before there was a local list
    assert hashset.lists() == ()
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["b", "c"]


def test_no_generation_to_go_back_to_is_pushed_out(database: Database, hashset: HashSet) -> None:
    for name in ("first", "second"):
        hashset.add_list(name, [ListEntry("o", (("sha256", sha256("o")),))], KINDS)
    before = hashset.previous_generations
    for number in range(12):
        change(database, f"e{number}")
        assert apply_local_lists(database, hashset, KINDS)
    assert hashset.previous_generations == before == (1, 0)
    hashset.rollback()
    assert [one.name for one in hashset.lists()] == ["first"]
    apply_local_lists(database, hashset, KINDS)
    assert info(hashset).entries == 12


def test_compaction_keeps_how_far_a_list_is(database: Database, hashset: HashSet) -> None:
    for number in range(40):  # enough for segments to be merged by themselves
        change(database, f"e{number}", f"-e{number - 3}")
        apply_local_lists(database, hashset, KINDS)
    hashset.compact()
    assert info(hashset).segments == 1
    assert not apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, *(f"e{number}" for number in range(40))) == ["e37", "e38", "e39"]


@pytest.mark.parametrize("role", ["deny", "allow"])
def test_a_list_that_somebody_put_in_its_place_is_replaced(database: Database, hashset: HashSet, role: Any) -> None:
    hashset.add_list(CONFIRMED_LIST, [ListEntry("z", (("sha256", sha256("z")),))], KINDS, role=role, source="z.csv")
    assert not apply_local_lists(database, hashset, KINDS)
    change(database, "a", "b", "-a")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "z") == ["b"]
    assert info(hashset).role == "deny"


def test_a_list_that_was_removed_comes_back(database: Database, hashset: HashSet) -> None:
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    hashset.remove_list(CONFIRMED_LIST)
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a") == ["a"]


def test_a_list_of_another_ledger_is_built_anew(database: Database, hashset: HashSet) -> None:
    """As after a restore: the same numbers are other changes."""
    change(database, "a", "b")
    apply_local_lists(database, hashset, KINDS)
    with database.writing() as connection:
        connection.execute(sa.delete(schema.local_entries))
        row = {"list_name": CONFIRMED_LIST, "hashes": [["sha256", sha256("n").hex()]], "case_id": 1}
        row |= {"actor": "ann", "at": datetime.now(UTC)}
        connection.execute(sa.insert(schema.local_entries), [row | {"seq": n, "entry_id": "n"} for n in (1, 2, 3)])
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "n") == ["n"]
    with database.writing() as connection:  # older than the hash set
        connection.execute(sa.delete(schema.local_entries).where(schema.local_entries.c.seq > 1))
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "n") == ["n"]
    assert not apply_local_lists(database, hashset, KINDS)


def test_a_list_of_which_nothing_is_left_in_the_ledger_goes(database: Database, hashset: HashSet) -> None:
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    with database.writing() as connection:
        connection.execute(sa.delete(schema.local_entries))
    change(database, "b", "-b")
    assert apply_local_lists(database, hashset, KINDS)
    assert hashset.lists() == ()
    assert not apply_local_lists(database, hashset, KINDS)


def test_hashes_that_this_host_does_not_know_are_left_out(database: Database, hashset: HashSet) -> None:
    digests = lookup_kinds(DIGESTS)
    change(database, "a", "b")
    apply_local_lists(database, hashset, digests)
    assert dict(info(hashset).hashes) == {"sha256": 2}
    change(database, "-a", "c")
    apply_local_lists(database, hashset, KINDS)
    assert dict(info(hashset).hashes) == {"sha256": 2, "pdq": 1}


def test_hashes_that_are_looked_up_in_another_way_now(database: Database, hashset: HashSet) -> None:
    change(database, "a")
    apply_local_lists(database, hashset, KINDS | {"pdq": (32, 0)})
    change(database, "b")
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b") == ["a", "b"]


def test_an_encrypted_hash_set(database: Database, tmp_path: Path) -> None:
    hashset = HashSet.create(tmp_path / "encrypted", keys=Keys([write_key_file(tmp_path / "key")]))
    for names in (("a",), ("b", "-a")):
        change(database, *names)
        assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b") == ["b"]


def test_ten_thousand_entries(database: Database, hashset: HashSet) -> None:
    names = [f"e{number}" for number in range(10_000)]
    change(database, *names[:9000], *(f"-{name}" for name in names[:500]))
    apply_local_lists(database, hashset, KINDS)
    assert info(hashset).entries == 8500
    change(database, *names[9000:], *(f"-{name}" for name in names[500:1500]), names[0])
    apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, *names) == sorted([names[0], *names[1500:]])


def test_many_at_once(database: Database, hashset: HashSet) -> None:
    """Threads with hash sets of their own, as processes have; changes come while they apply."""
    sets = [HashSet.open(hashset.directory) for _ in range(4)]

    def bring_forward(own: HashSet) -> None:
        for _ in range(12):
            apply_local_lists(database, own, KINDS)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(bring_forward, own) for own in sets]
        for number in range(12):
            change(database, f"e{number}", f"-e{number - 1}")
        for one in running:
            one.result()
    apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, *(f"e{number}" for number in range(12))) == ["e11"]
    assert not apply_local_lists(database, hashset, KINDS)


def test_nothing_is_written_over_what_another_has_just_done(
    database: Database, hashset: HashSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looks, another one goes ahead further, then the first one writes."""
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    change(database, "b")
    update_list, calls = hashset.update_list, []

    def late(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            change(database, "-b", "c")
            assert apply_local_lists(database, HashSet.open(hashset.directory), KINDS)
        return update_list(*args, **options)

    monkeypatch.setattr(hashset, "update_list", late)
    assert not apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["a", "c"]
    add_list = hashset.add_list
    hashset.remove_list(CONFIRMED_LIST)

    def late_too(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(hashset, "add_list", add_list)
        assert apply_local_lists(database, HashSet.open(hashset.directory), KINDS)
        return add_list(*args, **options)

    monkeypatch.setattr(hashset, "add_list", late_too)
    assert not apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b", "c") == ["a", "c"]


def test_a_disk_that_refuses_leaves_all_as_it_was(
    database: Database, hashset: HashSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(database, "a")
    apply_local_lists(database, hashset, KINDS)
    change(database, "b")
    with monkeypatch.context() as patched:

        def refused(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", refused)
        with pytest.raises(HashSetWriteError):
            apply_local_lists(database, hashset, KINDS)
    assert apply_local_lists(database, hashset, KINDS)
    assert entries(hashset, "a", "b") == ["a", "b"]


def apply_for_ever(settings_path: Path, url: str | None, directory: Path) -> None:
    settings = Settings.load(ledger={"path": settings_path, **({"url": url} if url else {})})
    database, hashset = open_database(settings), HashSet.open(directory)
    while True:
        apply_local_lists(database, hashset, KINDS)


def test_killed_anywhere(settings: Settings, database: Database, hashset: HashSet) -> None:
    context = multiprocessing.get_context("forkserver")
    number = 0
    for kill in range(8):
        arguments = (settings.ledger.path, settings.ledger.url, hashset.directory)
        process = context.Process(target=apply_for_ever, args=arguments)
        process.start()
        until = time.monotonic() + 0.4 + 0.05 * kill
        while time.monotonic() < until:
            number += 1
            change(database, f"e{number}", f"-e{number - 2}")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert hashset.verify().problems == ()
    apply_local_lists(database, hashset, KINDS)
    names = [f"e{one}" for one in range(number + 1)]
    assert entries(hashset, *names) == sorted([f"e{number - 1}", f"e{number}"])
