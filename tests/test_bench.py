"""The numbers behind ``uploadguard bench``: percentiles, samples, budgets, bins, and when measuring ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.bench import BudgetResult, parse_budget
from uploadguard.bench.budgets import judge
from uploadguard.bench.latency import measure_latencies
from uploadguard.bench.machine import _clone
from uploadguard.bench.plot import histogram
from uploadguard.bench.statistics import Percentiles, in_order, samples_needed
from uploadguard.errors import MediaReadError
from uploadguard.guard import Guard

TIMES_MS = st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=300)


@given(TIMES_MS)
def test_percentiles_are_values_that_were_measured(times_ms: list[float]) -> None:
    found = Percentiles.of(times_ms, [Fraction("99.9")])
    for percentile, ms in found.values_ms.items():
        assert ms in times_ms
        assert sum(time <= ms for time in times_ms) >= float(percentile) / 100 * len(times_ms) - 1e-9
    assert list(found.values_ms.values()) == sorted(found.values_ms.values())
    assert found.max_ms == max(times_ms)


@pytest.mark.parametrize(
    ("percentile", "needed"), [("50", 4), ("95", 40), ("99", 200), ("99.9", 2000), ("99.99", 20000)]
)
def test_samples_needed(percentile: str, needed: int) -> None:
    assert samples_needed([Fraction(50), Fraction(percentile)]) == needed


def test_stages_are_in_the_order_of_a_check() -> None:
    assert in_order({"total", "phash", "read", "match", "pdq", "dhash"}) == [
        "read", "pdq", "dhash", "phash", "match", "total",
    ]  # fmt: skip


@given(TIMES_MS)
def test_bins_hold_every_check_once(times_ms: list[float]) -> None:
    bins = histogram(times_ms)
    assert sum(item.checks for item in bins) == len(times_ms)
    assert bins[-1].share == pytest.approx(1.0)
    for item in bins:
        assert item.share == pytest.approx(sum(time <= item.high_ms for time in times_ms) / len(times_ms))


@pytest.mark.parametrize(
    ("text", "stage", "percentile", "limit_ms"),
    [
        ("p99=80ms", "total", "99", 80),
        ("match.p99.9=250us", "match", "99.9", 0.25),
        ("loaded.p50=1.5s", "loaded", "50", 1500),
        ("total.p0.1=0ms", "total", "0.1", 0),
    ],
)
def test_budgets(text: str, stage: str, percentile: str, limit_ms: float) -> None:
    budget = parse_budget(text, ["match", "total", "loaded"])
    assert (budget.stage, budget.percentile, budget.limit_ms) == (stage, Fraction(percentile), limit_ms)


@given(st.text(alphabet="p9.=mus total\n²", max_size=12))
def test_any_text_is_a_budget_or_a_value_error(text: str) -> None:
    try:
        assert parse_budget(text, ["total"]).stage == "total"
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either way is right


def judged(text: str, times_ms: list[float]) -> BudgetResult:
    budget = parse_budget(text, ["total"])
    return judge(budget, {"total": Percentiles.of(times_ms, [budget.percentile])})


def test_a_limit_is_inclusive() -> None:
    assert judged("p99=5ms", [5.0] * 200).met
    assert judged("p99=5ms", [5.0] * 198 + [9.0] * 2).met
    assert not judged("p99=5ms", [5.0] * 197 + [5.001] * 3).met


def test_too_few_samples_meet_nothing() -> None:
    result = judged("p99=5ms", [1.0] * 199)
    assert not result.met
    assert "takes 200" in result.why


class Clock:
    """Goes on by a second whenever it is looked at."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    from uploadguard.testing import media

    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(media.flat_png(40 + seed, 30))
    return paths


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    from uploadguard.hashset import HashSet

    HashSet.create(tmp_path / "hashset")
    return Guard.open(hashset={"path": tmp_path / "hashset", "allow_empty": True})


def test_measuring_ends_with_the_samples(guard: Guard, files: list[Path]) -> None:
    found = measure_latencies(guard, files, samples=7, max_s=1e9)
    assert found.samples == len(found.times_ms()["total"]) == 7
    assert measure_latencies(guard, files, samples=1, max_s=1e9).pictures.keys() == set(files)


def test_measuring_ends_with_the_time_but_not_without_a_sample(guard: Guard, files: list[Path]) -> None:
    assert measure_latencies(guard, files, samples=10**9, max_s=5, clock=Clock()).samples == 5
    assert measure_latencies(guard, files, samples=10**9, max_s=1e-9, clock=Clock()).samples == 1


def test_files_that_vanish_are_left_out(guard: Guard, files: list[Path]) -> None:
    files[0].unlink()
    found = measure_latencies(guard, files, samples=6, max_s=1e9)
    assert list(found.unreadable) == files[:1]
    assert found.samples == 6
    for path in files[1:]:
        path.unlink()
    with pytest.raises(MediaReadError):
        measure_latencies(guard, files, samples=6, max_s=1e9)


def test_the_kernels_clone_follows_from_the_cpus_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    v3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert _clone({"sse2"}) == "baseline"
    assert _clone(v3) == "x86-64-v3"
    assert _clone(v4) == "x86-64-v4"
    assert _clone(v4 | {"avx512_vpopcntdq"}) == "x86-64-v4, vector popcount"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert _clone(v4) == "baseline"
