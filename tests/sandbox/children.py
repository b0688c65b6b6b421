"""Child processes that lock themselves down, so that a test's own process never does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 512 << 20

USERS = ("as_started", "nobody") if os.geteuid() == 0 else ("as_started",)
"""Who a child is when it locks itself down: who the tests run as, and, where they run as root, somebody else too."""

_SCRIPT = """\
import os
from uploadguard.sandbox.lockdown import lock_down
{before}
if {user!r} == "nobody":
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
layers = lock_down(memory_bytes={memory_bytes}, keep_fds=[], required={required})
{after}
"""


def start(script: str) -> subprocess.Popen[str]:
    """Run Python code with the repository on the path; its standard streams are pipes."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_locked(
    after: str, *, before: str = "", user: str = "as_started", memory_bytes: int = MEMORY_BYTES, required: str = "()"
) -> subprocess.Popen[str]:
    """Run ``before``, lock down as that user, run ``after``, which finds what is in force as ``layers``."""
    before, after = textwrap.dedent(before), textwrap.dedent(after)
    return start(_SCRIPT.format(before=before, after=after, user=user, memory_bytes=memory_bytes, required=required))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for its end: its exit status, what it printed, and its errors. One that does not end is killed."""
    try:
        printed, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, printed.strip(), errors


def run_locked(after: str, *, before: str = "", user: str = "as_started", memory_bytes: int = MEMORY_BYTES) -> str:
    """What a child prints that must end well."""
    status, printed, errors = finish(start_locked(after, before=before, user=user, memory_bytes=memory_bytes))
    assert status == 0, errors
    return printed
