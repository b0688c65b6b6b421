"""Short runs of what ``soak_kills`` and ``soak_load`` do at length."""

from __future__ import annotations

from pathlib import Path

from tests.effort import tries
from tests.hashset import children, soak_import, soak_kills, soak_load


def test_writers_killed_at_random_points_leave_a_whole_set(tmp_path: Path) -> None:
    outcomes = soak_kills.run(tries(10), tmp_path / "set")
    assert outcomes["generations"] > tries(20), "no child ever got through a change"
    assert sum(count for name, count in outcomes.items() if name.startswith("at a step")) > 1


def test_no_check_fails_or_is_mixed_while_generations_change(tmp_path: Path) -> None:
    figures = soak_load.run(tmp_path / "set", swaps=8, deltas=80, processes=2, refresh_s=0.02, base=500)
    assert "0 failed, 0 mixed" in figures


def test_memory_does_not_follow_the_size_of_a_list(tmp_path: Path) -> None:
    peaks_mb = []
    for count in (30_000, 150_000):
        process, pipe = children.start(soak_import.measured_in_parts, tmp_path / str(count), count)
        found = pipe.recv()
        process.join()
        assert [said for _, said in found][:2] == [f"{count:,} entries", f"{count:,} entries out, {count:,} in"]
        peaks_mb.append([peak_mb for peak_mb, _ in found])
    # Without spools an import took 160 bytes an entry, which is 19 MB here, and an update more.
    growth_mb = [large - small for small, large in zip(*peaks_mb, strict=True)]
    assert max(growth_mb) < 8, (peaks_mb, growth_mb)
