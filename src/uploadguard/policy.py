"""The decision: a pure function from matches and failures to a verdict. No I/O, no clock, no state.

A *rule* says what a match means: its verdict, the widest distance that counts, whether a report is due. Rules stand
in up to six places (:class:`~uploadguard.policy_rules.Rules`, once for the tenant and once for all), and each field is
taken from the most specific place that sets it. Signal types come in as data (:class:`SignalDefaults`), so this module
knows none of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from uploadguard.models import Failure, FailureCode, Match, Verdict
from uploadguard.policy_rules import DEFAULT_FAILURE_VERDICTS, Rules, allow_limit, first_said, rules_for

__all__ = [
    "ALLOW_LISTED",
    "DIGEST_MATCH",
    "LIST_TRIPPED",
    "PERCEPTUAL_MATCH",
    "Outcome",
    "Policy",
    "ResolvedRule",
    "SignalDefaults",
    "apply_answers",
    "decide",
    "in_shadow",
    "limits",
    "matched_lists",
    "resolve",
]

DIGEST_MATCH: Final = "digest_match"
PERCEPTUAL_MATCH: Final = "perceptual_match"
ALLOW_LISTED: Final = "allow_listed"
LIST_TRIPPED: Final = "list_tripped"

_ORIGINAL: Final = "original"

_REASON_ORDER: Final = {
    code: place for place, code in enumerate((DIGEST_MATCH, PERCEPTUAL_MATCH, ALLOW_LISTED, LIST_TRIPPED, *FailureCode))
}


@dataclass(frozen=True, slots=True)
class SignalDefaults:
    """What the policy needs to know of a signal type.

    ``max_distance_bits`` is its default limit, inclusive; ``length_bits`` the length of its hashes. ``digest`` says
    that it is computed from the upload's original bytes, so that an exact match means: these very bytes.
    """

    max_distance_bits: int
    length_bits: int
    digest: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that :func:`decide` goes by.

    ``signal_types`` is keyed by name. ``may_lower`` names the plugins whose answer may lower a verdict.
    ``allow_digests`` names the digests whose match on an allow-list clears an upload: only those for which nobody
    can make two files with one value, so neither MD5 nor SHA-1. ``matcher_failures`` has what the failure of a match
    service means, for those with a rule of their own. ``shadow``: nothing is acted on (:func:`in_shadow`).
    """

    signal_types: Mapping[str, SignalDefaults] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    tenants: Mapping[str, Rules] = field(default_factory=dict)
    may_lower: frozenset[str] = frozenset()
    allow_digests: frozenset[str] = frozenset({"sha256"})
    matcher_failures: Mapping[str, Verdict] = field(default_factory=dict)
    shadow: bool = False

    def __post_init__(self) -> None:
        for name in ("signal_types", "tenants", "matcher_failures"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        return f"Policy(signal_types={len(self.signal_types)}, rules={self.rules!r}, tenants={len(self.tenants)})"

    def scopes(self, tenant: str | None) -> tuple[Rules, ...]:
        """The rules that count for a tenant, its own first. A tenant without any has the global ones."""
        own = self.tenants.get(tenant) if tenant is not None else None
        return (self.rules,) if own is None else (own, self.rules)

    def is_digest(self, match: Match) -> bool:
        """Whether the match says: these very bytes. For a signal type without data here, the match is believed."""
        known = self.signal_types.get(match.signal_type)
        return match.exact and match.distance_bits == 0 and (known is None or known.digest)

    def list_names(self) -> frozenset[str]:
        """Every list that a rule names, for a warning about rules for lists that the hash set does not hold."""
        return frozenset().union(*(rules.list_names() for rules in (self.rules, *self.tenants.values())))

    def fail_open(self) -> tuple[str, ...]:
        """The settings, by key path, that let uploads through although something could not be inspected."""
        scopes = {"policy": self.rules, **{f"tenants.{name}.policy": rules for name, rules in self.tenants.items()}}
        failures = [f"{prefix}.failures.{code}" for prefix, rules in scopes.items() for code in rules.fails_open()]
        matchers = [name for name, verdict in self.matcher_failures.items() if verdict is Verdict.ALLOW]
        shadow = ["policy.shadow"] if self.shadow else []
        return tuple(sorted([*failures, *(f"matchers.{name}.on_failure" for name in matchers), *shadow]))


class ResolvedRule(NamedTuple):
    """What a match of one list and signal type means to one tenant. ``max_distance_bits`` None: no limit is known."""

    verdict: Verdict
    max_distance_bits: int | None
    report: bool
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with its evidence.

    ``reasons`` are stable codes without duplicates, those behind the highest verdict first. ``matches`` are all those
    within their limits, weightiest first; matches that an allow-list cancelled, and the allow-list's own, stay visible.
    ``shadow`` is what the verdict would be if no rule had ``shadow``, where that is another one.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    matches: tuple[Match, ...] = ()
    report_due: bool = False
    shadow: Verdict | None = None


_CLEAN: Final = Outcome(Verdict.ALLOW)


def _resolve(
    policy: Policy, scopes: tuple[Rules, ...], list_name: str | None, signal: str, *, digest: bool
) -> ResolvedRule:
    rules = rules_for(scopes, list_name, signal)
    verdict: Verdict | None = first_said(rules, "verdict")
    if verdict is None:
        verdict = Verdict.BLOCK if digest else Verdict.QUEUE
    limit: int | None = 0 if digest else first_said(rules, "max_distance_bits")
    if limit is None and (known := policy.signal_types.get(signal)) is not None:
        limit = known.max_distance_bits
    report: bool | None = first_said(rules, "report")
    if report is None:
        report = digest and verdict is not Verdict.ALLOW
    return ResolvedRule(verdict, limit, report, bool(first_said(rules, "shadow")))


def resolve(policy: Policy, *, list_name: str | None, signal_type: str, tenant: str | None = None) -> ResolvedRule:
    """What a match of this list and signal type means. ``list_name`` None: a list that no rule names.

    Each field is taken from the first of these places that sets it: the tenant's rule for this signal type of this
    list, for this list, for this signal type; then the global rules in the same order; then the built-in default: a
    digest blocks and asks for a report (not where a rule turned its verdict to ALLOW), any other signal type queues
    without one, and the limit is the signal type's own. A digest's limit is always 0.
    """
    known = policy.signal_types.get(signal_type)
    digest = known is not None and known.digest
    return _resolve(policy, policy.scopes(tenant), list_name, signal_type, digest=digest)


def limits(policy: Policy, signal_types: Iterable[str], tenant: str | None = None) -> Mapping[str, int]:
    """Per signal type the widest distance, in bits and inclusive, that any rule accepts: what the look-up must ask for.

    Covers allow-lists. 0 for digests, and for signal types the policy has no data on and no rule for.
    """
    scopes = policy.scopes(tenant)
    names = sorted(set().union(*(rules.list_names() for rules in scopes)))
    widest: dict[str, int] = {}
    for signal in signal_types:
        known = policy.signal_types.get(signal)
        if known is not None and known.digest:
            widest[signal] = 0
            continue
        found = [_resolve(policy, scopes, name, signal, digest=False).max_distance_bits or 0 for name in (None, *names)]
        widest[signal] = max(*found, 0, *(allow_limit(scopes, name, signal) for name in names))
    return widest


class _Judged(NamedTuple):
    match: Match
    digest: bool
    verdict: Verdict
    report: bool
    shadow: bool = False
    held: bool = False

    def weight(self) -> tuple[Any, ...]:
        """Sorts the weightiest match first, whatever order the matches came in."""
        m = self.match
        where = (m.frame, m.list_name, m.entry_id, m.signal_type, m.variant, m.category or "")
        return (m.allow, -self.verdict, not self.digest, m.distance_bits, *where)


def _judge(match: Match, policy: Policy, scopes: tuple[Rules, ...], tripped: Container[str]) -> _Judged | None:
    """The match with what its rule says, or None where it lies beyond its limit."""
    digest = policy.is_digest(match)
    if match.allow:
        limit = allow_limit(scopes, match.list_name, match.signal_type)
        return _Judged(match, digest, Verdict.ALLOW, False) if match.distance_bits <= limit else None
    rule = _resolve(policy, scopes, match.list_name, match.signal_type, digest=digest)
    if rule.max_distance_bits is not None and match.distance_bits > rule.max_distance_bits:
        return None
    verdict = rule.verdict if match.variant == _ORIGINAL else min(rule.verdict, Verdict.QUEUE)
    if match.list_name in tripped and (verdict > Verdict.QUEUE or rule.report):
        return _Judged(match, digest, min(verdict, Verdict.QUEUE), False, rule.shadow, held=True)
    return _Judged(match, digest, verdict, rule.report, rule.shadow)


def _allowances(matches: Iterable[Match], policy: Policy) -> tuple[bool, set[tuple[int, str]]]:
    """What matches of allow-lists clear: the upload as a whole, or else perceptual matches of a frame's face."""
    allowing = [match for match in matches if match.allow]
    whole = any(policy.is_digest(match) and match.signal_type in policy.allow_digests for match in allowing)
    return whole, {(match.frame, match.face) for match in allowing if not policy.is_digest(match)}


def _failure_verdict(failure: Failure, policy: Policy, scopes: tuple[Rules, ...]) -> Verdict:
    if failure.matcher is not None and failure.matcher in policy.matcher_failures:
        return policy.matcher_failures[failure.matcher]
    code = failure.code
    found = (rules.failures[code] for rules in scopes if code in rules.failures)
    return next(found, DEFAULT_FAILURE_VERDICTS[code])


def decide(
    matches: Sequence[Match],
    failures: Sequence[Failure],
    policy: Policy,
    *,
    tenant: str | None,
    tripped: Container[str] = frozenset(),
) -> Outcome:
    """The verdict on one upload: the highest of what its matches and failures call for. Order does not matter.

    A match beyond its limit is dropped. A match whose rule says ALLOW is noted: it stays visible, with its reason.
    A match that only a variant of the picture made is queued where its rule says BLOCK: each form looked up is one more
    chance of a false positive, so a person looks first.

    Allow-lists are the only way down, and are drawn as narrow as an uploader's tricks demand:

    - *A digest on an allow-list* says that these very bytes were reviewed: ALLOW, whatever else matched or failed.
      Only digests in ``policy.allow_digests`` do so. Whoever can make two files with one MD5 (anyone, today) could
      have the harmless one reviewed and then upload the other; so an MD5 or SHA-1 match is shown but clears nothing.
    - *A perceptual match on an allow-list* says that this frame looks like a reviewed picture. It cancels perceptual
      matches of that frame, and nothing else. Not another frame's: an animation that opens with a reviewed picture
      is still judged by the frames after it. Not another face of that frame: its thumbnail, or what shows over black.
      Not failures: frames that were not hashed, or a truncated rest, are not vouched for by the frames that were. Not
      digest matches: a listed file stays listed, however harmless it looks.
    - Its limit is 0 bits unless a rule *for that list* says more; a wider limit for the signal type does not widen
      allow-lists. Each bit clears more pictures that nobody reviewed: with limit r, all within r bits of a reviewed
      one, known abuse material among them. With 0 bits somebody who can steer a picture's hash onto a reviewed one
      gains nothing, since he could as well have steered it away from every list.
    - Rules for allow-lists have no verdict and no report: both fields are ignored for their matches.

    A match whose rule has ``shadow`` is noted as one whose rule says ALLOW is, and counts in ``shadow`` only.

    ``tripped`` has the lists that match too much to be believed: a match of theirs queues where its rule says BLOCK,
    and makes no report due.
    """
    if not matches and not failures:
        return _CLEAN
    scopes = policy.scopes(tenant)
    judged = [one for match in matches if (one := _judge(match, policy, scopes, tripped)) is not None]
    judged.sort(key=_Judged.weight)
    kept = tuple(one.match for one in judged)

    allowed, allowed_frames = _allowances(kept, policy)
    if allowed:
        return Outcome(Verdict.ALLOW, (ALLOW_LISTED,), kept)

    reasons: dict[str, Verdict] = {}

    def count(reason: str, verdict: Verdict) -> None:
        reasons[reason] = max(verdict, reasons.get(reason, Verdict.ALLOW))

    report_due = False
    would_be = Verdict.ALLOW
    for match, digest, verdict, report, shadow, held in judged:
        if match.allow:
            continue
        if not digest and (match.frame, match.face) in allowed_frames:
            count(ALLOW_LISTED, Verdict.ALLOW)
            continue
        if shadow:
            would_be = max(would_be, verdict)
        for reason in (DIGEST_MATCH if digest else PERCEPTUAL_MATCH, *([LIST_TRIPPED] if held else [])):
            count(reason, Verdict.ALLOW if shadow else verdict)
        report_due = report_due or (report and not shadow)
    for failure in failures:
        count(failure.code.value, _failure_verdict(failure, policy, scopes))

    ordered = sorted(reasons, key=lambda reason: (-reasons[reason], _REASON_ORDER[reason]))
    verdict = max(reasons.values(), default=Verdict.ALLOW)
    return Outcome(verdict, tuple(ordered), kept, report_due, would_be if would_be > verdict else None)


def apply_answers(verdict: Verdict, answers: Mapping[str, Verdict], policy: Policy) -> Verdict:
    """The verdict after the plugins' answers, keyed by plugin name: the highest answer that counts, else ``verdict``.

    An answer below ``verdict`` counts only from a plugin in ``policy.may_lower``.
    """
    counting = [answer for plugin, answer in answers.items() if answer >= verdict or plugin in policy.may_lower]
    return max(counting, default=verdict)


def in_shadow(verdict: Verdict, shadow: Verdict | None, policy: Policy) -> tuple[Verdict, Verdict | None]:
    """The verdict and the shadow verdict of a decision, from what they are but for ``policy.shadow``.

    A shadow verdict that is not above the verdict says nothing, and becomes None.
    """
    would_be = max(verdict, shadow if shadow is not None else verdict)
    answer = Verdict.ALLOW if policy.shadow else verdict
    return answer, would_be if would_be > answer else None


def matched_lists(matches: Sequence[Match], policy: Policy) -> frozenset[str]:
    """The deny lists among the matches of an outcome, without those whose every match an allow-list cancels."""
    allowed, allowed_frames = _allowances(matches, policy)
    return frozenset(
        match.list_name
        for match in matches
        if not (match.allow or allowed) and (policy.is_digest(match) or (match.frame, match.face) not in allowed_frames)
    )
