"""Any sequence of changes gives what a plain dictionary gives, and only that is on the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.hashset.made_up import distances_bits, expected_files, files_of, flip_bits, value
from uploadguard.errors import ListError, UnknownListError
from uploadguard.hashset import Generation, HashSet, compaction
from uploadguard.lists.base import ListEntry
from uploadguard.models import Hash

TYPES = {"md5": (16, 0), "sha256": (32, 0), "pdq": (32, 31)}
POOL = [(name, value(name, seed)) for name in TYPES for seed in range(5)]
# Some that are near others.
POOL += [("pdq", flip_bits(value("pdq", 0), 5)), ("pdq", flip_bits(value("pdq", 1), *range(31)))]

ASKED = POOL + [("pdq", flip_bits(code, 250)) for name, code in POOL if name == "pdq"]
DISTANCES = {
    (frame, name, code): int(distances_bits(np.frombuffer(code, np.uint8)[None], np.frombuffer(asked, np.uint8))[0])
    for frame, (signal, asked) in enumerate(ASKED)
    for name, code in POOL
    if name == signal
}

NAMES = st.sampled_from(["a", "b"])
IDS = st.sampled_from([f"id-{number}" for number in range(12)] + ["", "é\ud800"])
HASHES = st.lists(st.sampled_from(POOL), max_size=3, unique=True).map(tuple)
ENTRIES = st.lists(st.builds(ListEntry, IDS, HASHES), max_size=8)

Listed = tuple[str, tuple[tuple[str, bytes], ...]]


class Changes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.merging_early = mock.patch.object(compaction, "_SEGMENTS", 2)
        self.merging_early.start()
        self.directory = Path(tempfile.mkdtemp())
        self.keep = 2
        self.hash_set = HashSet.create(self.directory / "set", keep_previous=self.keep)
        self.model: dict[str, list[Listed]] = {}
        self.previous: list[tuple[int, dict[str, list[Listed]]]] = []
        self.loaded: Generation | None = None

    def teardown(self) -> None:
        self.merging_early.stop()
        shutil.rmtree(self.directory)

    def changed(self, model: dict[str, list[Listed]], before: int) -> None:
        """The model after a change that made one generation, numbered after ``before``."""
        assert self.hash_set.generation == before + 1
        self.previous = [(before, self.model), *self.previous][: self.keep]
        self.model = model

    @rule(name=NAMES, entries=ENTRIES, how=st.sampled_from(["new", "replace", "append"]))
    def add(self, name: str, entries: list[ListEntry], how: str) -> None:
        before = self.hash_set.generation
        listed = [(entry.entry_id, entry.hashes) for entry in entries if entry.hashes]
        options = {} if how == "new" else {how: True}
        if not listed or (how == "new" and name in self.model):
            with pytest.raises(ListError):
                self.hash_set.add_list(name, entries, TYPES, **options)
            assert self.hash_set.generation == before
            return
        self.hash_set.add_list(name, entries, TYPES, **options)
        model = deepcopy(self.model)
        model[name] = (model.get(name, []) if how == "append" else []) + listed
        self.changed(model, before)

    @rule(name=NAMES, added=ENTRIES, removed=st.lists(IDS, max_size=4))
    def update(self, name: str, added: list[ListEntry], removed: list[str]) -> None:
        before = self.hash_set.generation
        if name not in self.model:
            with pytest.raises(UnknownListError):
                self.hash_set.update_list(name, added, removed, TYPES)
            return
        ended = {*removed, *(entry.entry_id for entry in added)}
        kept = [item for item in self.model[name] if item[0] not in ended]
        new = {entry.entry_id: entry.hashes for entry in added}
        listed = kept + [(entry_id, hashes) for entry_id, hashes in new.items() if hashes]
        update = self.hash_set.update_list(name, added, removed, TYPES)
        assert (update.added, update.removed) == (len(listed) - len(kept), len(self.model[name]) - len(kept))
        if not update.added and not update.removed and not any(entry.hashes for entry in added):
            assert self.hash_set.generation == update.generation == before + 1, "confirmed, with all to go back to"
        else:
            self.changed({**self.model, name: listed}, before)

    @rule(name=NAMES, purge=st.booleans())
    def remove(self, name: str, purge: bool) -> None:
        if name not in self.model:
            return
        before = self.hash_set.generation
        self.hash_set.remove_list(name, purge=purge)
        self.changed({other: listed for other, listed in self.model.items() if other != name}, before)
        if purge:
            self.previous = []

    @rule(keep_previous=st.booleans())
    def compact(self, keep_previous: bool) -> None:
        done = self.hash_set.compact(keep_previous=keep_previous)
        assert done.generation == self.hash_set.generation
        assert all((info.segments, info.dead_entries) == (1, 0) for info in self.hash_set.lists())
        if not keep_previous:
            self.previous = []

    @precondition(lambda self: self.previous)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        before = self.hash_set.generation
        number, model = data.draw(st.sampled_from(self.previous))
        latest = number == self.previous[0][0]
        assert self.hash_set.rollback(None if latest and data.draw(st.booleans()) else number) == before + 1
        self.previous = [item for item in self.previous if item[0] != number]
        self.changed(model, before)

    @rule()
    def reopen(self) -> None:
        self.hash_set = HashSet.open(self.hash_set.directory, keep_previous=self.keep)
        self.loaded = None

    @invariant()
    def matches_are_the_brute_force(self) -> None:
        self.loaded = self.hash_set.load(previous=self.loaded)
        matches = self.loaded.match([Hash(name, code, frame=n) for n, (name, code) in enumerate(ASKED)], {"pdq": 31})
        found = Counter(
            (match.list_name, match.entry_id, match.signal_type, match.frame, match.distance_bits) for match in matches
        )
        assert found == brute_force(self.model)

    @invariant()
    def counts_are_right(self) -> None:
        infos = {info.name: info for info in self.hash_set.lists()}
        assert set(infos) == set(self.model)
        for name, listed in self.model.items():
            assert infos[name].entries == len(listed)
            assert infos[name].hashes == Counter(signal for _, hashes in listed for signal, _ in hashes)

    @invariant()
    def the_disk_is_clean(self) -> None:
        assert files_of(self.hash_set) == expected_files(self.hash_set)
        assert list(self.hash_set.previous_generations) == [number for number, _ in self.previous]
        assert self.hash_set.verify().ok


def brute_force(model: dict[str, list[Listed]]) -> Counter[object]:
    expected: Counter[object] = Counter()
    for list_name, listed in model.items():
        for entry_id, hashes in listed:
            for frame, (name, _) in enumerate(ASKED):
                near = min((DISTANCES[frame, signal, mine] for signal, mine in hashes if signal == name), default=256)
                if near <= TYPES[name][1]:
                    expected[list_name, entry_id, name, frame, near] += 1
    return expected


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
