"""What a locked-down process has left, seen from inside and from outside; and that every decoder still works in it."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from tests.sandbox.children import MEMORY_BYTES, USERS, finish, run_locked, start, start_locked
from uploadguard._native import _kernel
from uploadguard.sandbox import lockdown
from uploadguard.sandbox.lockdown import Layers, available, lock_down

NAMES = tuple(Layers().to_dict())


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_this_system_offers_all_layers_and_looking_changes_nothing() -> None:
    before = {name: _status(os.getpid())[name] for name in ("NoNewPrivs", "Seccomp", "CapEff")}

    offered = available()

    assert offered.missing(set(NAMES) - {"other_user"}) == ()
    assert offered.other_user == (os.geteuid() == 0)
    assert {name: _status(os.getpid())[name] for name in before} == before


def test_missing_names_layers_in_order_and_knows_no_others() -> None:
    assert Layers().missing() == tuple(name for name in NAMES if name in lockdown.REQUIRED)
    assert Layers(seccomp=True, landlock_abi=3).missing({"pidfd", "seccomp", "landlock_abi"}) == ("pidfd",)
    with pytest.raises(ValueError, match="no such layer: firewall"):
        Layers().missing({"firewall"})


def test_layers_survive_json() -> None:
    layers = Layers(seccomp=True, landlock_abi=7)
    assert Layers.from_dict(json.loads(json.dumps(layers.to_dict()))) == layers


@pytest.mark.parametrize(
    "change",
    [{"seccomp": 1}, {"landlock_abi": True}, {"landlock_abi": None}, {"pidfd": "yes"}, {"firewall": True}],
)
def test_layers_are_not_made_of_just_anything(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a record of layers"):
        Layers.from_dict({**Layers().to_dict(), **change})
    with pytest.raises(ValueError, match="not a record of layers"):
        Layers.from_dict({"seccomp": True})


@pytest.mark.parametrize("user", USERS)
def test_what_it_reports_is_what_the_kernel_says(user: str) -> None:
    process = start_locked(
        "import json, time; print(json.dumps(layers.to_dict()), flush=True); time.sleep(600)",
        before="import json",
        user=user,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    status = _status(process.pid)
    rows = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    open_fds = sorted(int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir())
    size_bytes = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    process.kill()
    _, _, errors = finish(process)

    layers = Layers.from_dict(json.loads(line or errors))
    became_another = user == "as_started" and os.geteuid() == 0
    assert layers.missing(set(NAMES) - {"other_user"}) == ()
    assert layers.other_user == became_another
    assert layers.landlock_abi == available().landlock_abi
    assert (status["Seccomp"], status["NoNewPrivs"], status["Groups"]) == ("2", "1", "")
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert set(status["Uid"].split()).isdisjoint({"0"})
    assert len(set(status["Uid"].split())) == 1
    if became_another:
        assert int(status["Uid"].split()[0]) not in (0, 65_534)
    limits = {row[:26].strip(): row[26:].split()[:2] for row in rows}
    for name in ("core file size", "file size", "locked memory", "msgqueue size"):
        assert limits[f"Max {name}"] == ["0", "0"]
    assert limits["Max open files"] == ["3", "3"]
    assert len(set(limits["Max address space"])) == 1
    assert int(limits["Max address space"][0]) - size_bytes == pytest.approx(MEMORY_BYTES, abs=32 << 20)
    assert int(limits["Max processes"][1]) < 100_000
    assert open_fds == [0, 1, 2]


@pytest.mark.parametrize("user", USERS)
def test_every_decoder_still_decodes(user: str) -> None:
    before = """
        import os
        from pathlib import Path
        from tests.media import files
        from uploadguard.config import Settings
        from uploadguard.hashing import MediaHasher
        from uploadguard.testing import media

        def every_kind(scene):
            return {
                "jpeg": files.encode(scene, "JPEG"),
                "progressive": files.encode(scene, "JPEG", progressive=True),
                "png": files.encode(scene, "PNG"),
                "bmp": files.encode(scene, "BMP"),
                "gif": files.encode(scene, "GIF"),
                "webp": files.encode(scene, "WEBP"),
                "avif": files.encode(scene, "AVIF"),
                "tiff": files.encode(scene, "TIFF"),
                **{f"tiff {name}": files.encode(scene, "TIFF", compression=name)
                   for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")},
            }

        odd = {
            "heic": Path("DATA/drawn.heic").read_bytes(),
            "cmyk": media.cmyk_jpeg(), "palette": media.palette_png(), "16 bit": media.grey16_png(),
            "transparent": media.transparent_png(), "rotated": media.rotated_jpeg(),
            "animated gif": media.animated_gif(), "animated webp": media.animated_webp(),
        }
        large = every_kind(files.scene(1600, 1200))
        signals = {"enabled": ["md5", "pdq", "phash", "dhash"]}
        hasher = MediaHasher(Settings(signals=signals, sandbox={"isolation": "none"}))
        def hash_all(kinds):
            done = {name: hasher.hash(data) for name, data in kinds.items()}
            assert all(hashed.complete for hashed in done.values()), [hashed.failures for hashed in done.values()]
            return {name: hashed.hashes for name, hashed in done.items()}
        # Small files of the other kinds are all that warms their decoders.
        hash_all(every_kind(files.scene(64, 48)))
        expected = hash_all(odd)
        """.replace("DATA", str(Path(__file__).parents[1] / "media" / "data"))
    after = """
        assert layers.missing(["seccomp", "landlock_abi", "no_exec_memory", "rlimits"]) == ()
        for _ in range(2):
            assert hash_all(odd) == expected
            print(len(hash_all(large)))
        """
    assert run_locked(after, before=before, user=user).split() == ["12", "12"]


def test_memory_is_bounded_by_what_was_asked_for() -> None:
    after = """
        held = bytearray(48 << 20)
        try:
            more = bytearray(48 << 20)
        except MemoryError:
            print("bounded")
        """
    assert run_locked(after, memory_bytes=64 << 20) == "bounded"


def test_other_descriptors_are_closed_and_no_more_can_be_had() -> None:
    script = """
        import errno, fcntl, os, socket
        from uploadguard.sandbox.lockdown import lock_down
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        file = os.open("/proc/self/exe", os.O_RDONLY)
        lock_down(memory_bytes=1 << 28, keep_fds=[ours.fileno(), theirs.fileno()])
        ours.send(b"kept")
        assert theirs.recv(10) == b"kept"
        for act in (lambda: os.read(file, 1), lambda: fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 0)):
            try:
                act()
            except OSError as error:
                print(errno.errorcode[error.errno])
        """
    status, printed, errors = finish(start(textwrap.dedent(script)))
    assert (status, printed.split()) == (0, ["EBADF", "EMFILE"]), errors


def test_threads_from_before_are_locked_down_too() -> None:
    before = """
        import threading
        go, seen = threading.Event(), []
        def read():
            go.wait()
            try:
                open("/proc/self/exe", "rb")
            except OSError as error:
                seen.append(type(error).__name__)
        thread = threading.Thread(target=read)
        thread.start()
        """
    after = "go.set(); thread.join(); print(*seen, layers.seccomp, layers.landlock_abi)"
    # Landlock binds threads one by one, so what it does for one of several is not counted.
    assert run_locked(after, before=before) == "PermissionError True 0"


def test_abort_ends_as_what_it_is() -> None:
    status, _, _ = finish(start_locked("os.abort()"))
    assert status == -signal.SIGABRT


@pytest.mark.parametrize("user", USERS)
def test_it_dies_with_its_parent(user: str) -> None:
    parent = start(
        "import sys, time\n"
        "from tests.sandbox.children import start_locked\n"
        f"child = start_locked('print(os.getpid(), flush=True); import time; time.sleep(600)', user={user!r})\n"
        "print(child.stdout.readline(), flush=True)\n"
        "time.sleep(600)\n"
    )
    assert parent.stdout is not None
    pidfd = os.pidfd_open(int(parent.stdout.readline()))
    try:
        assert select.select([pidfd], [], [], 0) == ([], [], [])
        parent.kill()
        assert select.select([pidfd], [], [], 30) == ([pidfd], [], [])
    finally:
        parent.kill()
        finish(parent)
        os.close(pidfd)


def test_a_parent_that_is_gone_is_noticed() -> None:
    script = """if True:
        from uploadguard.sandbox.lockdown import lock_down
        try:
            lock_down(memory_bytes=1 << 28, keep_fds=[], parent_pid=2**22 + 1)
        except OSError as error:
            print(error.strerror)
        """
    assert finish(start(script))[1] == "the process that started this worker is gone"


def test_what_is_required_and_not_offered_is_named_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel, "sandbox_probe", lambda: (False, 0))
    before = _status(os.getpid())["NoNewPrivs"]

    with pytest.raises(OSError, match="does not offer what the sandbox needs: seccomp, no_exec_memory") as caught:
        lock_down(memory_bytes=1 << 28, keep_fds=[])

    assert caught.value.errno == errno.ENOTSUP
    assert _status(os.getpid())["NoNewPrivs"] == before


def test_without_seccomp_and_landlock_the_rest_can_still_be_had() -> None:
    before = """
        from uploadguard._native import _kernel
        _kernel.sandbox_probe = lambda: (False, 0)
        """
    after = "import json; print(json.dumps(layers.to_dict()))"
    layers = Layers.from_dict(json.loads(run_locked(after, before=before)))
    assert layers.missing(NAMES) == tuple(
        name
        for name in NAMES
        if name in {"seccomp", "landlock_abi", "no_exec_memory"} or (name == "other_user" and os.geteuid() != 0)
    )


def test_a_filter_that_cannot_be_installed_stops_it() -> None:
    before = """
        import errno
        from uploadguard._native import _kernel
        def refuse():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        _kernel.sandbox_filter_calls = refuse
        """
    status, _, errors = finish(start_locked("", before=before, required="{'seccomp'}"))
    assert status == 1
    assert errors.splitlines()[-1].endswith(
        "the sandbox is not in force: no seccomp (could not filter system calls: Device or resource busy)"
    )


def test_a_filter_that_does_not_stand_is_not_reported() -> None:
    before = """
        from uploadguard._native import _kernel
        _kernel.sandbox_filter_calls = lambda: None
        _kernel.sandbox_restrict_landlock = lambda abi: None
        """
    printed = run_locked("print(layers.seccomp, layers.no_exec_memory, layers.landlock_abi)", before=before)
    assert printed == "False False 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to lose")
def test_root_that_cannot_change_users_loses_its_capabilities() -> None:
    before = """
        def refuse(*ids):
            raise OSError(22, "no such user here")
        os.setresuid = refuse
        """
    printed = run_locked("print(os.getuid(), layers.other_user, layers.no_capabilities)", before=before)
    assert printed == "0 False True"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to lose")
def test_root_that_may_not_kill_others_stays_so_that_the_host_can_end_the_worker() -> None:
    before = """
        import ctypes
        kill, every = 1 << 5, 0xFFFFFFFF
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        held = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None)
        assert libc.capget(header, held) == 0
        held[0] &= every - kill
        assert libc.capset(header, held) == 0
        """
    printed = run_locked("print(os.getuid(), layers.other_user, layers.no_capabilities)", before=before)
    assert printed == "0 False True"


def test_elsewhere_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "another")
    assert available() == Layers()
    with pytest.raises(OSError, match="does not offer"):
        lock_down(memory_bytes=1 << 28, keep_fds=[])
    assert lock_down(memory_bytes=1 << 28, keep_fds=[], required=()) == Layers()
