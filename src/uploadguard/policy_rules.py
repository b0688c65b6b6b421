"""What the configuration says of matches and failures, place by place, and which place speaks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from uploadguard.models import FailureCode, Verdict

__all__ = ["DEFAULT_FAILURE_VERDICTS", "Rule", "Rules", "allow_limit", "first_said", "rules_for"]

DEFAULT_FAILURE_VERDICTS: Final[Mapping[FailureCode, Verdict]] = MappingProxyType(
    {
        FailureCode.EMPTY_FILE: Verdict.NOT_SCANNED,
        FailureCode.TOO_LARGE: Verdict.QUEUE,
        FailureCode.TOO_MANY_PIXELS: Verdict.QUEUE,
        FailureCode.UNSUPPORTED_FORMAT: Verdict.NOT_SCANNED,
        FailureCode.CODEC_REFUSED: Verdict.QUEUE,
        FailureCode.DECODE_FAILED: Verdict.QUEUE,
        FailureCode.TIMEOUT: Verdict.QUEUE,
        FailureCode.OUT_OF_MEMORY: Verdict.QUEUE,
        FailureCode.DECODER_CRASHED: Verdict.QUEUE,
        FailureCode.SANDBOX_VIOLATION: Verdict.QUEUE,
        FailureCode.SANDBOX_FAILED: Verdict.QUEUE,
        FailureCode.HASH_SET_STALE: Verdict.QUEUE,
        FailureCode.OVERLOADED: Verdict.QUEUE,
        FailureCode.TRUNCATED: Verdict.QUEUE,
        FailureCode.TOO_COMPLEX: Verdict.QUEUE,
        FailureCode.APPENDED_CONTENT: Verdict.QUEUE,
        FailureCode.POLYGLOT: Verdict.QUEUE,
        FailureCode.SHOWN_OTHERWISE: Verdict.QUEUE,
        FailureCode.PICTURES_UNHASHED: Verdict.NOT_SCANNED,
        FailureCode.LOW_QUALITY: Verdict.NOT_SCANNED,
        FailureCode.FRAMES_OVER_BUDGET: Verdict.NOT_SCANNED,
        FailureCode.FRAMES_SAMPLED: Verdict.NOT_SCANNED,
        FailureCode.SIGNAL_FAILED: Verdict.QUEUE,
        FailureCode.PLUGIN_FAILED: Verdict.QUEUE,
        FailureCode.MATCHER_FAILED: Verdict.QUEUE,
        FailureCode.CONTENT_UNSEEN: Verdict.NOT_SCANNED,
    }
)
"""What a failure means where no setting says otherwise. Nothing fails open."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one place of the configuration says of a match. None: this place does not say."""

    verdict: Verdict | None = None
    max_distance_bits: int | None = None
    report: bool | None = None
    shadow: bool | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one scope: the global ones, or one tenant's.

    ``signals`` is keyed by signal type, ``lists`` by list name, ``list_signals`` by (list name, signal type).
    """

    signals: Mapping[str, Rule] = field(default_factory=dict)
    lists: Mapping[str, Rule] = field(default_factory=dict)
    list_signals: Mapping[tuple[str, str], Rule] = field(default_factory=dict)
    failures: Mapping[FailureCode, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("signals", "lists", "list_signals", "failures"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        counts = (len(self.signals), len(self.lists), len(self.list_signals), len(self.failures))
        return "Rules(signals={}, lists={}, list_signals={}, failures={})".format(*counts)

    def list_names(self) -> set[str]:
        """The lists that a rule here names."""
        return {*self.lists, *(list_name for list_name, _ in self.list_signals)}

    def fails_open(self) -> list[FailureCode]:
        """The failures that let an upload through by a rule here, and not by default."""
        return [
            code
            for code, verdict in self.failures.items()
            if verdict is Verdict.ALLOW and DEFAULT_FAILURE_VERDICTS[code] is not Verdict.ALLOW
        ]


def rules_for(
    scopes: tuple[Rules, ...], list_name: str | None, signal_type: str, *, lists_only: bool = False
) -> list[Rule]:
    """The rules that could speak of a match, most specific first; with ``lists_only``, those that name its list."""
    found: list[Rule | None] = []
    for rules in scopes:
        if list_name is not None:
            found += (rules.list_signals.get((list_name, signal_type)), rules.lists.get(list_name))
        if not lists_only:
            found.append(rules.signals.get(signal_type))
    return [rule for rule in found if rule is not None]


def first_said(rules: Sequence[Rule], name: str) -> Any:
    """What the first of the rules that sets a field says there; None where none does."""
    return next((value for rule in rules if (value := getattr(rule, name)) is not None), None)


def allow_limit(scopes: tuple[Rules, ...], list_name: str, signal_type: str) -> int:
    """How far a match with an allow-list may lie, in bits, inclusive: 0 unless a rule for that list says more."""
    limit: int | None = first_said(rules_for(scopes, list_name, signal_type, lists_only=True), "max_distance_bits")
    return limit or 0
