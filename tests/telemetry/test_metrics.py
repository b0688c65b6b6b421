"""Prometheus metrics: what is counted, that labels are few and harmless, and that several processes add up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from uploadguard import Guard, hookimpl
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.telemetry.metrics import Metrics
from uploadguard.testing import picture, testlist

LIST_NAME = "a-list-nobody-should-see"


@pytest.fixture
def hash_set(tmp_path: Path) -> Path:
    HashSet.create(tmp_path / "set").add_list(LIST_NAME, testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    return tmp_path / "set"


class Raises:
    """A plugin that always raises."""

    @hookimpl
    def uploadguard_decision_made(self) -> None:
        raise RuntimeError("d41d8cd98f00b204e9800998ecf8427e")


def test_decisions_are_counted_and_timed(hash_set: Path) -> None:
    registry = CollectorRegistry()
    plugins = {"metrics-of-mine": Metrics(registry), "raises": Raises()}
    with Guard.open(hashset=hash_set, plugins=plugins, sandbox={"isolation": "none"}) as guard:
        value = registry.get_sample_value
        assert value("uploadguard_ready") == 1
        assert value("uploadguard_hash_set_generation") == 1
        guard.check(picture.picture_bytes())
        guard.check(picture.unrelated_picture())
        guard.check(b"GIF89a")
        guard.check(b"")
        assert guard.status().failures["empty_file"] == 1
        updated = value("uploadguard_hash_set_updated_timestamp_seconds")
        assert updated == guard.status().updated_at.timestamp()  # type: ignore[union-attr]
        assert value("uploadguard_hash_set_oldest_list_timestamp_seconds") == updated
        assert value("uploadguard_hash_set_entries") == guard.status().entries
    assert value("uploadguard_checks_total", {"verdict": "block", "media_type": "unknown"}) == 1, "not decoded"
    assert value("uploadguard_checks_total", {"verdict": "allow", "media_type": "image/jpeg"}) == 1
    assert value("uploadguard_checks_total", {"verdict": "queue", "media_type": "image/gif"}) == 1
    assert value("uploadguard_not_scanned_total", {"reason": "empty_file"}) == 1
    assert value("uploadguard_failures_total", {"code": "empty_file", "verdict": "not_scanned"}) == 1
    assert value("uploadguard_matches_total", {"signal_type": "sha256"}) == 1
    assert value("uploadguard_stage_seconds_count", {"stage": "total"}) == 4
    assert value("uploadguard_plugin_errors_total", {"plugin": "raises"}) == 4, "the last one too, at shutdown"
    shown = generate_latest(registry).decode()
    assert LIST_NAME not in shown
    assert "d41d8cd98f00b204" not in shown


def test_two_guards_of_one_process_share_the_metrics(hash_set: Path) -> None:
    registry = CollectorRegistry()
    for _ in range(2):
        plugins = {"metrics-of-mine": Metrics(registry)}
        with Guard.open(hashset=hash_set, plugins=plugins, sandbox={"isolation": "none"}) as guard:
            guard.check(b"")
    assert registry.get_sample_value("uploadguard_stage_seconds_count", {"stage": "total"}) == 2


def test_a_guard_that_closes_leaves_what_is_shown_to_the_one_that_is_open(hash_set: Path) -> None:
    registry = CollectorRegistry()
    value = registry.get_sample_value
    sandbox = {"isolation": "process"}
    first = Guard.open(hashset=hash_set, plugins={"metrics-of-mine": Metrics(registry)}, sandbox=sandbox)
    first.check(picture.unrelated_picture())
    assert value("uploadguard_workers") >= 1  # type: ignore[operator]
    with Guard.open(hashset=hash_set, plugins={"metrics-of-mine": Metrics(registry)}, sandbox=sandbox):
        first.close()
        assert value("uploadguard_ready") == 1, "a host that opens a new Guard and then closes the old one"
        assert value("uploadguard_workers") == 0
    assert value("uploadguard_ready") == 0


_WORKER = """
import sys
from uploadguard import Guard
if __name__ == "__main__":
    options = dict(telemetry={"metrics": True}, sandbox={"isolation": "none"})
    with Guard.open(hashset=sys.argv[1], **options) as guard:
        for _ in range(3):
            guard.check(b"")
"""

_SCRAPE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def _scrape(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", _SCRAPE]
    return subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True).stdout


def test_processes_add_up(hash_set: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _WORKER, str(hash_set)], env=environment, check=True, timeout=120)
    shown = _scrape(environment)
    assert "uploadguard_ready 0.0" in shown
    for file in (tmp_path / "metrics").glob("gauge_*"):
        multiprocess.mark_process_dead(int(file.stem.rsplit("_", 1)[1]), path=str(tmp_path / "metrics"))  # type: ignore[no-untyped-call]
    later = _scrape(environment)
    assert "uploadguard_ready" not in later, "a worker that was recycled does not stand for those at work"
    assert "uploadguard_hash_set_generation" not in later
    assert 'uploadguard_checks_total{media_type="unknown",verdict="not_scanned"} 6.0' in shown
    assert "uploadguard_hash_set_generation 1.0" in shown
    assert 'uploadguard_stage_seconds_count{stage="total"} 6.0' in shown
