"""A Guard as it comes: uploads are decoded in worker processes, whatever these do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.malice import ACTS, MalicePlugin, Outcome, make_file
from tests.test_guard import KINDS, add_test_list, big_jpeg
from uploadguard import Decision, FailureCode, Guard, PluginError, SandboxError, Verdict, hookimpl
from uploadguard.hashing import MediaHasher, hash_media
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.media.base import DecodeOptions, Pixels, Source
from uploadguard.sandbox import inspector
from uploadguard.sandbox.lockdown import REQUIRED, Layers
from uploadguard.sandbox.samples import SAMPLES
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

pytestmark = pytest.mark.sandboxed

PATIENT = {"deadline_s": 30.0}


@pytest.fixture(scope="module")
def hashset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("guard") / "hashset"
    HashSet.create(directory)
    add_test_list(directory)
    return directory


@pytest.fixture
def changed_hashset(tmp_path: Path) -> Path:
    """One for a test that adds lists of its own."""
    HashSet.create(tmp_path / "hashset")
    add_test_list(tmp_path / "hashset")
    return tmp_path / "hashset"


@pytest.fixture(scope="module")
def guard(hashset: Path) -> Iterator[Guard]:
    """One for many tests; a worker's failure must not reach the next test."""
    with Guard.open(hashset=hashset, plugins={"malice": MalicePlugin()}, sandbox=PATIENT) as opened:
        yield opened


def codes(decision: Decision) -> list[FailureCode]:
    return [failure.code for failure in decision.failures]


def workers(guard: Guard) -> Any:
    pool = guard.status().sandbox.pool
    assert pool is not None
    return pool


def settled(guard: Guard) -> Any:
    """The workers' figures once none is at work any more."""
    for _ in range(2000):
        found = workers(guard)
        if not found.busy:
            return found
        time.sleep(0.005)
    raise AssertionError("workers are busy for ever")


# What the verdicts are


def test_verdicts_are_those_of_this_process(guard: Guard, hashset: Path) -> None:
    uploads = [picture_bytes(), *map(variant_bytes, ("mirrored", "png", "resized")), unrelated_picture(), big_jpeg()]
    uploads += [b"", b"text", b"\xff\xd8\xff\xe0" + bytes(500), picture_bytes()[:30_000]]
    with Guard.open(hashset=hashset, sandbox={"isolation": "none"}) as own:
        for data in uploads:
            ours, theirs = guard.check(data), own.check(data)
            assert (ours.verdict, ours.reasons, ours.matches) == (theirs.verdict, theirs.reasons, theirs.matches)
            assert (ours.media, ours.hashes, ours.failures) == (theirs.media, theirs.hashes, theirs.failures)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_every_format_decodes_as_in_this_process(guard: Guard, hashset: Path, name: str) -> None:
    ours = guard.check(SAMPLES[name])
    with Guard.open(hashset=hashset, sandbox={"isolation": "none"}) as own:
        theirs = own.check(SAMPLES[name])
    assert theirs.media.frames_hashed > 0
    assert (ours.media, ours.hashes, ours.failures) == (theirs.media, theirs.hashes, theirs.failures)


def test_every_way_in_goes_through_the_workers(guard: Guard, tmp_path: Path) -> None:
    data = variant_bytes("mirrored")
    (tmp_path / "upload").write_bytes(data)
    decisions = [guard.check(way) for way in (data, tmp_path / "upload", io.BytesIO(data), memoryview(data))]
    decisions.append(asyncio.run(guard.acheck(data)))
    with guard.inspect() as inspection:
        inspection.write(data)
        decisions.append(inspection.finish())
    assert {d.verdict for d in decisions} == {Verdict.QUEUE}
    assert all("sandbox" in d.timings_ms and "decode" in d.timings_ms for d in decisions)


