"""The file drop: one line a record, once each, whatever dies and whatever the disk does."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.destinations.tasks import SHA256, made_up_task
from tests.effort import tries
from uploadguard.actions import Task
from uploadguard.destinations.file import FileDrop, read_records, rotated
from uploadguard.errors import LeaseLostError, PostponedError
from uploadguard.testing.journal import ScriptedJournal, WorkerDied


def drop(path: Path, **options: Any) -> FileDrop:
    return FileDrop("drop", {"kind": "file", "path": str(path), **options})


def deliver(action: FileDrop, task: Task) -> None:
    assert action.deliver(task, ScriptedJournal(task)).facts == {"written": not task.cancelled}


def keys(path: Path) -> list[str]:
    return [record["data"]["key"] for file in [*rotated(path), path] for record in read_records(file)]


class TestRecords:
    def test_one_line_each_that_only_the_owner_reads(self, tmp_path: Path) -> None:
        path, tasks = tmp_path / "a.jsonl", [made_up_task() for _ in range(3)]
        for task in tasks:
            deliver(drop(path), task)
        lines = path.read_bytes().splitlines()
        assert [json.loads(line)["data"]["key"] for line in lines] == [task.key for task in tasks] == keys(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_what_stands_in_a_record(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task(case_id=7)
        deliver(drop(path), task)
        (record,) = read_records(path)
        assert (record["schema"], record["type"]) == (1, "uploadguard.report")
        assert record["timestamp"] == "2026-03-01T12:30:00+00:00"
        data = record["data"]
        assert (data["key"], data["case_id"], data["viewed"]) == (task.key, 7, False)
        assert data["decision"]["verdict"] == "block"
        assert data["decision"]["matches"][0]["entry_id"] == "entry-1"
        assert data["context"]["uploader"] == "somebody"
        assert SHA256[:16].hex() not in path.read_text()

    def test_hashes_only_when_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        deliver(drop(path, hashes=True), made_up_task())
        (record,) = read_records(path)
        assert {one["signal_type"]: one["value"] for one in record["data"]["decision"]["hashes"]}[
            "sha256"
        ] == SHA256.hex()
        assert record["data"]["decision"]["matches"][0]["fields"] == {"md5": SHA256[:16].hex()}

    def test_a_task_that_was_taken_back_is_not_written(self, tmp_path: Path) -> None:
        deliver(drop(tmp_path / "a.jsonl"), made_up_task(cancelled=True))
        assert not (tmp_path / "a.jsonl").exists()


class TestOnce:
    def test_a_repetition_writes_nothing(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        journal = ScriptedJournal(task)
        drop(path).deliver(task, journal)
        deliver(drop(path), made_up_task())
        drop(path).deliver(journal.next_attempt(), journal)
        assert keys(path).count(task.key) == 1

    def test_a_repetition_looks_into_full_files_too(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        journal = ScriptedJournal(task)
        drop(path, max_bytes=1).deliver(task, journal)
        for _ in range(12):
            deliver(drop(path, max_bytes=1), made_up_task())
        drop(path, max_bytes=1).deliver(journal.next_attempt(), journal)
        assert keys(path).count(task.key) == 1
        assert len(keys(path)) == 13

    def test_it_does_not_read_what_was_there_before_the_first_attempt(self, tmp_path: Path) -> None:
        """The same key again with a fresh journal is not found: what stood there is not read, however long it is."""
        path, task = tmp_path / "a.jsonl", made_up_task()
        deliver(drop(path), task)
        deliver(drop(path), task)
        assert keys(path) == [task.key, task.key]

    def test_a_worker_that_was_too_slow_writes_nothing_after_the_other(self, tmp_path: Path) -> None:
        path, task, action = tmp_path / "a.jsonl", made_up_task(), drop(tmp_path / "a.jsonl")

        class Overtaken(ScriptedJournal):
            def note(self, **facts: Any) -> None:
                super().note(**facts)
                action.deliver(self.next_attempt(), self)

        action.deliver(task, Overtaken(task))
        assert keys(path) == [task.key]

    def test_a_lost_lease_ends_it(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        journal = ScriptedJournal(task)
        journal.fail_at(0, LeaseLostError("lost"))
        with pytest.raises(LeaseLostError):
            drop(path).deliver(task, journal)
        assert keys(path) == []

    def test_a_file_that_was_taken_away_is_begun_anew(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        journal = ScriptedJournal(task)
        journal.fail_at(0, committed=True)
        with pytest.raises(WorkerDied):
            drop(path).deliver(task, journal)
        journal.fail_at(None)
        path.rename(tmp_path / "taken")
        drop(path).deliver(journal.next_attempt(), journal)
        assert keys(path) == [task.key]


class TestTornLines:
    @pytest.mark.parametrize("tail", [b'{"data":{"key":"x"', b"\0" * 4096, b"{}", b'"', b"\xff\xfe", b"\n\n"])
    def test_what_a_crash_left_is_closed_and_passed_over(self, tmp_path: Path, tail: bytes) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        path.write_bytes(tail)
        deliver(drop(path), task)
        assert keys(path) == [task.key]
        assert path.read_bytes().startswith(tail)

    def test_a_line_without_its_end_is_no_record_yet(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        deliver(drop(path), task)
        path.write_bytes(path.read_bytes()[:-1])
        assert keys(path) == []

    def test_a_record_that_lacks_nothing_but_its_end_counts_for_a_repetition(self, tmp_path: Path) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        journal = ScriptedJournal(task)
        drop(path).deliver(task, journal)
        path.write_bytes(path.read_bytes()[:-1])
        drop(path).deliver(journal.next_attempt(), journal)
        assert keys(path) == [task.key]


class TestRotation:
    def test_nothing_is_lost_and_the_order_is_kept(self, tmp_path: Path) -> None:
        path, tasks = tmp_path / "a.jsonl", [made_up_task() for _ in range(40)]
        action = drop(path, max_bytes=4000)
        for task in tasks:
            deliver(action, task)
        assert len(rotated(path)) > 5
        assert [file.name for file in rotated(path)][:3] == ["a.jsonl.1", "a.jsonl.2", "a.jsonl.3"]
        assert keys(path) == [task.key for task in tasks]
        assert all(file.stat().st_size <= 4000 for file in [*rotated(path), path])

    def test_a_name_is_not_used_twice_as_long_as_the_last_file_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        for number in (7, 12):
            (tmp_path / f"a.jsonl.{number}").write_bytes(b"")
        (tmp_path / "a.jsonl.013").write_bytes(b"")
        for _ in range(2):
            deliver(drop(path, max_bytes=1), made_up_task())
        assert [file.name for file in rotated(path)] == ["a.jsonl.7", "a.jsonl.12", "a.jsonl.13"]

    def test_threads_and_many_files(self, tmp_path: Path) -> None:
        path, tasks = tmp_path / "a.jsonl", [made_up_task() for _ in range(200)]
        actions = [drop(path, max_bytes=3000) for _ in range(4)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: deliver(actions[item[0] % 4], item[1]), enumerate(tasks)))
        assert sorted(keys(path)) == sorted(task.key for task in tasks)


class TestDisk:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
    @pytest.mark.parametrize("call", ["write", "fsync"])
    def test_what_the_disk_refuses_is_postponed_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
    ) -> None:
        path, task = tmp_path / "a.jsonl", made_up_task()
        deliver(drop(path), made_up_task())
        before = path.read_bytes()
        original: Callable[..., Any] = getattr(os, call)

        def refuse(descriptor: int, *rest: Any) -> Any:
            if call == "write" and len(rest[0]) > 100:
                return original(descriptor, rest[0][:100])
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, call, refuse)
        journal = ScriptedJournal(task)
        with pytest.raises(PostponedError, match=os.strerror(error)) as caught:
            drop(path).deliver(task, journal)
        assert caught.value.outage
        assert path.read_bytes() == before
        monkeypatch.undo()
        drop(path).deliver(journal.next_attempt(), journal)
        assert keys(path)[1:] == [task.key]

    def test_a_missing_directory_is_postponed(self, tmp_path: Path) -> None:
        with pytest.raises(PostponedError, match="No such file"):
            deliver(drop(tmp_path / "missing" / "a.jsonl"), made_up_task())

    def test_a_pipe_is_not_written_to(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jsonl")
        with pytest.raises(PostponedError, match="not a regular file"):
            deliver(drop(tmp_path / "a.jsonl"), made_up_task())


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.destinations.test_file"])


class _PipeJournal(ScriptedJournal):
    """Tells the parent what it keeps, which counts as committed."""

    def __init__(self, task: Task, pipe: Connection) -> None:
        super().__init__(task)
        self._pipe = pipe

    def note(self, **facts: Any) -> None:
        super().note(**facts)
        self._pipe.send(("note", self.task.key, dict(self.task.notes)))


def _append_until_killed(pipe: Connection, path: Path, waiting: dict[str, dict[str, Any]], seed: int) -> None:
    """Every second time, die in the midst of a write: a part of it reaches the file."""
    chance = random.Random(seed)
    left = chance.randrange(1, 20) if seed % 2 else -1
    write = os.write

    def torn(descriptor: int, data: Any) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            write(descriptor, data[: chance.randrange(len(data) + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data)

    if threading.current_thread() is threading.main_thread():
        os.write = torn
    action = drop(path, max_bytes=20_000)
    for key, notes in waiting.items():
        task = made_up_task(key=key, notes=notes)
        action.deliver(task, _PipeJournal(task, pipe))
        pipe.send(("done", key, {}))


def test_killed_again_and_again_no_record_is_lost_torn_or_doubled(tmp_path: Path) -> None:
    """Two writers at once, of which one is killed at a random moment, over and over."""
    path, chance = tmp_path / "a.jsonl", random.Random(11)
    acknowledged: set[str] = set()
    waiting: list[dict[str, dict[str, Any]]] = [{}, {}]
    children: list[Any] = [None, None]

    def drain(which: int) -> None:
        pipe = children[which][1]
        while True:
            try:
                kind, key, notes = pipe.recv()
            except EOFError:
                break
            if kind == "done":
                acknowledged.add(key)
                del waiting[which][key]
            else:
                waiting[which][key] = notes

    def start(which: int, seed: int) -> None:
        for _ in range(40 - len(waiting[which])):
            waiting[which][made_up_task().key] = {}
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_append_until_killed, args=(theirs, path, waiting[which], seed))
        process.start()
        theirs.close()
        children[which] = (process, ours)

    kills = 0
    for round_ in range(tries(40)):
        which = round_ % 2
        if children[which] is not None:
            process, pipe = children[which]
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            drain(which)
            pipe.close()
        start(which, round_ // 2)
        children[which][1].poll(30)  # it is at work, however slow the machine is
        time.sleep(chance.random() * 0.02)
    for which, (process, _) in enumerate(children):
        process.kill()
        process.join()
        drain(which)
    found = keys(path)
    assert kills > tries(40) / 4
    assert len(acknowledged) > tries(40) / 4
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    assert set(found) <= acknowledged | {key for side in waiting for key in side}
