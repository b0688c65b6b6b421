"""The breaker: a list that matches too much only queues from then on, in every process, until somebody resets it."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import photo
from tests.matchers import Remote, RemotePlugin, hit
from tests.test_guard import KINDS
from uploadguard import Context, Decision, Guard, Verdict, hookimpl
from uploadguard.alarms import Alarm, AlarmKind
from uploadguard.breaker import HitWindow
from uploadguard.config import Settings
from uploadguard.errors import HashSetError
from uploadguard.hashset import HashSet
from uploadguard.ledger import schema
from uploadguard.ledger.database import open_database
from uploadguard.lists.base import ListEntry
from uploadguard.lists.local import CONFIRMED_LIST
from uploadguard.models import Match
from uploadguard.policy import LIST_TRIPPED
from uploadguard.storage.keys import Keys, parse_keys, write_key_file
from uploadguard.testing.picture import picture_bytes
from uploadguard.tripped import FILE_NAME, Trip, Tripped, TrippedFile

LIST = "national"
SAFETY = {"breaker_percent": 10.0, "breaker_min_uploads": 5, "breaker_window_checks": 100}


TRIPPED = Trip(list_name=LIST, at=datetime(2026, 1, 1, tzinfo=UTC), matched=7, checks=9)


class Alarms:
    def __init__(self) -> None:
        self.raised: list[Alarm] = []

    @hookimpl
    def uploadguard_alarm(self, alarm: Alarm) -> None:
        self.raised.append(alarm)

    @property
    def trips(self) -> list[Alarm]:
        return [alarm for alarm in self.raised if alarm.kind is AlarmKind.LIST_TRIPPED]


def upload(number: int, kind: str = "listed") -> bytes:
    """No picture: what its digests say is all that is looked at."""
    return f"{kind} {number}".encode()


def listed(numbers: Sequence[int]) -> Iterator[ListEntry]:
    for number in numbers:
        yield ListEntry(str(number), (("sha256", hashlib.sha256(upload(number)).digest()),), line=number + 1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A hash set with a list of 200 files."""
    HashSet.create(tmp_path / "hashset").add_list(LIST, listed(range(200)), KINDS)
    return tmp_path / "hashset"


@pytest.fixture
def alarms() -> Alarms:
    return Alarms()


@pytest.fixture
def open_guard(directory: Path, alarms: Alarms) -> Iterator[Callable[..., Guard]]:
    opened: list[Guard] = []

    def make(**overrides: Any) -> Guard:
        plugins = {"alarms": alarms, **overrides.pop("plugins", {})}
        safety = {**SAFETY, **overrides.pop("safety", {})}
        hashset = {"path": directory, "refresh_s": 60.0, **overrides.pop("hashset", {})}
        guard = Guard.open(hashset=hashset, plugins=plugins, safety=safety, **overrides)
        opened.append(guard)
        return guard

    yield make
    for guard in opened:
        guard.close()


def trip(guard: Guard, *, first: int = 0) -> list[Decision]:
    """As many matches as it takes, and nothing else."""
    return [guard.check(upload(first + number)) for number in range(SAFETY["breaker_min_uploads"])]


def follow(guard: Guard) -> Guard:
    """As after ``hashset.refresh_s``."""
    guard.refresh()
    return guard


# The window


def brute_force(checks: Sequence[tuple[str, ...]], *, window: int, least: int, percent: float) -> list[bool]:
    """For each check, each a file's name and the lists it matched, whether list "a" is over the bound."""
    found = []
    for end in range(1, len(checks) + 1):
        seen = checks[max(0, end - window) : end]
        files = {file for file, *lists in seen if "a" in lists}
        matched = "a" in checks[end - 1][1:]
        found.append(matched and len(files) >= least and 100 * len(files) >= percent * len(seen))
    return found


@given(
    checks=st.lists(
        st.tuples(st.sampled_from("stuvwxyz"), st.sampled_from(["", "a", "b", "ab"])).map(
            lambda one: (one[0], *one[1])
        ),
        max_size=60,
    ),
    window=st.integers(1, 30),
    least=st.integers(1, 6),
    percent=st.sampled_from([0.5, 1.0, 12.5, 50.0, 100.0]),
)
def test_the_window_counts_different_files_in_the_last_checks(
    checks: list[tuple[str, ...]], window: int, least: int, percent: float
) -> None:
    counted = HitWindow(window_checks=window, min_matched=least, percent=percent)
    found = []
    for file, *lists in checks:
        counted.check()
        trips = {name: counted.match(name, file.encode()) for name in lists}
        found.append(trips.get("a", False))
    assert found == brute_force(checks, window=window, least=least, percent=percent)