def test_many_threads_share_the_workers(guard: Guard) -> None:
    uploads = [picture_bytes(), variant_bytes("resized"), unrelated_picture(), big_jpeg()] * 6
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        verdicts = [decision.verdict for decision in pool.map(guard.check, uploads)]
    assert verdicts == [Verdict.BLOCK, Verdict.QUEUE, Verdict.ALLOW, Verdict.ALLOW] * 6
    assert settled(guard).live <= len(os.sched_getaffinity(0)) + 1


def test_a_digest_that_decides_ends_the_decoding(changed_hashset: Path) -> None:
    data = big_jpeg()
    entry = ListEntry("big", (("sha1", hashlib.sha1(data).digest()),))
    HashSet.open(changed_hashset).add_list("big", [entry], KINDS)
    with Guard.open(hashset=changed_hashset, sandbox={"prewarm": True, "idle_s": 0.0}) as guard:
        for _ in range(5):
            decision = guard.check(data)
            assert decision.verdict is Verdict.BLOCK
            assert {h.signal_type for h in decision.hashes} == {"md5", "sha1", "sha256"}
        assert guard.check(variant_bytes("resized")).verdict is Verdict.QUEUE
        assert not settled(guard).ended.keys() - {"idle", "stopped"}


# What a decoder in an attacker's hands can do


