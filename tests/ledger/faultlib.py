"""Makes the n-th writing call of a process fail, or be its last: builds ``faultlib.c`` and has it preloaded.

:func:`reexec` starts the running program anew with the library preloaded; after that, :func:`arm` in a forked child
sets the trap.
"""

from __future__ import annotations

import ctypes
import enum
import os
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["Fault", "arm", "disarm", "reexec", "seen"]

_SOURCE = Path(__file__).with_suffix(".c")
_MARK = "UPLOADGUARD_FAULTLIB"


class Fault(enum.IntEnum):
    """What becomes of the n-th call."""

    FAIL_ONCE = 1
    FAIL_FROM = 2
    """It and all later ones fail."""
    KILL_BEFORE = 3
    KILL_AFTER = 4
    SHORT_THEN_FAIL = 5
    """It writes half, and all later ones fail: a disk that fills up."""


def reexec(module: str) -> None:
    """Unless the library is loaded: build it, and run ``python -m module`` with the same arguments in its place."""
    if os.environ.get(_MARK):
        return
    library = Path(tempfile.mkdtemp(prefix="faultlib")) / "faultlib.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), _MARK: str(library)}
    os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def arm(directory: Path, at: int, fault: Fault, error: int = 0) -> None:
    """From now on the ``at``-th writing call below ``directory``, counted from 1, is hit."""
    ctypes.CDLL(None).fault_arm(str(directory).encode(), ctypes.c_long(at), int(fault), error)


def disarm() -> None:
    """Nothing is hit any more."""
    ctypes.CDLL(None).fault_disarm()


def seen() -> int:
    """How many writing calls there were since :func:`arm`."""
    function = ctypes.CDLL(None).fault_seen
    function.restype = ctypes.c_long
    return int(function())