def test_the_window_holds_no_more_than_it_counts() -> None:
    window = HitWindow(window_checks=50, min_matched=1000, percent=100)
    for number in range(5000):
        window.check()
        window.match(LIST, str(number).encode())
    assert window.matched(LIST) == 50
    assert sum(map(len, window._files.values())) == 50


def test_real_material_never_trips_with_the_default_settings() -> None:
    defaults = Settings().safety
    for seed in range(20):
        window = HitWindow(
            window_checks=defaults.breaker_window_checks,
            min_matched=defaults.breaker_min_uploads,
            percent=defaults.breaker_percent,
        )
        rng = random.Random(seed)
        tripped = False
        for number in range(200_000):
            window.check()
            if rng.random() < 10 * 4.3e-5:  # ten times what a pilot saw
                tripped = tripped or window.match(LIST, str(number).encode())
        assert not tripped


def test_a_burst_of_one_file_never_trips_with_the_default_settings() -> None:
    defaults = Settings().safety
    window = HitWindow(
        window_checks=defaults.breaker_window_checks,
        min_matched=defaults.breaker_min_uploads,
        percent=defaults.breaker_percent,
    )
    for _ in range(30_000):
        window.check()
        assert not window.match(LIST, b"the one")


# The Guard


def test_a_list_that_matches_too_much_only_queues(open_guard: Callable[..., Guard], alarms: Alarms) -> None:
    guard = open_guard()
    before = trip(guard)
    assert {one.verdict for one in before} == {Verdict.BLOCK}
    assert guard.status().tripped == (LIST,)
    for number in range(10, 20):
        decision = guard.check(upload(number))
        assert (decision.verdict, decision.report_due) == (Verdict.QUEUE, False)
        assert decision.reasons[:2] == ("digest_match", LIST_TRIPPED)
        assert decision.matches[0].list_name == LIST
    assert len(alarms.trips) == 1