@pytest.mark.parametrize("act", [name for name, act in ACTS.items() if act.outcome is not Outcome.HANGS])
def test_no_act_gets_out(guard: Guard, tmp_path: Path, act: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    here = {"path": secret, "folder": tmp_path, "pid": os.getpid(), "port": 9, "socket": secret, "name": "x", "": ""}
    decision = guard.check(make_file(act, here[ACTS[act].needs]))
    assert decision.verdict is Verdict.QUEUE
    expected = {
        Outcome.REFUSED: {FailureCode.PLUGIN_FAILED},
        Outcome.NO_MEMORY: {FailureCode.PLUGIN_FAILED, FailureCode.OUT_OF_MEMORY},
        Outcome.BOUNDED: {FailureCode.PLUGIN_FAILED},
        Outcome.KILLED: {FailureCode.SANDBOX_VIOLATION},
        Outcome.CRASHED: {FailureCode.DECODER_CRASHED},
    }[ACTS[act].outcome]
    assert set(codes(decision)) <= expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
    assert guard.check(variant_bytes("resized")).verdict is Verdict.QUEUE


@pytest.fixture(scope="module")
def impatient(hashset: Path) -> Iterator[Guard]:
    sandbox = {"deadline_s": 0.7, "prewarm": True, "workers": 2}
    with Guard.open(hashset=hashset, plugins={"malice": MalicePlugin()}, sandbox=sandbox) as opened:
        yield opened


@pytest.mark.parametrize("act", [name for name, act in ACTS.items() if act.outcome is Outcome.HANGS])
def test_what_hangs_ends_with_the_deadline(impatient: Guard, act: str) -> None:
    before = settled(impatient).ended.get("stopped", 0)
    started = time.monotonic()
    decision = impatient.check(make_file(act))
    assert time.monotonic() - started >= 0.7
    assert codes(decision) == [FailureCode.TIMEOUT]
    assert decision.verdict is Verdict.QUEUE
    assert settled(impatient).ended["stopped"] == before + 1


def test_digests_count_whatever_the_worker_does(changed_hashset: Path) -> None:
    files = [make_file("segfault"), make_file("exec"), make_file("spin")]
    entries = [ListEntry(str(i), (("md5", hashlib.md5(data).digest()),)) for i, data in enumerate(files)]
    HashSet.open(changed_hashset).add_list("malice", entries, KINDS)
    policy = {"lists": {"malice": {"verdict": "queue"}}}  # a verdict at which decoding goes on
    plugins = {"malice": MalicePlugin()}
    with Guard.open(hashset=changed_hashset, plugins=plugins, policy=policy, sandbox={"deadline_s": 1.5}) as guard:
        for data in files:
            decision = guard.check(data)
            assert decision.reasons[0] == "digest_match"
            assert len(decision.failures) == 1


def test_a_crash_costs_one_retry_and_a_violation_none(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    before = settled(guard).ended
    assert codes(guard.check(make_file("segfault"))) == [FailureCode.DECODER_CRASHED]
    assert "SIGSEGV" in caplog.text
    assert codes(guard.check(make_file("exec"))) == [FailureCode.SANDBOX_VIOLATION]
    after = settled(guard).ended
    assert after["crashed"] - before.get("crashed", 0) == 2
    assert after["violation"] - before.get("violation", 0) == 1
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "exploit" in record.getMessage()


class PlainDecoder:
    """Gives one plain picture."""

    name = "plain"
    media_types = frozenset({"image/x-plain"})
    width = height = 64
    frames_total = orientation = 1
    sequential = False

    def sniff(self, head: bytes) -> str | None:
        return "image/x-plain" if head.startswith(b"plain") else None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> PlainDecoder:
        return self

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        import numpy as np

        yield Pixels(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), 64, 64)

    def close(self) -> None:
        pass

    @hookimpl
    def uploadguard_decoders(self) -> list[Any]:
        return [self]


class GrowingDecoder(PlainDecoder):
    """Takes memory in steps, or gives values that no decoder should."""

    name = "growing"

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> PlainDecoder:
        text = bytes(data.data)
        if text == b"plain: grow":
            taken = []
            while True:
                taken.append(bytearray(os.urandom(1) * (16 << 20)))
                time.sleep(0.01)
        if text == b"plain: odd":
            self.width = "wide"  # type: ignore[assignment]
        return self


def test_memory_is_watched(hashset: Path) -> None:
    sandbox = {**PATIENT, "max_memory_bytes": 256 << 20}
    with Guard.open(hashset=hashset, plugins={"growing": GrowingDecoder()}, sandbox=sandbox) as guard:
        decision = guard.check(b"plain: grow")
        assert codes(decision) == [FailureCode.OUT_OF_MEMORY]
        assert settled(guard).ended["memory"] == 2
        assert guard.check(unrelated_picture()).allowed


# One budget, and a queue with an end


def test_too_many_checks_are_told_so_at_once_and_their_digests_count(hashset: Path) -> None:
    upload, listed = unrelated_picture(), picture_bytes()
    sandbox = {"deadline_s": 3.0, "workers": 1, "max_waiting": 1, "prewarm": True}
    plugins = {"malice": MalicePlugin()}
    with Guard.open(hashset=hashset, plugins=plugins, sandbox=sandbox) as guard:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            spinning = [pool.submit(guard.check, make_file("sleep")) for _ in range(2)]
            for _ in range(1000):
                if workers(guard).waiting == 1:
                    break
                time.sleep(0.002)
            shed = guard.check(upload)
            assert (shed.verdict, shed.reasons) == (Verdict.QUEUE, ("overloaded",))
            assert len(shed.hashes) == 3
            assert guard.check(listed).verdict is Verdict.BLOCK
            assert not any(task.done() for task in spinning)
            assert [codes(task.result()) for task in spinning] == [[FailureCode.TIMEOUT]] * 2

        async def flood() -> list[Decision]:
            return await asyncio.gather(*(guard.acheck(make_file("sleep")) for _ in range(6)))

        found = [codes(decision) for decision in asyncio.run(flood())]
        assert found.count([FailureCode.OVERLOADED]) >= 4
        assert [] not in found


@pytest.mark.parametrize("isolation", ["sandbox", "none"])
def test_digests_keep_to_the_deadline_too(hashset: Path, isolation: str) -> None:
    upload = unrelated_picture() + bytes(90 << 20)
    with Guard.open(hashset=hashset, sandbox={"isolation": isolation, "deadline_s": 0.02}) as guard:
        decision = guard.check(upload)
        assert decision.verdict is Verdict.QUEUE
        assert set(codes(decision)) == {FailureCode.TIMEOUT}
        assert "its digests could not be computed" in decision.failures[0].detail
        assert decision.hashes == ()
        assert len(guard.check(unrelated_picture()).hashes) >= 3


def test_a_flood_of_large_uploads_is_answered_in_time(hashset: Path) -> None:
    upload = unrelated_picture() + bytes(20 << 20)
    settings = {"deadline_s": 0.3, "workers": 1, "max_waiting": 1, "prewarm": True}

    async def flood(guard: Guard) -> list[Decision]:
        return await asyncio.gather(*(guard.acheck(upload) for _ in range(80)))

    with Guard.open(hashset=hashset, sandbox=settings) as guard:
        decisions = asyncio.run(flood(guard))
    late = [decision for decision in decisions if not decision.hashes]
    assert len(late) > 20
    assert all(FailureCode.TIMEOUT in codes(decision) for decision in late)
    assert not any(decision.allowed for decision in late)


def test_waiting_takes_half_of_the_time_at_most(hashset: Path) -> None:
    upload = unrelated_picture()
    sandbox = {"deadline_s": 2.0, "workers": 1, "prewarm": True}
    with (
        Guard.open(hashset=hashset, plugins={"malice": MalicePlugin()}, sandbox=sandbox) as guard,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        spinning = pool.submit(guard.check, make_file("sleep"))
        while not workers(guard).busy:
            time.sleep(0.002)
        decision = guard.check(upload)
        assert not spinning.done()
        assert [failure.detail for failure in decision.failures] == ["no worker became free in time"]
        assert codes(decision) == [FailureCode.TIMEOUT]


def test_cancelling_a_task_stops_the_worker(guard: Guard) -> None:
    before = settled(guard).ended.get("stopped", 0)

    async def main() -> None:
        task = asyncio.create_task(guard.acheck(make_file("spin")))
        while not workers(guard).busy:  # noqa: ASYNC110 - set on another thread
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 20))
    assert settled(guard).ended["stopped"] == before + 1


