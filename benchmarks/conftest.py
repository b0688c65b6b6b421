"""Prints, behind pytest-benchmark's own table, each benchmark as a ratio to the peer of its group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A Guard on a hash set with the built-in test list."""
    directory: Path = tmp_path_factory.mktemp("hashset")
    hashset = HashSet.create(directory)
    hashset.add_list(testlist.TEST_LIST_NAME, testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    with Guard.open(hashset=directory) as opened:
        yield opened


def pytest_xdist_auto_num_workers() -> int:
    """Nothing beside what is measured."""
    return 0


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each pair: how many times faster than the peer named in the benchmark's ``peer``."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    medians = {(bench.group, bench.name.split("[")[0]): bench.stats.median for bench in session.benchmarks}
    terminalreporter.section("ratios to peers in this run (median)")
    for bench in session.benchmarks:
        peer = bench.extra_info.get("peer")
        base = medians.get((bench.group, peer)) if peer else None
        if base:
            ours = bench.stats.median
            terminalreporter.write_line(
                f"{bench.name:44} {ours * 1e3:9.2f} ms   {peer}: {base * 1e3:9.2f} ms   {base / ours:7.2f} times faster"
            )