def test_a_share_below_the_bound_does_nothing(open_guard: Callable[..., Guard], alarms: Alarms) -> None:
    guard = open_guard()
    for number in range(300):
        expected = Verdict.BLOCK if number % 20 == 19 else Verdict.NOT_SCANNED  # 5 %
        assert guard.check(upload(number // 20, "listed" if number % 20 == 19 else "other")).verdict is expected
    assert guard.status().tripped == ()
    assert alarms.trips == []


def test_one_file_again_and_again_does_not_trip(open_guard: Callable[..., Guard]) -> None:
    guard = open_guard()
    assert {guard.check(upload(1)).verdict for _ in range(150)} == {Verdict.BLOCK}
    assert guard.status().tripped == ()


def test_nought_percent_never_trips(open_guard: Callable[..., Guard]) -> None:
    guard = open_guard(safety={"breaker_percent": 0.0})
    assert {guard.check(upload(number)).verdict for number in range(150)} == {Verdict.BLOCK}


def test_other_lists_go_on_blocking(open_guard: Callable[..., Guard], directory: Path) -> None:
    HashSet.open(directory).add_list("sound", listed(range(3)), KINDS)
    guard = open_guard()
    trip(guard, first=10)
    assert guard.check(upload(50)).verdict is Verdict.QUEUE
    both = guard.check(upload(2))
    assert (both.verdict, both.report_due) == (Verdict.BLOCK, True)


def test_rules_below_queue_stay_as_they_are(open_guard: Callable[..., Guard]) -> None:
    guard = open_guard(policy={"lists": {LIST: {"verdict": "allow"}}})
    trip(guard)
    decision = guard.check(upload(50))
    assert (decision.verdict, decision.reasons) == (Verdict.NOT_SCANNED, ("unsupported_format", "digest_match"))


def test_what_reviewers_confirmed_and_the_test_list_never_trip(
    directory: Path, open_guard: Callable[..., Guard]
) -> None:
    hash_set = HashSet.open(directory)
    hash_set.add_list(CONFIRMED_LIST, listed(range(500, 600)), KINDS)
    guard = open_guard(hashset={"test_list": True})
    for number in range(500, 600):
        assert guard.check(upload(number)).verdict is Verdict.BLOCK
    for number in range(20):
        assert guard.check(picture_bytes() + bytes(number)).verdict >= Verdict.QUEUE
    assert guard.status().tripped == ()


def test_what_an_allow_list_clears_does_not_count(directory: Path, open_guard: Callable[..., Guard]) -> None:
    HashSet.open(directory).add_list("reviewed", listed(range(200)), KINDS, role="allow")
    guard = open_guard()
    assert {guard.check(upload(number)).verdict for number in range(150)} == {Verdict.ALLOW}
    assert guard.status().tripped == ()


def test_trying_things_out_trips_nothing(open_guard: Callable[..., Guard], directory: Path) -> None:
    guard = open_guard(record=False)
    assert {guard.check(upload(number)).verdict for number in range(100)} == {Verdict.BLOCK}
    assert not (directory / FILE_NAME).exists()


def test_a_match_service_counts_as_a_list(open_guard: Callable[..., Guard]) -> None:
    remote = Remote(lambda query: [hit("remote")])
    guard = open_guard(plugins={"remote": RemotePlugin(remote)})
    verdicts = [guard.check(upload(number, "other")).verdict for number in range(7)]
    assert verdicts == [Verdict.BLOCK] * 5 + [Verdict.QUEUE] * 2
    assert guard.status().tripped == ("remote",)


def test_the_log_and_the_alarm_name_no_list(
    open_guard: Callable[..., Guard], alarms: Alarms, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "uploadguard"):
        first, second = open_guard(), open_guard()
        trip(first)
        assert follow(second).check(upload(100)).verdict is Verdict.QUEUE
    said = [*caplog.messages, *(alarm.text for alarm in alarms.trips), repr(first.status())]
    assert any("tripped" in message for message in caplog.messages)
    assert not [text for text in said if LIST in text]


def test_a_decision_cannot_be_lowered_by_being_tripped() -> None:
    """Nothing that matches is ever served because of the breaker."""
    from uploadguard.policy import Policy, SignalDefaults, decide

    policy = Policy({"sha256": SignalDefaults(0, 256, digest=True), "pdq": SignalDefaults(31, 256, digest=False)})
    for signal_type in ("sha256", "pdq"):
        match = Match(LIST, "1", None, signal_type, 0, exact=signal_type == "sha256")
        outcome = decide([match], (), policy, tenant=None, tripped=frozenset({LIST}))
        assert (outcome.verdict, outcome.report_due) == (Verdict.QUEUE, False)


# Restarts, other processes, resets


def test_other_guards_follow_and_a_restart_changes_nothing(open_guard: Callable[..., Guard], alarms: Alarms) -> None:
    first, second = open_guard(), open_guard()
    assert second.check(upload(100)).verdict is Verdict.BLOCK
    trip(first)
    assert follow(second).check(upload(101)).verdict is Verdict.QUEUE
    first.close()
    assert open_guard().check(upload(102)).verdict is Verdict.QUEUE
    assert len(alarms.trips) == 1


def test_two_that_find_it_at_once_raise_one_alarm(open_guard: Callable[..., Guard], alarms: Alarms) -> None:
    guards = [open_guard() for _ in range(4)]
    threads = [threading.Thread(target=trip, args=(guard,), kwargs={"first": 10}) for guard in guards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(alarms.trips) == 1


def test_one_that_trips_while_another_thread_reads_the_file_stays_tripped(
    open_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = open_guard()._breaker
    read = TrippedFile.read

    def slowly(file: TrippedFile) -> Tripped:
        found = read(file)
        monkeypatch.undo()
        breaker._save(TRIPPED)
        return found

    breaker._file.add(TRIPPED.model_copy(update={"list_name": "other"}))
    monkeypatch.setattr(TrippedFile, "read", slowly)
    breaker.refresh()
    assert LIST in breaker.tripped()


def test_a_reset_puts_it_in_force_again_and_counts_from_nothing(
    open_guard: Callable[..., Guard], directory: Path, alarms: Alarms
) -> None:
    guard = open_guard()
    trip(guard)
    assert TrippedFile(directory, None).remove([LIST]) == {LIST}
    assert [follow(guard).check(upload(number)).verdict for number in range(20, 24)] == [Verdict.BLOCK] * 4
    assert guard.status().tripped == ()
    assert guard.check(upload(24)).verdict is Verdict.BLOCK
    assert guard.check(upload(25)).verdict is Verdict.QUEUE
    assert len(alarms.trips) == 2


def test_a_damaged_file_queues_everything_until_it_is_started_anew(
    open_guard: Callable[..., Guard], directory: Path, alarms: Alarms
) -> None:
    guard = open_guard()
    trip(guard)
    path = directory / FILE_NAME
    whole = path.read_bytes()
    HashSet.open(directory).add_list("sound", listed([1000]), KINDS)
    for damaged in (whole[:-20], whole.replace(b"national", b"nationel"), b"", b"{}", b"\xff" * 40):
        path.write_bytes(damaged)
        fresh = open_guard()
        decision = fresh.check(upload(1000))
        assert (decision.verdict, decision.report_due) == (Verdict.QUEUE, False)
        assert fresh.status().tripped == (LIST, "sound")
        assert str(path) in (fresh.status().breaker_error or "")
        with pytest.raises(HashSetError):
            TrippedFile(directory, None).remove([LIST])
        assert LIST not in alarms.trips[-1].text
    TrippedFile(directory, None).clear()
    assert follow(fresh).check(upload(1000)).verdict is Verdict.BLOCK
    assert fresh.status().breaker_error is None
    assert follow(guard).check(upload(120)).verdict is Verdict.BLOCK


def test_where_it_cannot_be_written_this_process_goes_by_it(
    open_guard: Callable[..., Guard], directory: Path, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = open_guard()
    (directory / "tripped.lock").mkdir()  # as good as a directory that is mounted read-only
    trip(guard)
    assert guard.check(upload(100)).verdict is Verdict.QUEUE
    assert len(alarms.trips) == 1
    assert not (directory / FILE_NAME).exists()
    (directory / "tripped.lock").rmdir()
    monkeypatch.setattr(guard._breaker, "_retry_at", 0.0)
    assert follow(guard).check(upload(101)).verdict is Verdict.QUEUE
    assert TrippedFile(directory, None).read().trips.keys() == {LIST}
    TrippedFile(directory, None).clear()
    assert follow(guard).check(upload(102)).verdict is Verdict.BLOCK


def test_a_forked_child_goes_by_it_and_trips_for_its_parent(open_guard: Callable[..., Guard], directory: Path) -> None:
    guard = open_guard()
    guard.check(upload(0))
    holding = threading.Event()
    done = threading.Event()

    def hold() -> None:  # a fork must not inherit a lock that is never let go
        with guard._breaker._lock:
            holding.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(30)
    child = os.fork()
    if child == 0:
        verdicts = [decision.verdict for decision in trip(guard, first=10)]
        sound = verdicts[0] is Verdict.BLOCK and guard.check(upload(90)).verdict is Verdict.QUEUE
        os._exit(0 if sound else 1)
    done.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
    assert follow(guard).check(upload(91)).verdict is Verdict.QUEUE


_PROCESS = """\
import sys
from uploadguard import Guard
guard = Guard.open(hashset={"path": sys.argv[1], "refresh_s": 0.001}, safety={"breaker_percent": 10.0,
    "breaker_min_uploads": 5, "breaker_window_checks": 100})
for line in sys.stdin:
    print(guard.check(line.strip().encode()).verdict, flush=True)
"""


def test_several_processes_go_by_one_file(directory: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROCESS), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]

    def ask(process: subprocess.Popen[str], number: int) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{upload(number).decode()}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    first, second = processes
    assert ask(second, 100) == "block"
    assert [ask(first, number) for number in range(6)] == ["block"] * 5 + ["queue"]
    assert ask(second, 101) == "queue"
    first.kill()
    TrippedFile(directory, None).remove([LIST])
    assert ask(second, 102) == "block"
    for process in processes:
        process.communicate()


# The file


def test_the_file_is_encrypted_where_the_hash_set_is(tmp_path: Path) -> None:
    file_of_key = tmp_path / "key"
    write_key_file(file_of_key)
    old = parse_keys(file_of_key.read_text())
    file_of_key.unlink()
    write_key_file(file_of_key)
    new = parse_keys(file_of_key.read_text())
    found = TRIPPED
    file = TrippedFile(tmp_path, Keys(old))
    assert file.add(found)
    assert not file.add(found)
    assert LIST.encode() not in file.path.read_bytes()
    assert TrippedFile(tmp_path, Keys([*new, *old])).read().trips == {LIST: found}
    assert not TrippedFile(tmp_path, Keys([*new, *old])).read().as_configured
    TrippedFile(tmp_path, Keys([*new, *old])).renew()
    assert TrippedFile(tmp_path, Keys(new)).read().trips == {LIST: found}
    with pytest.raises(HashSetError, match="reset --all"):
        TrippedFile(tmp_path, Keys(old)).read()
    with pytest.raises(HashSetError):
        TrippedFile(tmp_path, None).read()


@settings(max_examples=60)
@given(data=st.data())
def test_a_file_with_any_byte_changed_is_no_answer(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("tripped")
    file = TrippedFile(directory, None)
    file.add(TRIPPED)
    whole = bytearray(file.path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    file.path.write_bytes(whole)
    with pytest.raises(HashSetError):
        file.read()


def test_an_interrupted_write_leaves_the_old_file_and_is_cleared_up(tmp_path: Path) -> None:
    (tmp_path / "tripped.new.tripped.json.0123.tmp").write_bytes(b"half")
    file = TrippedFile(tmp_path, None)
    assert file.read().trips == {}
    file.clear()
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, "tripped.lock"}


def test_writers_of_lists_leave_the_file_alone(directory: Path) -> None:
    TrippedFile(directory, None).add(TRIPPED)
    hash_set = HashSet.open(directory)
    hash_set.add_list(LIST, listed(range(3)), KINDS, replace=True)
    hash_set.compact()
    hash_set.remove_list(LIST, purge=True)
    assert TrippedFile(directory, None).read().trips.keys() == {LIST}
    assert hash_set.verify().leftovers == ()


# The incident


def ordinary_pictures(count: int) -> list[bytes]:
    """Pictures that are different enough to be told apart, small enough to be checked by the hundred."""
    found = []
    with Image.open(photo("coffee.png")) as image:
        whole = image.convert("RGB")
    for number in range(count):
        x, y = (number * 37) % (whole.width - 200), (number * 53) % (whole.height - 150)
        out = io.BytesIO()
        whole.crop((x, y, x + 200, y + 150)).transpose(Image.Transpose(number % 7)).save(out, "PNG", compress_level=1)
        found.append(out.getvalue())
    return found


def test_a_poisoned_list_harms_few_and_is_then_held_back(tmp_path: Path, alarms: Alarms) -> None:
    """A list that arrives with hashes of pictures that many people upload, among sound ones."""
    pictures = ordinary_pictures(60)
    hash_set = HashSet.create(tmp_path / "hashset")
    poisoned = [
        ListEntry(f"stock-{number}", (("sha256", hashlib.sha256(data).digest()),), line=number + 1)
        for number, data in enumerate(pictures)
    ]
    hash_set.add_list(LIST, [*poisoned, *listed(range(10))], KINDS)
    config = tmp_path / "uploadguard.toml"
    config.write_text(
        '[hashset]\npath = "hashset"\n[ledger]\npath = "ledger"\n[outbox]\nrun = "none"\n'
        '[actions.drop]\nkind = "file"\npath = "reports.jsonl"\noccasions = ["report"]\n'
    )
    database = open_database(Settings.load(config), create=True)
    rng = random.Random(6)
    verdicts: list[Verdict] = []
    with Guard.open(config, plugins={"alarms": alarms}) as guard:
        for number in range(600):
            ordinary = rng.random() < 0.2
            data = rng.choice(pictures) if ordinary else upload(number, "other")
            decision = guard.check(data, context=Context(uploader=f"user-{rng.randrange(400)}"))
            if ordinary:
                verdicts.append(decision.verdict)
        assert guard.status().tripped == (LIST,)
    first_queued = verdicts.index(Verdict.QUEUE)
    harmed = verdicts[:first_queued]
    assert set(harmed) == {Verdict.BLOCK}
    assert len(harmed) < 40  # 20 different pictures, some of them twice
    assert set(verdicts[first_queued:]) == {Verdict.QUEUE}
    with database.reading() as connection:
        tasks = connection.execute(sa.select(sa.func.count()).select_from(schema.tasks)).scalar_one()
        blocked = connection.execute(
            sa.select(sa.func.count()).select_from(schema.decisions).where(schema.decisions.c.verdict == "block")
        ).scalar_one()
    assert tasks == blocked == len(harmed)  # none for what came after
    database.close()
    assert len(alarms.trips) == 1