def test_the_event_loop_goes_on_while_workers_start(hashset: Path) -> None:
    async def main() -> float:
        with Guard.open(hashset=hashset, sandbox=PATIENT) as guard:
            task = asyncio.create_task(guard.acheck(unrelated_picture()))
            longest, last = 0.0, time.monotonic()
            while not task.done():
                await asyncio.sleep(0.001)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            assert (await task).allowed
            return longest

    assert asyncio.run(main()) < 5


def test_in_this_process_the_deadline_holds_between_two_reads(hashset: Path) -> None:
    from tests.test_guard import WaitingDecoder

    sandbox = {"isolation": "none", "deadline_s": 0.05}
    with Guard.open(hashset=hashset, plugins={"waiting": WaitingDecoder()}, sandbox=sandbox) as guard:
        assert codes(guard.check(unrelated_picture())) == [FailureCode.TIMEOUT]


# What must be there, and what is said of it


def test_the_status_says_what_is_in_force(guard: Guard) -> None:
    guard.check(unrelated_picture())
    status = guard.status().sandbox
    assert status.isolation == "sandbox"
    assert status.layers.missing() == ()
    assert status.pool is not None
    assert status.pool.layers == status.layers
    assert status.pool.started >= 1


def test_without_the_layers_a_guard_does_not_open(
    hashset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inspector, "available", lambda: Layers(rlimits=True))
    with pytest.raises(SandboxError, match=r"does not offer seccomp, no_new_privs.*sandbox\.isolation"):
        Guard.open(hashset=hashset)
    with Guard.open(hashset=hashset, sandbox={"isolation": "process", **PATIENT}) as guard:
        assert "without seccomp" in caplog.text
        assert guard.check(unrelated_picture()).allowed


