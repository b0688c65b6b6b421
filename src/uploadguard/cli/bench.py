"""``uploadguard bench``: how long checks take here, and whether that is within the budgets."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import EXIT_HELP, Exit
from uploadguard.cli.output import (
    echo,
    file_fields,
    new_table,
    print_json,
    print_table,
    report_error,
    report_warning,
    size_text,
)
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.bench import BenchRun, Budget, Deployment
    from uploadguard.bench.run import Show

__all__ = ["bench"]

_ENTRIES = 100_000
_BAR_WIDTH = 32


@click.command(epilog=EXIT_HELP)
@click.argument("paths", metavar="[FILE|DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--entries",
    metavar="N",
    type=click.IntRange(1),
    help=f"Check against N random entries, not the configured hash set. {_ENTRIES:,} where nothing is configured.",
)
@click.option(
    "--budget",
    "budgets",
    metavar="[STAGE.]pNN=TIME",
    multiple=True,
    help="What a percentile may take: p99=80ms, match.p99=1ms, loaded.p95=0.2s. Repeatable. If one is missed: exit 3.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    help="How long to time stages at most; it ends once there are samples enough. Otherwise 60.",
)
@click.option(
    "--workers", metavar="N", type=click.IntRange(1), help="Processes that check at once. Otherwise the CPUs."
)
@click.option("--plot", metavar="FILE.png", type=click.Path(path_type=Path, dir_okay=False), help="Draw a plot, too.")
@click.option("--verbose", is_flag=True, help="Show each file, with its name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def bench(
    state: State,
    paths: tuple[Path, ...],
    entries: int | None,
    budgets: tuple[str, ...],
    seconds: float,
    workers: int | None,
    plot: Path | None,
    verbose: bool,
    as_json: bool,
) -> Exit:
    """Time checks of FILEs, of all pictures in DIRs, or of drawn ones of 1, 4 and 12 megapixels.

    Tells percentiles of each stage, one check after the other; then how many checks a second several processes do.
    """
    from uploadguard.bench import require_matplotlib, run_bench, write_plot

    if plot is not None:
        require_matplotlib()
    with tempfile.TemporaryDirectory(prefix="uploadguard-bench-") as name, _progress() as show:
        directory = Path(name)
        deployment = _deployment(state, entries, directory)
        parsed = _parse(budgets, deployment)
        if deployment.made_up_entries:
            deployment.fill(lambda done: show("filling a hash set", done, deployment.made_up_entries))
        run = run_bench(deployment, paths, directory, budgets=parsed, max_s=seconds, workers=workers, show=show)
    if as_json:
        print_json(run.to_dict() | ({"files": _file_records(run)} if verbose else {}))
    else:
        _print(run, verbose=verbose)
    for warning in run.warnings:
        report_warning(warning)
    if plot is not None:
        write_plot(plot, run.latencies.times_ms(), run.budgets)
    for result in run.missed:
        report_error(f"the budget {result.budget.text} is missed: {result.why}")
    return Exit.OVER_BUDGET if run.missed else Exit.OK


@contextmanager
def _progress() -> Iterator[Show]:
    """A bar on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(None), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing", total=None)
        shown = ""

        def show(what: str, done: float, of: float) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(task, description=what, total=of)
                shown = what
            bar.update(task, completed=done)

        yield show


def _deployment(state: State, entries: int | None, directory: Path) -> Deployment:
    """The configured one. Its hash set is to be made up if that was asked for, or if nothing is configured."""
    from uploadguard.bench import Deployment

    config = state.find_config()
    said = ("UPLOADGUARD_CONFIG", "UPLOADGUARD_HASHSET__PATH")
    if entries is None and (config is not None or any(os.environ.get(name) for name in said)):
        return Deployment(config)
    return Deployment(config, {"hashset": {"path": directory / "hashset"}}, entries or _ENTRIES)


def _parse(texts: Sequence[str], deployment: Deployment) -> list[Budget]:
    from uploadguard.bench import parse_budget

    stages = deployment.stages()
    budgets = []
    for text in texts:
        try:
            budgets.append(parse_budget(text, stages))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", param_hint="--budget") from None
    return budgets


def _file_records(run: BenchRun) -> list[dict[str, Any]]:
    """Each file with its name."""
    records: list[dict[str, Any]] = [
        {
            **file_fields(str(path)),
            "verdict": picture.verdict,
            "megapixels": None if picture.megapixels is None else round(picture.megapixels, 2),
            "samples": len(picture.times_ms["total"]),
            "median_ms": {stage: round(median(times), 4) for stage, times in picture.times_ms.items()},
        }
        for path, picture in run.latencies.pictures.items()
    ]
    return records + [{**file_fields(str(path)), "error": why} for path, why in run.latencies.unreadable.items()]


