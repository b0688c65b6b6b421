"""The settings of the policy: what matches and failures mean, for all and for a tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from uploadguard.config_schema import Key
from uploadguard.config_types import NO_KEYS, Flag, Frozen, LimitBits, Section, UniqueNames
from uploadguard.models import FailureCode, Verdict
from uploadguard.policy_rules import Rule, Rules
from uploadguard.testing.names import TEST_LIST_NAME

__all__ = [
    "FailureSettings",
    "FailureVerdict",
    "ListRuleSettings",
    "PolicySettings",
    "RuleSettings",
    "TenantPolicySettings",
    "TenantSettings",
]

MatchVerdict: TypeAlias = Literal["allow", "queue", "block"]
FailureVerdict: TypeAlias = Literal["allow", "not_scanned", "queue", "block"]

_SIGNAL = Key("signal type", "pdq")
_LIST = Key("list", "my-list")


class RuleSettings(Section):
    """What a match means. What is left out here is taken from a less specific rule."""

    verdict: MatchVerdict | None = Field(
        default=None, examples=["queue"], description="What a match calls for; allow means: note it only."
    )
    max_distance_bits: LimitBits | None = Field(
        default=None, examples=[31], description="Widest Hamming distance that is a match, inclusive, in bits."
    )
    report: Flag | None = Field(default=None, examples=[False], description="Whether a match makes a report due.")
    shadow: Flag | None = Field(
        default=None,
        examples=[True],
        description="Whether a match is only recorded: what it would call for is in the decision's shadow verdict.",
    )

    def rule(self) -> Rule:
        """The rule as :mod:`uploadguard.policy` takes it."""
        verdict = Verdict.from_label(self.verdict) if self.verdict is not None else None
        return Rule(verdict, self.max_distance_bits, self.report, self.shadow)


class ListRuleSettings(RuleSettings):
    """What a match of one list means, of any signal type or of one."""

    signals: Annotated[Frozen[RuleSettings], _SIGNAL] = NO_KEYS


class FailureSettings(Section):
    """The verdict where something could not be inspected. "allow" fails open: start-up logs it."""

    empty_file: FailureVerdict = Field(default="not_scanned", description="The upload has no bytes.")
    too_large: FailureVerdict = Field(default="queue", description="More bytes than media.max_file_bytes.")
    too_many_pixels: FailureVerdict = Field(default="queue", description="More pixels than media.max_pixels.")
    unsupported_format: FailureVerdict = Field(
        default="not_scanned", description="Not a media type that a decoder reads."
    )
    codec_refused: FailureVerdict = Field(
        default="queue", description="The codec for this media type has a known hole; see media.allow_codecs."
    )
    decode_failed: FailureVerdict = Field(default="queue", description="The decoder gave up.")
    timeout: FailureVerdict = Field(default="queue", description="sandbox.deadline_s was over.")
    out_of_memory: FailureVerdict = Field(
        default="queue", description="Decoding took more memory than sandbox.max_memory_bytes, or than there is."
    )
    decoder_crashed: FailureVerdict = Field(
        default="queue", description="The worker process died or broke its protocol, and a second one too."
    )
    sandbox_violation: FailureVerdict = Field(
        default="queue", description="The worker process was killed for a call that only an exploit makes."
    )
    sandbox_failed: FailureVerdict = Field(default="queue", description="No worker process could be started.")
    hash_set_stale: FailureVerdict = Field(
        default="queue", description="No list was updated for hashset.stale_after_h hours."
    )
    overloaded: FailureVerdict = Field(
        default="queue", description="More than sandbox.max_waiting checks were waiting for a worker."
    )
    truncated: FailureVerdict = Field(
        default="queue", description="The file ends early; what could be decoded was hashed."
    )
    too_complex: FailureVerdict = Field(
        default="queue", description="More metadata, nesting, bands or frames than the limits in media."
    )
    appended_content: FailureVerdict = Field(
        default="queue", description="Another file follows the picture: an archive, a script, a program, a document."
    )
    polyglot: FailureVerdict = Field(default="queue", description="The file is of another kind as well.")
    shown_otherwise: FailureVerdict = Field(
        default="queue", description="Viewers may show a picture other than those that were hashed."
    )
    pictures_unhashed: FailureVerdict = Field(
        default="not_scanned", description="The file holds further pictures that were not hashed."
    )
    low_quality: FailureVerdict = Field(
        default="not_scanned", description="Too flat or too small for a perceptual hash."
    )
    frames_over_budget: FailureVerdict = Field(
        default="not_scanned", description="media.max_decoded_pixels did not reach all of an animation."
    )
    frames_sampled: FailureVerdict = Field(
        default="not_scanned",
        description="More frames than media.max_frames_hashed that differ from each other; some were not hashed.",
    )
    signal_failed: FailureVerdict = Field(default="queue", description="A signal type raised while hashing.")
    plugin_failed: FailureVerdict = Field(default="queue", description="A plugin raised, or broke its contract.")
    matcher_failed: FailureVerdict = Field(
        default="queue", description="A match service gave no answer that can be relied on; see on_failure in matchers."
    )
    content_unseen: FailureVerdict = Field(
        default="not_scanned", description="Only hashes that the host sent were looked up; the file was not there."
    )


class TenantPolicySettings(Section):
    """Rules for matches, by signal type and by list, and verdicts for failures."""

    signals: Annotated[Frozen[RuleSettings], _SIGNAL] = NO_KEYS
    lists: Annotated[Frozen[ListRuleSettings], _LIST] = NO_KEYS
    failures: FailureSettings = Field(default_factory=FailureSettings)

    def rules(self) -> Rules:
        """The rules as :mod:`uploadguard.policy` takes them. Of ``failures``, only what was set."""
        return Rules(
            signals={name: rule.rule() for name, rule in self.signals.items()},
            lists={name: rule.rule() for name, rule in self.lists.items()},
            list_signals={
                (name, signal): rule.rule()
                for name, list_rule in self.lists.items()
                for signal, rule in list_rule.signals.items()
            },
            failures={
                FailureCode(code): Verdict.from_label(getattr(self.failures, code))
                for code in self.failures.model_fields_set
            },
        )


class PolicySettings(TenantPolicySettings):
    """What matches and failures mean."""

    may_lower: UniqueNames = Field(
        default=(), description="Plugins whose answer may lower a verdict; each must be in plugins."
    )
    allow_digests: UniqueNames = Field(
        default=("sha256",),
        description="Digests whose match on an allow-list clears an upload. Leave out md5 and sha1: two different "
        "files can be made with one value.",
    )
    shadow: Flag = Field(
        default=False,
        description="Whether to act on nothing: every upload is allowed, and the decision's shadow verdict says what "
        "it would have been. For trying a deployment out.",
    )

    def rules(self) -> Rules:
        """As above, and a match of the test list makes no report due, unless a rule for that list says that it does."""
        rules = super().rules()
        rule = rules.lists.get(TEST_LIST_NAME, Rule())
        if rule.report is not None:
            return rules
        return replace(rules, lists={**rules.lists, TEST_LIST_NAME: replace(rule, report=False)})


class TenantSettings(Section):
    """One tenant's overrides."""

    policy: TenantPolicySettings = Field(default_factory=TenantPolicySettings)
