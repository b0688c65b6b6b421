"""Kills processes that preserve, renew and destroy a file, and fails their disk, at every writing call.

    python -m tests.ledger.soak_vault

Each run is a process of its own. Afterwards a file whose storing was acknowledged must be there, whole; one whose
destruction was acknowledged must be gone; and whatever else lies in the vault must be a temporary file, or whole.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ledger.faultlib import Fault, arm, reexec, seen
from uploadguard.errors import EvidenceError
from uploadguard.ledger.vault import Vault
from uploadguard.storage.keys import Key, Keys

DATA = bytes(range(256)) * 800
OLD, NEW = Key(bytes(32)), Key(bytes([1]) * 32)
MODES = (
    (Fault.KILL_BEFORE, 0),
    (Fault.KILL_AFTER, 0),
    (Fault.FAIL_ONCE, errno.ENOSPC),
    (Fault.FAIL_ONCE, errno.EIO),
    (Fault.FAIL_FROM, errno.ENOSPC),
    (Fault.FAIL_FROM, errno.EIO),
    (Fault.SHORT_THEN_FAIL, errno.ENOSPC),
)
STORED, RENEWED, DESTROYED, REFUSED = "stored", "renewed", "destroyed", "refused"
MORE_CALLS = 77


def open_vault(path: Path, *keys: Key) -> Vault:
    return Vault(path, Keys(keys), keep=None)


def do_store(path: Path, _: dict[str, Any] | None) -> object:
    return open_vault(path, NEW).store("reference", DATA, "image/jpeg")


def do_renew(path: Path, stored: dict[str, Any] | None) -> object:
    assert stored is not None
    return open_vault(path, NEW, OLD).renew(stored["file"]) and RENEWED


def do_destroy(path: Path, stored: dict[str, Any] | None) -> object:
    assert stored is not None
    return open_vault(path, OLD).remove(stored["file"]) and DESTROYED


def run(act: Callable[[Path, dict[str, Any] | None], object], at: int, fault: Fault, error: int) -> tuple[bool, str]:
    """One run; whether there was an ``at``-th call, and what the child said."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "vault")
        path.mkdir()
        before = open_vault(path, OLD).store("reference", DATA, "image/jpeg") if act is not do_store else None
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            arm(path, at, fault, error)
            try:
                said = act(path, before)
            except EvidenceError:
                said = REFUSED
            os.write(writing, json.dumps([said, seen() >= at]).encode())
            os._exit(0)
        os.close(writing)
        answer = os.read(reading, 65536)
        os.close(reading)
        os.waitpid(child, 0)
        said, reached = json.loads(answer) if answer else (None, True)
        check(path, before, said, kept=act is do_renew, broken=fault in (Fault.FAIL_FROM, Fault.SHORT_THEN_FAIL))
        return reached, "killed" if said is None else STORED if isinstance(said, dict) else said


def check(path: Path, before: dict[str, Any] | None, said: object, *, kept: bool, broken: bool) -> None:
    vault = open_vault(path, NEW, OLD)
    digest = hashlib.sha256(DATA).digest()
    found = list(vault.files())
    names = [one.name for one in found if one.name is not None]
    if isinstance(said, dict):
        assert names == [said["file"]]
        assert vault.read(said["file"], digest, reference="reference") == DATA
    elif before is None:
        for name in names:  # never acknowledged, but whole
            assert said is None or broken
            assert vault.read(name, digest) == DATA
        if said == REFUSED and not broken:
            assert found == []
    elif said == DESTROYED:
        assert names == []
    elif kept:
        keys = (NEW,) if said == RENEWED else (NEW, OLD)
        assert open_vault(path, *keys).read(before["file"], digest) == DATA
    for one in found:
        if one.name is None:
            vault.remove_unfinished(one)
    assert [one.name for one in vault.files()] == names


def main() -> None:
    reexec("tests.ledger.soak_vault")
    outcomes: dict[str, int] = {}
    for act, (fault, error) in itertools.product((do_store, do_renew, do_destroy), MODES):
        for at in range(1, MORE_CALLS):
            reached, outcome = run(act, at, fault, error)
            if not reached:
                break
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        else:
            sys.exit("there are more writing calls than that")
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