def _print(run: BenchRun, *, verbose: bool) -> None:
    machine, loaded = run.machine, run.throughput
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    kind = "random entries, for this run only" if run.made_up else f"entries, generation {run.generation}"
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in run.latencies.verdicts.items())
    at_once = (
        f"{loaded.checks_per_s:.1f} checks a second with {loaded.workers} worker(s), each a process: "
        f"{loaded.checks_per_s_per_core:.1f} a second per core"
    )
    rows = [
        (
            "CPU",
            f"{machine['cpu']}, {machine['cpus_available']} of {machine['cpus']} CPUs, load {machine['load_1min']}",
        ),
        ("memory", size_text(machine["memory_bytes"])),
        ("system", f"{machine['system']}, {machine['python']}, kernel {machine['kernel']}"),
        ("versions", versions),
        ("hash set", f"{run.entries:,} {kind}"),
        ("pictures", f"{len(run.latencies.pictures):,} {'drawn' if run.drawn else 'of your own'}"),
        ("checks", f"{run.latencies.samples:,} one after the other in {run.latencies.elapsed_s:.1f} s: {verdicts}"),
        ("at once", at_once),
    ]
    print_table(new_table("Measured", "", fold=[""]), rows)
    echo()
    _print_stages(run)
    echo()
    _print_histogram(run.latencies.times_ms()["total"])
    if verbose or run.drawn:
        echo()
        _print_pictures(run, named=verbose)
    if run.budgets:
        echo()
        table = new_table("Budget", "Measured, ms", "Result", right=["Measured, ms"], fold=["Result"])
        results = [
            (result.budget.text, _ms(result.measured_ms), f"missed: {result.why}" if not result.met else "met")
            for result in run.budgets
        ]
        print_table(table, results, {2: {text: "green" if text == "met" else "bold red" for _, _, text in results}})


def _print_stages(run: BenchRun) -> None:
    from uploadguard.bench.statistics import percentile_name

    names = [percentile_name(percentile) for percentile in run.percentiles]
    headings = ("Samples", *names, "most")
    everything = (*run.stages.items(), ("loaded", run.throughput.percentiles(run.percentiles)))
    rows = [
        (stage, f"{found.samples:,}", *(_ms(found.values_ms[p]) for p in run.percentiles), _ms(found.max_ms))
        for stage, found in everything
    ]
    print_table(new_table("Stage, in ms", *headings, right=headings), rows)


def _print_histogram(times_ms: Sequence[float]) -> None:
    """The distribution of the total, and what part of the checks was done by then."""
    from uploadguard.bench.plot import histogram

    bins = histogram(times_ms)
    most = max(item.checks for item in bins)
    bar = "█" if "utf" in (sys.stdout.encoding or "").lower() else "#"
    rows = [
        (_ms(item.high_ms), bar * round(_BAR_WIDTH * item.checks / most), f"{item.checks:,}", f"{item.share:.1%}")
        for item in bins
    ]
    print_table(new_table("Total, to ms", "", "Checks", "So far", right=["Total, to ms", "Checks", "So far"]), rows)


def _print_pictures(run: BenchRun, *, named: bool) -> None:
    """Each picture, the small ones first; with its name only if that was asked for."""
    right = ["MP", "Checks", "median, ms", "most, ms"]
    latencies = run.latencies
    rows = [
        (
            str(path) if named else "(drawn)",
            "-" if picture.megapixels is None else f"{picture.megapixels:.1f}",
            picture.verdict,
            f"{len(picture.times_ms['total']):,}",
            _ms(median(picture.times_ms["total"])),
            _ms(max(picture.times_ms["total"])),
        )
        for path, picture in sorted(latencies.pictures.items(), key=lambda item: item[1].megapixels or 0)
    ]
    rows += [(str(path), "-", why, "0", "-", "-") for path, why in latencies.unreadable.items() if named]
    columns = ("File", "MP", "Verdict", "Checks", "median, ms", "most, ms")
    print_table(new_table(*columns, right=right, fold=["File", "Verdict"]), rows)


def _ms(ms: float | None) -> str:
    """Milliseconds with three digits that count."""
    if ms is None:
        return "-"
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"
