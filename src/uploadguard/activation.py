"""Whether a list or an update may come into force: tried first, and held back where it goes beyond the bounds.

Everything that brings entries from outside goes through here: the import of a file, its update, what an exchange sends.
The lists that reviewers feed do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uploadguard.config import Settings
from uploadguard.hashset import Candidate
from uploadguard.lists.samples import benign_corpus, read_sample
from uploadguard.plugins import Plugins
from uploadguard.trial import Corpus, CorpusTrial, ListTrial

__all__ = ["BENIGN", "MIN_BOUND_ENTRIES", "SAMPLE", "Gate", "Judged", "Judgement", "ListSafety"]

BENIGN = "benign"
SAMPLE = "sample"

MIN_BOUND_ENTRIES = 100
"""Smaller lists are one's own, and grow and shrink as their owner likes."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One corpus in a judgement: what the change itself matches, and how many pictures the whole list then would.

    ``new`` counts the pictures that the list in force does not match. Only where there are any is the whole list
    looked up; else ``matched`` is None.
    """

    brought: CorpusTrial
    new: int
    matched: int | None

    @property
    def percent(self) -> float:
        """The share of the pictures that the whole list would match."""
        return 100 * (self.matched or 0) / self.brought.items if self.brought.items else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "corpus": self.brought.corpus,
            "pictures": self.brought.items,
            "new": self.new,
            "matched": self.matched,
            "hits_total": self.brought.hits_total,
            "hits": [hit.to_dict() for hit in self.brought.hits],
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a change would do to its list, and one sentence for each bound that it goes beyond.

    ``entries_before`` is None where the list is new.
    """

    entries_before: int | None
    entries_after: int
    corpora: tuple[Judged, ...] = field(repr=False)
    reasons: tuple[str, ...]

    @property
    def within_bounds(self) -> bool:
        """Whether it may come into force by itself."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "entries_before": self.entries_before,
            "entries_after": self.entries_after,
            "within_bounds": self.within_bounds,
            "reasons": list(self.reasons),
            "trials": [judged.to_dict() for judged in self.corpora],
        }


class ListSafety:
    """Judges changes of lists by the bounds of the settings: ``[safety]`` and ``hashset.max_shrink_percent``."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        """Raises :class:`~uploadguard.errors.ConfigError` for settings that no Guard would take."""
        self._bounds = settings.safety
        self._max_shrink_percent = settings.hashset.max_shrink_percent
        self.trial = ListTrial(settings, plugins)

    def corpora(self) -> list[Corpus]:
        """What lists are tried on: the built-in corpus, and the host's own sample where there is one."""
        found = [Corpus(BENIGN, benign_corpus)]
        if (sample := self._bounds.sample) is not None:
            found.append(Corpus(SAMPLE, lambda: read_sample(sample)))
        return found

    def check_sample(self) -> None:
        """Raise :class:`~uploadguard.errors.ListFormatError` if the sample cannot be read, before hours of work."""
        if self._bounds.sample is not None:
            next(read_sample(self._bounds.sample), None)

    def judge(self, candidate: Candidate, *, allow_shrink: bool = False) -> Judgement:
        """Try a change, and hold it against the bounds. Looks up in its files; reads none of them whole.

        Matches of an allow-list are shown, and are no reason: its entries are to be harmless.
        """
        corpora = tuple(self._judged(candidate, corpus) for corpus in self.corpora())
        before = candidate.before.entries if candidate.before is not None else None
        after = candidate.after.entries
        reasons = [*self._size_reasons(before, after, allow_shrink=allow_shrink)]
        if candidate.after.role == "deny":
            reasons += [reason for judged in corpora if (reason := self._hit_reason(judged)) is not None]
        return Judgement(before, after, corpora, tuple(reasons))

    def gate(self, *, stage: bool = False, force: bool = False, allow_shrink: bool = False) -> Gate:
        """The judge for one change; see :class:`Gate`."""
        self.check_sample()
        return Gate(self, stage=stage or self._bounds.activation == "manual", force=force, allow_shrink=allow_shrink)

    def _judged(self, candidate: Candidate, corpus: Corpus) -> Judged:
        brought = self.trial.run(candidate.brought(), corpus)
        if not brought.matched:
            return Judged(brought, 0, None)
        new = brought.matched
        if candidate.before is not None and candidate.before.role == candidate.after.role:
            new -= self.trial.run(candidate.current(), corpus).matched
        if not new:
            return Judged(brought, 0, None)
        whole = brought if candidate.is_whole else self.trial.run(candidate.result(), corpus)
        return Judged(brought, len(new), len(whole.matched))

    def _size_reasons(self, before: int | None, after: int, *, allow_shrink: bool) -> list[str]:
        if before is None or before < MIN_BOUND_ENTRIES:
            return []
        change = f"from {before:,} to {after:,} entries"
        growth, shrink = self._bounds.max_growth_percent, self._max_shrink_percent
        reasons = []
        if growth and (after - before) * 100 > before * growth:
            reasons.append(f"the list would grow {change} (safety.max_growth_percent is {growth})")
        if not allow_shrink and (before - after) * 100 > before * shrink:
            reasons.append(f"the list would shrink {change} (hashset.max_shrink_percent is {shrink})")
        return reasons

    def _hit_reason(self, judged: Judged) -> str | None:
        if not judged.new or judged.matched is None:
            return None
        found = f"the list would match {judged.matched:,} of {judged.brought.items:,}"
        anew = f", {judged.new:,} of them anew" if judged.new < judged.matched else ""
        if judged.brought.corpus == BENIGN:
            most = self._bounds.max_benign_hits
            if judged.matched <= most:
                return None
            return f"{found} ordinary pictures{anew} (safety.max_benign_hits is {most})"
        share = self._bounds.max_sample_percent
        if judged.percent <= share:
            return None
        return (
            f"{found} pictures of the host's sample, {judged.percent:.2g} %{anew} "
            f"(safety.max_sample_percent is {share:g})"
        )


class Gate:
    """Lets one change into force, or not, and keeps the judgement. It is a :data:`~uploadguard.hashset.staging.Judge`.

    ``stage``: never lets it. ``force``: always lets it. Otherwise it must keep within the bounds.
    """

    def __init__(self, safety: ListSafety, *, stage: bool, force: bool, allow_shrink: bool) -> None:
        self._safety = safety
        self._force = force
        self._allow_shrink = allow_shrink
        self.stages = stage
        self.judgement: Judgement | None = None

    def __call__(self, candidate: Candidate) -> bool:
        """Judge it."""
        self.judgement = judgement = self._safety.judge(candidate, allow_shrink=self._allow_shrink)
        return not self.stages and (self._force or judgement.within_bounds)

    @property
    def held_for(self) -> tuple[str, ...]:
        """Why the change was held back, although nobody asked for it to be staged; empty where it was not."""
        if self.judgement is None or self.stages or self._force:
            return ()
        return self.judgement.reasons
