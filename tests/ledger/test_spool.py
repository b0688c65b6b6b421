"""The spool keeps what it acknowledged, whoever dies, and hands over nothing that was not whole."""

from __future__ import annotations

import os
import signal
import stat
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.errors import LedgerDownError, LedgerError, NotRecordedError
from uploadguard.ledger.spool import Record, Spool


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class Taken:
    """Takes what is drained."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __call__(self, records: Sequence[Record]) -> None:
        self.records += records

    @property
    def numbers(self) -> list[int]:
        return sorted(record["n"] for record in self.records)


def test_what_is_appended_is_drained_once(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    for n in range(150):
        spool.append({"n": n, "text": "\u20ac"})
    assert spool.status().files == 1
    assert spool.drain(taken) == 150
    assert taken.numbers == list(range(150))
    assert spool.drain(taken) == 0
    assert list(directory.iterdir()) == []
    spool.append({"n": 1})
    assert spool.drain(taken) == 1


def test_only_the_owner_can_read_it(directory: Path) -> None:
    spool = Spool(directory)
    spool.append({"n": 1})
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    spool.close()


def test_another_process_drains_only_what_is_let_go(directory: Path) -> None:
    writer, other, taken = Spool(directory), Spool(directory), Taken()
    writer.append({"n": 1})
    assert other.drain(taken) == 0
    writer.close()
    assert other.drain(taken) == 1


def test_a_forked_child_does_not_write_into_its_parents_file(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    spool.append({"n": 1})
    pid = os.fork()
    if pid == 0:
        spool.after_fork()
        spool.append({"n": 2})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert spool.status().files == 2
    spool.append({"n": 3})
    assert spool.drain(taken) == 3
    assert taken.numbers == [1, 2, 3]


def test_a_child_forked_while_it_was_open_keeps_nobody_from_draining(directory: Path) -> None:
    """Its parent's locks are its own too, where it does not know that it was forked."""
    spool, other, taken = Spool(directory), Spool(directory), Taken()
    spool.append({"n": 1})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        spool.__del__()  # what ends with the child lets nothing go that is the parent's
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    children = [pid]
    try:
        os.read(reader, 1)
        assert other.drain(taken) == 0
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)

        def fail(records: Sequence[Record]) -> None:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
            raise LedgerDownError("gone")

        spool.close()
        with pytest.raises(LedgerDownError):
            other.drain(fail)
        assert spool.drain(taken) == 1
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_what_is_appended_after_the_end_can_be_drained(directory: Path) -> None:
    spool, other, taken = Spool(directory), Spool(directory), Taken()
    spool.close()
    spool.append({"n": 1})
    assert other.drain(taken) == 1


def test_a_spool_that_was_forgotten_can_be_drained(directory: Path) -> None:
    Spool(directory).append({"n": 1})
    taken = Taken()
    assert Spool(directory).drain(taken) == 1


def test_a_file_that_cannot_be_drained_does_not_hold_the_others_up(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    spool.append({"n": 1})
    (directory / "0-unreadable.spool").mkdir()
    with pytest.raises(LedgerError, match="unreadable"):
        spool.drain(taken)
    assert taken.numbers == [1]


def test_an_outage_leaves_everything_there(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    for n in range(100):
        spool.append({"n": n})
    calls = 0

    def take(records: Sequence[Record]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LedgerDownError("gone")
        taken(records)

    with pytest.raises(LedgerDownError):
        spool.drain(take)
    taken.records.clear()
    assert spool.drain(taken) == 100
    assert taken.numbers == list(range(100))


def test_a_record_that_nobody_takes_is_set_aside_and_the_others_go_on(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    for n in range(5):
        spool.append({"n": n})

    def take(records: Sequence[Record]) -> None:
        if any(record["n"] == 3 for record in records):
            raise ValueError("not this one")
        taken(records)

    assert spool.drain(take) == 4
    assert taken.numbers == [0, 1, 2, 4]
    (aside,) = directory.glob("*.refused")
    assert aside.read_text() == '{"n": 3}'
    assert spool.status().damaged == 1
    assert spool.status().files == 0
    spool.append({"n": 3})  # as after a crash before the file was removed
    assert spool.drain(take) == 0
    assert list(directory.iterdir()) == [aside]


def frame(payload: bytes) -> bytes:
    length = struct.pack(">I", len(payload))
    return length + struct.pack(">II", zlib.crc32(length), zlib.crc32(payload)) + payload


@given(cut=st.integers(min_value=1, max_value=30))
def test_a_frame_that_ends_early_was_never_acknowledged(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("spool")
    last = frame(b'{"n":2,"more":"aaaaaaaaaaaa"}')
    (directory / "1-2-x.spool").write_bytes(frame(b'{"n":1}') + last[:-cut])
    taken = Taken()
    assert Spool(directory).drain(taken) == 1
    assert taken.numbers == [1]
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("place", [0, 3, 4, 8, 12, 24])
def test_a_damaged_file_is_kept_for_a_person(directory: Path, place: int) -> None:
    directory.mkdir()
    first, second = frame(b'{"n":1}'), bytearray(frame(b'{"n":2,"m":3}'))
    second[place] ^= 0x41
    (directory / "1-2-x.spool").write_bytes(first + second)
    taken = Taken()
    spool = Spool(directory)
    assert spool.drain(taken) == 1
    assert spool.status().damaged == 1
    assert spool.status().files == 0


def test_zeros_at_the_end_are_a_power_failure_and_not_damage(directory: Path) -> None:
    directory.mkdir()
    (directory / "1-2-x.spool").write_bytes(frame(b'{"n":1}') + bytes(8))
    taken = Taken()
    assert Spool(directory).drain(taken) == 1
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool")
    with pytest.raises(NotRecordedError, match="cannot be written"):
        spool.append({"n": 1})
    with pytest.raises(NotRecordedError, match="cannot be written"):
        spool.probe()


def test_many_threads(directory: Path) -> None:
    spool, taken = Spool(directory), Taken()
    threads = [
        threading.Thread(target=lambda k: [spool.append({"n": 50 * k + i}) for i in range(50)], args=(k,))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        spool.drain(taken)
    spool.drain(taken)
    assert taken.numbers == list(range(200))
