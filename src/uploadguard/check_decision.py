"""From what a check found to its decision: by the policy, the plugins' verdicts and shadow mode."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from uploadguard.check_order import Check
from uploadguard.errors import PluginError
from uploadguard.matching import Asked
from uploadguard.media.inspect import Inspection
from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Verdict
from uploadguard.plugins import Plugins
from uploadguard.policy import ALLOW_LISTED, Outcome, Policy, apply_answers, decide, in_shadow, limits

__all__ = ["PLUGIN_VERDICT", "Decider"]

PLUGIN_VERDICT: Final = "plugin_verdict"


class Decider:
    """What every decision of one Guard goes by; holds no state between them. ``signal_types`` are those in use."""

    def __init__(self, policy: Policy, plugins: Plugins, signal_types: Sequence[str]) -> None:
        self._policy = policy
        self._plugins = plugins
        self._limits = lru_cache(maxsize=256)(lambda tenant: limits(policy, signal_types, tenant))

    def limits(self, context: Context) -> Mapping[str, int]:
        """Per signal type, how far apart a match may be that the look-up must find, in bits and inclusive."""
        # Tenants without rules of their own share one cache entry.
        return self._limits(context.tenant if context.tenant in self._policy.tenants else None)

    def settles(self, matches: Sequence[Match], check: Check) -> bool:
        """Whether matches of digests decide the upload by themselves: nothing else could change the verdict."""
        outcome = decide(matches, (), self._policy, tenant=check.context.tenant, tripped=check.order.tripped)
        return outcome.verdict is Verdict.BLOCK or (
            outcome.verdict is Verdict.ALLOW and outcome.reasons == (ALLOW_LISTED,)
        )

    def decide(
        self,
        check: Check,
        hashes: tuple[Hash, ...],
        matches: Sequence[Match],
        failures: Sequence[Failure],
        inspection: Inspection,
        asked: Asked,
    ) -> tuple[Decision, list[PluginError]]:
        """The decision, and the errors of the plugins that were asked for matches or for a verdict.

        ``matches`` and ``failures`` are those that neither the order, nor ``inspection``, nor ``asked`` has already.
        """
        order, tenant = check.order, check.context.tenant
        matches = (*matches, *asked.matches)
        failures = (*order.failures, *failures, *asked.failures, *inspection.failures)

        def decision_of(
            outcome: Outcome, verdict: Verdict, reasons: tuple[str, ...], shadow: Verdict | None
        ) -> Decision:
            return Decision(
                verdict=verdict,
                reasons=reasons,
                matches=outcome.matches,
                failures=failures,
                hashes=hashes,
                media=inspection.media,
                generation=check.generation.number,
                report_due=outcome.report_due and not self._policy.shadow,
                timings_ms=check.timings.finish(),
                shadow=shadow,
            )

        outcome = decide(matches, failures, self._policy, tenant=tenant, tripped=order.tripped)
        errors: list[PluginError] = []
        verdict, reasons = outcome.verdict, outcome.reasons
        proposal = None
        if self._plugins.has("uploadguard_decide"):
            proposal = decision_of(outcome, verdict, reasons, outcome.shadow)
            answers, errors = self._ask(proposal, check.context)
            failures += tuple(Failure(FailureCode.PLUGIN_FAILED, str(error)) for error in errors)
            outcome = decide(matches, failures, self._policy, tenant=tenant, tripped=order.tripped)
            verdict, reasons = apply_answers(outcome.verdict, answers, self._policy), outcome.reasons
            if verdict is not outcome.verdict:
                reasons = (PLUGIN_VERDICT, *reasons)
        verdict, shadow = in_shadow(verdict, outcome.shadow, self._policy)
        check.timings.lap("decide")
        decision = decision_of(outcome, verdict, reasons, shadow)
        if proposal is not None:  # what plugins noted of it is to be found under the decision's reference
            decision = replace(decision, reference=proposal.reference)
        if asked.pending and verdict is not Verdict.BLOCK:  # late answers could not change a block
            decision = replace(decision, pending=asked.pending)
        return decision, [*asked.errors, *errors]

    def revise(
        self,
        earlier: Decision,
        context: Context,
        matches: Sequence[Match],
        failures: Sequence[Failure],
        reference: str,
        *,
        tripped: Container[str] = frozenset(),
    ) -> Decision | None:
        """The decision in an earlier one's place, now that a matcher's answer is there; None where it is the same."""
        outcome = decide(
            [*earlier.matches, *matches],
            [*earlier.failures, *failures],
            self._policy,
            tenant=context.tenant,
            tripped=tripped,
        )
        before = earlier.verdict
        if self._policy.shadow and earlier.shadow is not None:
            before = earlier.shadow
        if not matches and outcome.verdict <= before:
            return None
        verdict, shadow = in_shadow(max(outcome.verdict, before), outcome.shadow, self._policy)
        return replace(
            earlier,
            verdict=verdict,
            reasons=tuple(dict.fromkeys((*outcome.reasons, *earlier.reasons))),
            matches=outcome.matches,
            failures=(*earlier.failures, *failures),
            report_due=(outcome.report_due or earlier.report_due) and not self._policy.shadow,
            timings_ms={},
            shadow=shadow,
            pending=(),
            revises=earlier.reference,
            reference=reference,
        )

    def _ask(self, proposal: Decision, context: Context) -> tuple[dict[str, Verdict], list[PluginError]]:
        """The verdicts of plugins on a decision, by plugin name, and what went wrong with them."""
        answers: dict[str, Verdict] = {}
        errors: list[PluginError] = []
        for name, answer in self._plugins.call_each("uploadguard_decide", decision=proposal, context=context):
            if isinstance(answer, PluginError):
                errors.append(answer)
            elif isinstance(answer, Verdict):
                answers[name] = answer
            elif answer is not None:
                errors.append(PluginError(name, f"uploadguard_decide gave a {type(answer).__name__}"))
        return answers, errors
