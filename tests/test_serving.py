"""When a new generation serves: with checks, without, in the first one, after a refused one, in forked children."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hashset.made_up import TYPES, entries, entry, holds
from uploadguard import serving as serving_module
from uploadguard.hashset import HashSet, Segment
from uploadguard.serving import Serving


@pytest.fixture
def hash_set(tmp_path: Path) -> HashSet:
    """A hash set of the list "a" with entries 0 to 9."""
    hash_set = HashSet.create(tmp_path / "set")
    hash_set.add_list("a", entries(10), TYPES)
    return hash_set


class Serve:
    """Opens what serves, and tells when it changed."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.changed = threading.Event()
        self.opened: list[Serving] = []

    def __call__(self, hash_set: HashSet, refresh_s: float) -> Serving:
        serving = Serving(
            HashSet.open(hash_set.directory), verify=True, refresh_s=refresh_s, signal_types=TYPES, changed=self._note
        )
        self.opened.append(serving)
        return serving

    def _note(self, number: int) -> None:
        self.numbers.append(number)
        self.changed.set()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Closes what it opened."""
    serve = Serve()
    yield serve
    for serving in serve.opened:
        serving.close()


def change(hash_set: HashSet, number: int) -> None:
    hash_set.update_list("a", [entry(f"new{number}")], [f"id-{number}"], TYPES)


def watchers() -> int:
    """How many there are now, without those of other tests' Guards."""
    return sum(thread.name == "uploadguard-refresh" for thread in set(threading.enumerate()) - _OTHERS)


_OTHERS: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Guards of other tests may still have theirs."""
    _OTHERS.clear()
    _OTHERS.update(threading.enumerate())


def test_the_first_check_is_answered_by_what_is_on_disk_then(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 3600)
    change(hash_set, 0)
    assert serving.loaded.generation.number == 1
    assert watchers() == 0, "a process that only opens it, and forks, has no thread"
    assert serving.current().generation.number == 2
    assert serve.numbers == [2]
    assert watchers() == 1


def test_without_any_check_the_new_generation_is_there(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 0.01)
    serving.current()
    change(hash_set, 0)
    assert serve.changed.wait(30)
    assert holds(serving.loaded.generation, "new0")
    assert not holds(serving.loaded.generation, 0)


def test_with_no_refresh_nothing_is_looked_for(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 0)
    change(hash_set, 0)
    assert serving.current().generation.number == 1
    assert watchers() == 0
    assert serving.refresh()
    assert serving.current().generation.number == 2


def test_a_delta_opens_its_own_segment_only(hash_set: HashSet, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = serve(hash_set, 3600)
    opened: list[Path] = []
    read: list[Segment] = []
    real_open, real_check = Segment.open.__func__, Segment._check_section  # type: ignore[attr-defined]

    def noted(cls: type[Segment], path: Path, **options: object) -> Segment:
        opened.append(path)
        return real_open(cls, path, **options)

    monkeypatch.setattr(Segment, "open", classmethod(noted))
    change(hash_set, 0)
    newest = serving._hashset._files.read().segments[-1].file
    opened.clear()
    monkeypatch.setattr(Segment, "_check_section", lambda self, name: read.append(self) or real_check(self, name))
    serving.current()
    assert [path.name for path in opened] == [newest]
    assert {segment.path.name for segment in read if segment.path} == {newest}


def test_a_refused_generation_is_said_once_and_read_again_later(
    hash_set: HashSet, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serving = serve(hash_set, 3600)
    change(hash_set, 0)
    path = hash_set.directory / serving._hashset._files.read().segments[-1].file
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    loads: list[int] = []
    real_load = HashSet.load
    monkeypatch.setattr(HashSet, "load", lambda self, **options: loads.append(1) or real_load(self, **options))
    for _ in range(3):
        serving.look()
        assert serving.current().generation.number == 1
    assert len(loads) == 2, "one by the first check, one before it"
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert str(path) in str(serving.last_error)
    path.write_bytes(data)
    serving.look()
    assert serving.current().generation.number == 1
    monkeypatch.setattr(serving_module, "_RETRY_S", 0)
    serving.look()
    assert serving.current().generation.number == 2
    assert serving.last_error is None
    change(hash_set, 1)
    serving.look()
    assert serving.current().generation.number == 3


def test_a_newer_generation_is_tried_at_once(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 3600)
    change(hash_set, 0)
    path = hash_set.directory / serving._hashset._files.read().segments[-1].file
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    serving.look()
    path.write_bytes(data)
    hash_set.add_list("b", entries(1, "b"), TYPES)
    serving.look()
    assert serving.current().generation.number == 3


def test_the_watcher_ends_with_its_owner(hash_set: HashSet) -> None:
    def wait_for(ended: Callable[[], bool]) -> bool:
        return any(ended() or threading.Event().wait(0.01) for _ in range(3000))

    closed, forgotten = (
        Serving(
            HashSet.open(hash_set.directory),
            verify=True,
            refresh_s=0.01,
            signal_types=TYPES,
            changed=lambda number: None,
        )
        for _ in range(2)
    )
    closed.current()
    forgotten.current()
    assert watchers() == 2
    closed.close()
    assert wait_for(lambda: watchers() == 1)
    closed.current()
    assert watchers() == 1, "nothing starts it anew"
    del forgotten
    assert wait_for(lambda: watchers() == 0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_watches_by_itself(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 0.01)
    serving.current()
    serve.changed.clear()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            serving.after_fork()
            os.read(reader, 1)
            ok = serving.current().generation.number == 2  # by itself
            serve.changed.clear()
            change(hash_set, 1)
            os._exit(0 if ok and serve.changed.wait(30) and holds(serving.loaded.generation, "new1") else 1)
        finally:
            os._exit(2)
    change(hash_set, 0)
    os.write(writer, b"x")
    assert os.waitpid(pid, 0)[1] == 0


def test_a_manifest_that_was_away_and_came_back_is_no_trouble_any_more(hash_set: HashSet, serve: Serve) -> None:
    serving = serve(hash_set, 0)
    manifest = hash_set.directory / "manifest.json"
    away = manifest.rename(manifest.with_suffix(".away"))
    assert not serving.refresh()
    assert serving.last_error is not None
    away.rename(manifest)
    assert not serving.refresh()
    assert serving.last_error is None
