"""The runner of hostile files: a short run of it, and that it notices what must not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.bombs import EndlessStream, gif_frames, jpeg_scans, png_of_megapixels
from tests.faults.corpus import faults_of
from tests.faults.host import Host
from uploadguard import Decision, Failure, FailureCode, Guard, Hash, Media, Verdict
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist

CLEAN = Decision(Verdict.ALLOW, (), (), (), (Hash("pdq", bytes(32), 100),), Media(1), 1)


def test_mutants_in_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("no picture")
    lines = tmp_path / "lines"
    command = [sys.executable, "-m", "tests.faults.corpus", tmp_path / "folder", "--mutants=300", "--jsonl", lines]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPLOADGUARD_")}
    result = subprocess.run(
        [*map(str, command), "--grace=60"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(records) == 301
    assert records[0]["name"] == "folder/text"
    assert {record["verdict"] for record in records} >= {"allow", "queue", "not_scanned"}
    assert "0 faults" in result.stdout


def test_what_must_not_be_is_noticed() -> None:
    assert faults_of(CLEAN, 1.0, 2.0) == []
    assert faults_of(CLEAN, 2.1, 2.0) == ["hang"]
    assert faults_of(replace(CLEAN, hashes=(Hash("md5", bytes(16)),)), 1.0, 2.0) == ["undecodable and allowed"]
    failed = replace(CLEAN, failures=(Failure(FailureCode.TRUNCATED, ""),))
    assert faults_of(failed, 1.0, 2.0) == ["undecodable and allowed"]
    assert faults_of(replace(failed, verdict=Verdict.QUEUE), 1.0, 2.0) == []


def test_what_is_left_over_is_noticed() -> None:
    host = Host()
    assert host.left_over() == []
    descriptor = os.open("/dev/null", os.O_RDONLY)
    child = subprocess.Popen(["sleep", "60"])
    try:
        left = host.left_over(wait_s=0)
        assert "descriptor of /dev/null" in left
        assert f"process {child.pid}" in left
    finally:
        child.kill()
        child.wait()
        os.close(descriptor)


@pytest.fixture(scope="module")
def hash_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("bombs") / "set"
    HashSet.create(directory).add_list("test", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))
    return directory


def test_bombs_are_refused_before_they_are_decoded(hash_set: Path) -> None:
    bombs = {
        "too_many_pixels": png_of_megapixels(13_350, 13_350, bits=8)[:60_000],  # the header is enough
        "too_complex": jpeg_scans(scans=200, side=1000),
        "decode_failed": gif_frames(frames=2000),
    }
    with Guard.open(hashset=hash_set, sandbox={"isolation": "none"}) as guard:
        for reason, data in bombs.items():
            assert reason in guard.check(data).reasons


def test_a_stream_of_four_gigabytes_is_not_kept(hash_set: Path) -> None:
    """A sixteenth of that here."""
    size_bytes, limit_bytes = 1 << 28, 1 << 20
    with Guard.open(
        hashset=hash_set,
        media={"max_file_bytes": limit_bytes},
        signals={"enabled": ["md5"]},
        sandbox={"isolation": "none"},
    ) as guard:
        before_mb = Host.resident_mb()
        decision = guard.check(EndlessStream(size_bytes))  # type: ignore[arg-type]
        assert Host.resident_mb() - before_mb < 32
    assert decision.reasons == ("too_large",)
    assert decision.media.size_bytes == size_bytes