def test_in_this_process_is_said_with_what_it_gives_up(hashset: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Guard.open(hashset=hashset, sandbox={"isolation": "none"}) as guard:
        assert guard.status().sandbox == inspector.SandboxStatus("none", Layers(), None)
        assert guard.prewarm().pool is None
    assert "trusted input only" in caplog.text


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/true"])
def test_workers_that_cannot_start_are_a_failure_and_an_error(
    hashset: Path, python: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SandboxError, match="no worker process could be started"):
        Guard.open(hashset=hashset, sandbox={"python": python, "prewarm": True})
    with Guard.open(hashset=hashset, sandbox={"python": python}) as guard:
        decision = guard.check(unrelated_picture())
        assert codes(decision) == [FailureCode.SANDBOX_FAILED]
        assert decision.verdict is Verdict.QUEUE
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
        assert workers(guard).start_error is not None
    assert "no worker process could be started" in caplog.text


def test_parts_that_cannot_be_taken_over_are_named(hashset: Path) -> None:
    class Local(PlainDecoder):
        pass

    with pytest.raises(PluginError, match=r"cannot be pickled.*entry point.*isolation") as error:
        Guard.open(hashset=hashset, plugins={"local": Local()})
    assert error.value.plugin == "local"
    script = f"""
        import sys
        from tests.sandbox.test_guard import PlainDecoder
        from uploadguard import Guard, PluginError
        class Mine(PlainDecoder): pass
        try:
            Guard.open(hashset={str(hashset)!r}, plugins={{"mine": Mine()}})
        except PluginError as error:
            assert "main program" in str(error)
        else:
            sys.exit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_odd_values_of_a_decoder_are_its_own_failure(hashset: Path) -> None:
    with Guard.open(hashset=hashset, plugins={"growing": GrowingDecoder()}, sandbox=PATIENT) as guard:
        assert guard.check(b"plain: odd").verdict is Verdict.QUEUE
        assert guard.check(unrelated_picture()).allowed


# Life cycle


def test_closing_leaves_nothing_behind(hashset: Path) -> None:
    script = f"""
        import os, threading
        from pathlib import Path
        from tests.sandbox.malice import MalicePlugin, make_file
        from uploadguard import Guard
        from uploadguard.testing.picture import unrelated_picture

        def state():
            own = Path("/proc/self/fd")
            opened = sorted(str(entry.readlink()) for entry in own.iterdir() if entry.is_symlink())
            children = [path.read_text() for path in Path("/proc/self/task").glob("*/children") if path.read_text()]
            return opened, children, [one.name for one in threading.enumerate() if "sandbox" in one.name]

        def work():
            settings = {{"prewarm": True, "deadline_s": 30.0}}
            with Guard.open(hashset={str(hashset)!r}, sandbox=settings, plugins={{"malice": MalicePlugin()}}) as guard:
                assert guard.check(unrelated_picture()).allowed
                assert state()[1]
                for act in ("segfault", "exec", "babble"):
                    assert guard.check(make_file(act)).failures

        work()  # what is made once stays
        before = state()
        for _ in range(3):
            work()
        assert state() == before, (before, state())
        assert before[1] == []
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_a_forgotten_guard_takes_its_workers_with_it(hashset: Path) -> None:
    script = f"""
        import gc, os, time
        from pathlib import Path
        from uploadguard import Guard
        guard = Guard.open(hashset={str(hashset)!r}, sandbox={{"prewarm": True}})
        guard.check(b"x")
        def children():
            return [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
        assert children()
        del guard
        gc.collect()
        for _ in range(1000):
            if not children():
                break
            time.sleep(0.01)
        assert not children()
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True, timeout=60)


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)"], ids=["returns", "_exit", "killed"])
def test_workers_die_with_their_host(hashset: Path, end: str) -> None:
    script = f"""
        import os
        from pathlib import Path
        from uploadguard import Guard
        guard = Guard.open(hashset={str(hashset)!r}, sandbox={{"prewarm": True}})
        for path in Path("/proc/self/task").glob("*/children"):
            print(path.read_text(), end="", flush=True)
        {end}
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    pids = done.stdout.split()
    assert pids
    for _ in range(500):
        if not any(Path(f"/proc/{pid.decode()}").exists() for pid in pids):
            return
        time.sleep(0.01)
    raise AssertionError("a worker outlived its host")


FORK = """
    import asyncio, os, sys
    from pathlib import Path
    from uploadguard import Guard
    from uploadguard.testing.picture import unrelated_picture
    guard = Guard.open(hashset={hashset!r}, sandbox={{"prewarm": True, "deadline_s": 30.0}})
    data = unrelated_picture()
    assert guard.check(data).allowed
"""


def test_forked_children_have_workers_of_their_own(hashset: Path) -> None:
    script = textwrap.dedent(FORK).format(hashset=str(hashset)) + textwrap.dedent("""
        children = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                opened = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                          if os.path.exists(f"/proc/self/fd/{fd}")]
                leaked = [name for name in opened if "memfd" in name or "pidfd" in name or "statm" in name]
                answers = [guard.check(data), asyncio.run(guard.acheck(data))]
                guard.close()
                os._exit(3 if leaked else 0 if all(answer.allowed for answer in answers) else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
        assert guard.check(data).allowed
        guard.close()
    """)
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=120)


