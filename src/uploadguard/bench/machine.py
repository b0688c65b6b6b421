"""The machine and the versions that a measurement was made with; figures mean nothing without them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from uploadguard.bench.throughput import available_cpus
from uploadguard.versions import versions

__all__ = ["describe_machine"]

_LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"},
}
"""Flags that a CPU must have for these clones of the kernel's functions, besides those of the lower level."""


def describe_machine() -> dict[str, Any]:
    """JSON types. ``kernel`` is the widest clone of the native kernel's functions that this CPU runs."""
    cpuinfo = _cpuinfo()
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_available": available_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": _clone(set(cpuinfo.get("flags", "").split())),
        "versions": {name.strip(): version for name, version in versions().items()},
    }


def _clone(flags: set[str]) -> str:
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return "baseline"
    level = next((name for name, needed in _LEVELS.items() if needed | _LEVELS["x86-64-v3"] <= flags), "baseline")
    return f"{level}, vector popcount" if level == "x86-64-v4" and "avx512_vpopcntdq" in flags else level


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
