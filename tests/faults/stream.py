"""An upload of many gigabytes, none of which are stored: how long it takes, and what the host's memory grows by.

Run: ``python -m tests.faults.stream [--gb 4]``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.faults.bombs import EndlessStream
from tests.faults.host import Host
from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        hash_set = Path(directory) / "set"
        HashSet.create(hash_set).add_list("test", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
        with Guard.open(hashset=hash_set) as guard:
            before_mb, started = Host.resident_mb(), time.perf_counter()
            decision = guard.check(EndlessStream(arguments.gb << 30))  # type: ignore[arg-type]
            seconds, grown_mb = time.perf_counter() - started, Host.resident_mb() - before_mb
    print(f"{decision.verdict}, {', '.join(decision.reasons)}: {seconds:.1f} s, {grown_mb:.1f} MB more memory")


if __name__ == "__main__":
    main()