def test_daemonic_processes_of_multiprocessing_have_workers_too(hashset: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import multiprocessing, sys
        from uploadguard import Guard
        from uploadguard.testing.picture import unrelated_picture

        def work(_):
            with Guard.open(hashset={str(hashset)!r}, sandbox={{"deadline_s": 30.0}}) as guard:
                return guard.check(unrelated_picture()).verdict.label

        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    assert pool.map(work, [0]) == ["allow"], method
    """)
    )
    subprocess.run([sys.executable, "-W", "error", str(program)], check=True, timeout=120)


def test_a_worker_is_replaced_after_so_many_files(hashset: Path) -> None:
    with Guard.open(hashset=hashset, sandbox={**PATIENT, "max_files": 2}) as guard:
        for _ in range(5):
            assert guard.check(variant_bytes("resized")).verdict is Verdict.QUEUE
        assert settled(guard).ended["recycled"] == 2


def test_a_worker_killed_between_two_uploads_costs_nothing(hashset: Path) -> None:
    with Guard.open(hashset=hashset, sandbox={**PATIENT, "prewarm": True}) as guard:
        for worker in tuple(guard._sandbox.pool._all):  # type: ignore[union-attr]
            os.kill(worker.pid, signal.SIGKILL)
        assert guard.check(unrelated_picture()).allowed


def test_a_hasher_decodes_in_workers_as_well() -> None:
    with MediaHasher() as hasher:
        hashed = hasher.hash(unrelated_picture())
        assert hasher.hash(b"").failures[0].code is FailureCode.EMPTY_FILE
    assert hashed.complete
    assert json.dumps(hashed.to_dict())
    assert hash_media(unrelated_picture()).hashes == hashed.hashes


def test_no_layer_is_left_out_of_the_promise() -> None:
    assert {"seccomp", "no_new_privs", "rlimits", "non_dumpable", "dies_with_parent"} <= REQUIRED


def test_a_small_limit_on_files_leaves_room_for_the_start(hashset: Path) -> None:
    with Guard.open(hashset=hashset, media={"max_file_bytes": 100}, sandbox=PATIENT) as guard:
        assert codes(guard.check(unrelated_picture())) == [FailureCode.TOO_LARGE]
        assert codes(guard.check(b"x" * 100)) == [FailureCode.UNSUPPORTED_FORMAT]


def test_a_large_upload_leaves_no_memory_taken(hashset: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((4000, 4000), 80).save(out, "PNG")
    assert len(out.getvalue()) > 9 << 20
    with Guard.open(hashset=hashset, sandbox=PATIENT) as guard:
        assert guard.check(out.getvalue()).media.frames_hashed == 1
        (worker,) = [one for one in guard._sandbox.pool._all if one.files]  # type: ignore[union-attr]
        assert os.fstat(worker._arena).st_blocks * 512 < 9 << 20


def test_an_interpreter_that_is_not_there_is_named_with_its_setting(hashset: Path) -> None:
    with pytest.raises(SandboxError, match=r"sandbox\.python, /not/there/python3: No such file"):
        Guard.open(hashset=hashset, sandbox={"python": "/not/there/python3", "prewarm": True})
