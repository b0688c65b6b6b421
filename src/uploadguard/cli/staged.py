"""``uploadguard lists try``, ``activate``, ``discard`` and ``rollback``: what comes into force, and what goes again."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo, new_table, print_json, print_table, report_error, report_warning
from uploadguard.cli.progress import ProgressBar
from uploadguard.cli.sample import require_places
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.activation import Judged, Judgement, ListSafety
    from uploadguard.errors import HeldListError
    from uploadguard.hashing import MediaHasher
    from uploadguard.hashset import Candidate, HashSet, StagedChange
    from uploadguard.lists.samples import SampleItem
    from uploadguard.trial import Corpus, CorpusTrial, TrialHit

__all__ = [
    "activate",
    "discard",
    "end_of_change",
    "print_staged",
    "rollback",
    "staged_record",
    "trial_row",
    "try_lists",
]

_HITS_SHOWN = 20


@click.command("try")
@click.argument("name", required=False)
@click.option("--active", is_flag=True, help="Try the list in force, although another version of it is staged.")
@click.option(
    "--sample",
    "places",
    metavar="FILE_OR_DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Try it on these pictures too, or on this sample.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each list.")
@click.pass_obj
def try_lists(state: State, name: str | None, active: bool, places: tuple[Path, ...], as_json: bool) -> Exit:
    """Show which ordinary pictures a list would match: what is staged for NAME, else the list in force.

    Without NAME all that is staged, else all lists in force. Changes nothing. Ends with 4 if one of them goes beyond
    the bounds of [safety].
    """
    require_places(places)
    from uploadguard.activation import ListSafety
    from uploadguard.opening import open_hashset
    from uploadguard.plugins import Plugins

    settings = state.load_settings()
    hashset = open_hashset(settings)
    safety = ListSafety(settings, Plugins(settings))
    safety.check_sample()
    staged = [] if active else [item for item in hashset.staging.changes() if name in (None, item.list_name)]
    names = [item.list_name for item in staged]
    candidates = [hashset.staging.candidate(one) for one in names]
    if not candidates:
        candidates = [hashset.staging.in_force(one) for one in _names(hashset, name)]
    with _Given(settings, places) as given:
        worst = Exit.OK
        for number, candidate in enumerate(candidates):
            if number and not as_json:
                echo()
            worst = max(worst, _try_one(safety, candidate, given, is_staged=bool(names), as_json=as_json))
    return worst


def _names(hashset: HashSet, name: str | None) -> list[str]:
    """The lists in force to try. Raises :class:`~uploadguard.errors.UnknownListError`."""
    from uploadguard.errors import UnknownListError

    names = [info.name for info in hashset.lists() if name in (None, info.name)]
    if not names and name is not None:
        raise UnknownListError("no list of that name is in force or staged; `uploadguard lists status` shows all")
    if not names:
        echo("The hash set holds no list, and nothing is staged.", err=True)
    return names


def _try_one(safety: ListSafety, candidate: Candidate, given: _Given, *, is_staged: bool, as_json: bool) -> Exit:
    judgement = safety.judge(candidate)
    more = [safety.trial.run(candidate.result(), corpus) for corpus in given.corpora]
    if as_json:
        print_json(
            {
                "list": candidate.after.name,
                "staged": is_staged,
                "role": candidate.after.role,
                **judgement.to_dict(),
                "given": [
                    {
                        "corpus": trial.corpus,
                        "pictures": trial.items,
                        "matched": len(trial.matched),
                        "hits_total": trial.hits_total,
                        "hits": [hit.to_dict() for hit in trial.hits],
                    }
                    for trial in more
                ],
            }
        )
    else:
        title = f"{candidate.after.name} ({'staged' if is_staged else 'in force'})"
        _print_judgement(title, judgement, more)
    return Exit.OK if judgement.within_bounds else Exit.ALARM


class _Given:
    """The pictures and samples of the command line, hashed once for all lists."""

    def __init__(self, settings: Any, places: tuple[Path, ...]) -> None:
        self._settings = settings
        self._places = places
        self.corpora: list[Corpus] = []

    def __enter__(self) -> _Given:
        from uploadguard.hashing import MediaHasher
        from uploadguard.lists.samples import is_sample, read_sample
        from uploadguard.trial import Corpus

        pictures = []
        for place in self._places:
            if place.is_file() and is_sample(place):
                self.corpora.append(Corpus(str(place), lambda place=place: read_sample(place)))  # type: ignore[misc]
            else:
                pictures.append(place)
        if pictures:
            with MediaHasher(self._settings) as hasher, ProgressBar(counted=True) as bar:
                items = list(_items(hasher, pictures, bar))
            self.corpora.append(Corpus("given", lambda: items))
        return self

    def __exit__(self, *_: object) -> None: ...


def _items(hasher: MediaHasher, places: Iterable[Path], bar: ProgressBar) -> Iterable[SampleItem]:
    from dataclasses import replace

    from uploadguard.lists.samples import SampleItem
    from uploadguard.sampling import files_in, hashed_pictures

    for number, (path, hashed) in enumerate(hashed_pictures(hasher, files_in(places)), start=1):
        bar.show("hashing", number, None)
        if hashed is None:
            report_error(f"{path}: cannot be read")
        else:
            yield replace(SampleItem.of(hashed, str(path)), line=number)


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Although it goes beyond the bounds, or the list was changed meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def activate(state: State, name: str, force: bool, as_json: bool) -> Exit:
    """Put in force what is staged for the list NAME. It is tried first; ends with 4 if it goes beyond the bounds.

    Nothing is compiled again. Running Guards serve it within hashset.refresh_s.
    """
    from uploadguard.activation import Gate, ListSafety
    from uploadguard.opening import open_hashset
    from uploadguard.plugins import Plugins

    settings = state.load_settings()
    hashset = open_hashset(settings)
    safety = ListSafety(settings, Plugins(settings))
    safety.check_sample()
    gate = Gate(safety, stage=False, force=force, allow_shrink=False)
    done = hashset.staging.activate(name, judge=gate, replace_changed=force)
    judgement = gate.judgement
    assert judgement is not None
    if as_json:
        record = {"list": name, "in_force": done.in_force, "generation": done.generation}
        print_json({**record, "added": done.added, "removed": done.removed, "safety": judgement.to_dict()})
    else:
        _print_judgement(f"{name} ({'in force' if done.in_force else 'staged'})", judgement)
        if done.in_force:
            echo(f"\nThe list {name!r} is in force as it was staged. Generation {done.generation}.")
    if done.in_force:
        return Exit.OK
    _report_held(name, judgement.reasons)
    return Exit.ALARM


@click.command()
@click.argument("name")
@click.pass_obj
def discard(state: State, name: str) -> Exit:
    """Drop what is staged for the list NAME. The list in force stays as it is."""
    from uploadguard.opening import open_hashset

    found = open_hashset(state.load_settings()).staging.discard(name)
    entries = found.change.segment.metadata.entries
    echo(f"Discarded what was staged for {name!r}: {found.change.kind}, {entries:,} entries.")
    return Exit.OK


@click.command()
@click.argument("name")
@click.argument("generation", required=False, type=click.IntRange(min=0))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def rollback(state: State, name: str, generation: int | None, yes: bool, as_json: bool) -> Exit:
    """Put the list NAME in force as it was in a previous GENERATION; else in the latest that has it otherwise.

    All other lists stay as they are. Asks first; where nobody can answer, --yes is needed. The generation in force
    until then becomes a previous one: another rollback takes this one back. Running Guards serve it within
    hashset.refresh_s.
    """
    from uploadguard.importing import check_not_local
    from uploadguard.opening import open_hashset

    check_not_local(name)
    hashset = open_hashset(state.load_settings())
    planned = hashset.find_rollback(name, generation)
    before = f"{planned.before.entries:,} entries" if planned.before is not None else "no list"
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on; give --yes to roll the list back")
        question = (
            f"Put the list {name!r} of generation {planned.restored}, with {planned.info.entries:,} entries, "
            f"in place of {before}?"
        )
        if not click.confirm(question, err=True):
            echo("Nothing was changed.")
            return Exit.OK
    done = hashset.rollback_list(name, planned.restored)
    if as_json:
        print_json(
            {
                "list": name,
                "generation": done.generation,
                "restored": done.restored,
                "entries": done.info.entries,
                "entries_before": done.before.entries if done.before is not None else None,
            }
        )
    else:
        echo(
            f"The list {name!r} is as it was in generation {done.restored}: {done.info.entries:,} entries in place of "
            f"{before}. Generation {done.generation} is in force."
        )
    if any(item.list_name == name for item in hashset.staging.changes()):
        report_warning("something is staged for the list still; `uploadguard lists discard` drops it")
    return Exit.OK


def _report_held(name: str, reasons: Iterable[str]) -> None:
    """Say why what is staged is not in force, and what to do."""
    for reason in reasons:
        report_error(reason)
    report_error(
        f"so nothing was put in force, and it stays staged. `uploadguard lists try {name}` shows what matches, "
        f"`uploadguard lists activate {name} --force` puts it in force all the same, and "
        f"`uploadguard lists discard {name}` drops it"
    )


def end_of_change(name: str, held: HeldListError | None, *, is_staged: bool) -> Exit:
    """What an import or an update ends with, and what is to be done now, if anything."""
    if held is not None:
        _report_held(name, held.reasons)
        return Exit.ALARM
    if is_staged:
        echo(f"It is staged. `uploadguard lists activate {name}` puts it in force.", err=True)
    return Exit.OK


def trial_row(judgement: Judgement) -> tuple[str, str]:
    """What it was tried on, for a table."""
    trials = [
        f"{len(judged.brought.matched):,} of {judged.brought.items:,} {judged.brought.corpus} pictures match"
        for judged in judgement.corpora
    ]
    return "tried", ", ".join(trials)


def _print_judgement(title: str, judgement: Judgement, more: Iterable[CorpusTrial] = ()) -> None:
    """Show what a change would do to its list, and the pictures that it matches."""
    rows = [("entries", f"{judgement.entries_after:,}")]
    if judgement.entries_before is not None:
        rows.insert(0, ("entries before", f"{judgement.entries_before:,}"))
    shown: list[tuple[str, list[TrialHit]]] = []
    left_out = 0
    for trial, text in [
        *((judged.brought, _anew(judged)) for judged in judgement.corpora),
        *((trial, "") for trial in more),
    ]:
        share = f" ({trial.percent:.2g} %)" if trial.matched else ""
        rows.append((trial.corpus, f"{len(trial.matched):,} of {trial.items:,} pictures match{share}{text}"))
        pairs = _pairs(trial.hits)[:_HITS_SHOWN]
        shown += [(trial.corpus, hits) for hits in pairs]
        left_out += trial.hits_total - sum(len(hits) for hits in pairs)
    rows.append(("bounds", "; ".join(judgement.reasons) or "within"))
    print_table(new_table("List", title, fold=[title]), rows)
    if not shown:
        return
    echo()
    table = new_table("Entry", "Category", "Signal types", "Corpus", "Picture", fold=["Entry", "Picture"])
    print_table(
        table,
        [
            (
                hits[0].match.entry_id,
                hits[0].match.category or "",
                _signal_types(hits),
                corpus,
                hits[0].label or f"line {hits[0].line}",
            )
            for corpus, hits in shown
        ],
    )
    if left_out:
        echo(f"... and {left_out:,} more hits; --json shows up to 200 of each")


def _pairs(hits: Iterable[TrialHit]) -> list[list[TrialHit]]:
    """The hits by entry and picture, in order: an entry with several hashes hits a picture with each of them."""
    pairs: dict[tuple[str, int], list[TrialHit]] = {}
    for hit in hits:
        pairs.setdefault((hit.match.entry_id, hit.line), []).append(hit)
    return list(pairs.values())


def _signal_types(hits: Iterable[TrialHit]) -> str:
    """By what one entry hits one picture, with the bits they are apart where they are not the same."""
    bits: dict[str, int] = {}
    for hit in hits:
        match = hit.match
        bits[match.signal_type] = min(match.distance_bits, bits.get(match.signal_type, match.distance_bits))
    return ", ".join(f"{name} ({least} bits)" if least else name for name, least in bits.items())


def print_staged(changes: Collection[StagedChange]) -> None:
    """Show what is staged, if anything is."""
    if not changes:
        return
    echo()
    table = new_table("Staged", "Change", "Entries", "Then", "At", "Source", right=["Entries", "Then"], fold=["Staged"])
    rows = []
    for item in changes:
        entries = f"{item.before.entries:,}" if item.before is not None else ""
        at = f"{item.change.staged_at:%Y-%m-%d %H:%M}"
        source = item.change.segment.metadata.source
        rows.append((item.list_name, item.change.kind, entries, f"{item.after.entries:,}", at, source))
    print_table(table, rows)
    for item in changes:
        if item.outdated is not None:
            report_warning(f"staged for {item.list_name!r}: {item.outdated}")
    echo("No check sees what is staged. `uploadguard lists try NAME` tries it, `lists activate NAME` puts it in force.")


def _anew(judged: Judged) -> str:
    """How many of the pictures that match do not match the list in force, where these are others."""
    return f"; {judged.new:,} anew" if judged.new != len(judged.brought.matched) else ""


def staged_record(item: StagedChange | None) -> dict[str, Any] | None:
    """What is staged, as JSON types."""
    if item is None:
        return None
    return {
        "change": item.change.kind,
        "staged": item.change.staged_at.isoformat(),
        "added": item.change.added,
        "removed": item.change.removed,
        "entries_before": item.before.entries if item.before is not None else None,
        "entries_after": item.after.entries,
        "source": item.change.segment.metadata.source,
        "size_bytes": item.size_bytes,
        "outdated": item.outdated,
    }
