"""The decision: rules, failures, allow-lists, and what must hold for all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from uploadguard.models import Failure, FailureCode, Match, Verdict
from uploadguard.policy import (
    Outcome,
    Policy,
    SignalDefaults,
    apply_answers,
    decide,
    limits,
    resolve,
)
from uploadguard.policy_rules import DEFAULT_FAILURE_VERDICTS, Rule, Rules

TYPES = {
    "md5": SignalDefaults(0, 128, digest=True),
    "sha256": SignalDefaults(0, 256, digest=True),
    "pdq": SignalDefaults(31, 256, digest=False),
    "phash": SignalDefaults(6, 64, digest=False),
}
POLICY = Policy(TYPES)


def digest(*, list_name: str = "known", signal_type: str = "sha256", allow: bool = False) -> Match:
    return Match(list_name, "1", None, signal_type, 0, exact=True, allow=allow)


def perceptual(
    distance_bits: int = 20,
    *,
    list_name: str = "known",
    signal_type: str = "pdq",
    frame: int = 0,
    allow: bool = False,
    exact: bool = False,
) -> Match:
    return Match(list_name, "1", None, signal_type, distance_bits, frame=frame, allow=allow, exact=exact)


def failure(code: FailureCode) -> Failure:
    return Failure(code, "made up")


def check(
    *evidence: Match | Failure, policy: Policy = POLICY, tenant: str | None = None, rules: Rules | None = None
) -> Outcome:
    matches = [one for one in evidence if isinstance(one, Match)]
    failures = [one for one in evidence if isinstance(one, Failure)]
    return decide(matches, failures, policy if rules is None else replace(policy, rules=rules), tenant=tenant)


class TestDefaults:
    def test_nothing_found(self) -> None:
        assert check() == Outcome(Verdict.ALLOW)

    def test_a_digest_blocks_and_asks_for_a_report(self) -> None:
        match = digest(signal_type="md5")
        assert check(match) == Outcome(Verdict.BLOCK, ("digest_match",), (match,), report_due=True)

    def test_a_perceptual_match_queues_without_a_report(self) -> None:
        match = perceptual()
        assert check(match) == Outcome(Verdict.QUEUE, ("perceptual_match",), (match,))

    def test_an_equal_perceptual_hash_is_not_a_digest(self) -> None:
        assert check(perceptual(0, exact=True)).verdict is Verdict.QUEUE

    @pytest.mark.parametrize(
        ("code", "verdict"),
        [
            (FailureCode.EMPTY_FILE, Verdict.NOT_SCANNED),
            (FailureCode.TOO_LARGE, Verdict.QUEUE),
            (FailureCode.TOO_MANY_PIXELS, Verdict.QUEUE),
            (FailureCode.UNSUPPORTED_FORMAT, Verdict.NOT_SCANNED),
            (FailureCode.DECODE_FAILED, Verdict.QUEUE),
            (FailureCode.TIMEOUT, Verdict.QUEUE),
            (FailureCode.OUT_OF_MEMORY, Verdict.QUEUE),
            (FailureCode.DECODER_CRASHED, Verdict.QUEUE),
            (FailureCode.SANDBOX_VIOLATION, Verdict.QUEUE),
            (FailureCode.SANDBOX_FAILED, Verdict.QUEUE),
            (FailureCode.OVERLOADED, Verdict.QUEUE),
            (FailureCode.TRUNCATED, Verdict.QUEUE),
            (FailureCode.TOO_COMPLEX, Verdict.QUEUE),
            (FailureCode.APPENDED_CONTENT, Verdict.QUEUE),
            (FailureCode.POLYGLOT, Verdict.QUEUE),
            (FailureCode.SHOWN_OTHERWISE, Verdict.QUEUE),
            (FailureCode.PICTURES_UNHASHED, Verdict.NOT_SCANNED),
            (FailureCode.LOW_QUALITY, Verdict.NOT_SCANNED),
            (FailureCode.FRAMES_OVER_BUDGET, Verdict.NOT_SCANNED),
            (FailureCode.FRAMES_SAMPLED, Verdict.NOT_SCANNED),
            (FailureCode.SIGNAL_FAILED, Verdict.QUEUE),
            (FailureCode.PLUGIN_FAILED, Verdict.QUEUE),
        ],
    )
    def test_failures(self, code: FailureCode, verdict: Verdict) -> None:
        assert check(failure(code)) == Outcome(verdict, (code.value,))

    def test_every_failure_code_has_a_verdict_and_none_lets_through(self) -> None:
        assert set(DEFAULT_FAILURE_VERDICTS) == set(FailureCode)
        assert Verdict.ALLOW not in DEFAULT_FAILURE_VERDICTS.values()

    @pytest.mark.parametrize(("distance_bits", "verdict"), [(31, Verdict.QUEUE), (32, Verdict.ALLOW)])
    def test_the_limit_is_inclusive(self, distance_bits: int, verdict: Verdict) -> None:
        assert check(perceptual(distance_bits)).verdict is verdict

    def test_a_match_beyond_its_limit_is_dropped(self) -> None:
        assert check(perceptual(32)) == Outcome(Verdict.ALLOW)

    def test_reasons_and_matches_come_weightiest_first_without_duplicates(self) -> None:
        far, near, exact = perceptual(20), perceptual(3, frame=1), digest()
        codes = [FailureCode.LOW_QUALITY, FailureCode.LOW_QUALITY, FailureCode.TRUNCATED]
        outcome = check(far, near, exact, *map(failure, codes))
        assert outcome.reasons == ("digest_match", "perceptual_match", "truncated", "low_quality")
        assert outcome.matches == (exact, near, far)

    def test_a_match_of_a_signal_type_without_data_is_believed(self) -> None:
        assert check(perceptual(200, signal_type="remote")).verdict is Verdict.QUEUE
        assert check(digest(signal_type="remote")).verdict is Verdict.BLOCK


class TestRules:
    @pytest.mark.parametrize("dropped", range(6))
    def test_each_field_comes_from_the_most_specific_place(self, dropped: int) -> None:
        """Six places, each with a limit of its own: without the first ``dropped`` ones, the next one speaks."""
        places = [Rule(max_distance_bits=bits) if bits > dropped else Rule() for bits in range(1, 7)]
        own = Rules(list_signals={("known", "pdq"): places[0]}, lists={"known": places[1]}, signals={"pdq": places[2]})
        common = Rules(
            list_signals={("known", "pdq"): places[3]}, lists={"known": places[4]}, signals={"pdq": places[5]}
        )
        policy = Policy(TYPES, common, {"acme": own})
        found = resolve(policy, list_name="known", signal_type="pdq", tenant="acme")
        assert found[:3] == (Verdict.QUEUE, dropped + 1, False)

    def test_fields_are_resolved_separately(self) -> None:
        rules = Rules(
            signals={"pdq": Rule(report=True)},
            lists={"known": Rule(verdict=Verdict.BLOCK)},
            list_signals={("known", "pdq"): Rule(max_distance_bits=10)},
        )
        found = resolve(replace(POLICY, rules=rules), list_name="known", signal_type="pdq")
        assert found[:3] == (Verdict.BLOCK, 10, True)

    def test_the_built_in_default_comes_last(self) -> None:
        assert resolve(POLICY, list_name=None, signal_type="phash")[:3] == (Verdict.QUEUE, 6, False)
        assert resolve(POLICY, list_name=None, signal_type="md5")[:3] == (Verdict.BLOCK, 0, True)

    def test_a_match_through_a_variant_is_queued_where_its_rule_says_block(self) -> None:
        rules = Rules(signals={"pdq": Rule(verdict=Verdict.BLOCK)})
        assert check(perceptual(3), rules=rules).verdict is Verdict.BLOCK
        turned = replace(perceptual(3), variant="flip_x")
        assert check(turned, rules=rules).verdict is Verdict.QUEUE
        assert check(turned, rules=Rules(signals={"pdq": Rule(verdict=Verdict.ALLOW)})).verdict is Verdict.ALLOW

    def test_allow_on_a_list_notes_the_match_only(self) -> None:
        match = digest()
        rules = Rules(lists={"known": Rule(verdict=Verdict.ALLOW)})
        assert check(match, rules=rules) == Outcome(Verdict.ALLOW, ("digest_match",), (match,))

    def test_a_noted_match_can_still_ask_for_a_report(self) -> None:
        rules = Rules(lists={"known": Rule(verdict=Verdict.ALLOW, report=True)})
        assert check(digest(), rules=rules).report_due

    def test_a_lists_limit_does_not_touch_its_digests(self) -> None:
        rules = Rules(lists={"known": Rule(max_distance_bits=5)})
        assert check(digest(), perceptual(6), rules=rules).matches == (digest(),)
        policy = replace(POLICY, rules=rules)
        assert limits(policy, ["md5"]) == {"md5": 0}
        assert resolve(policy, list_name="known", signal_type="md5").max_distance_bits == 0

    def test_failures_of_a_tenant_go_before_the_global_ones(self) -> None:
        code = FailureCode.TRUNCATED
        policy = Policy(
            TYPES, Rules(failures={code: Verdict.BLOCK}), {"acme": Rules(failures={code: Verdict.NOT_SCANNED})}
        )
        assert check(failure(code), policy=policy).verdict is Verdict.BLOCK
        assert check(failure(code), policy=policy, tenant="other").verdict is Verdict.BLOCK
        assert check(failure(code), policy=policy, tenant="acme").verdict is Verdict.NOT_SCANNED

    def test_a_failure_that_fails_open_still_shows(self) -> None:
        rules = Rules(failures={FailureCode.TRUNCATED: Verdict.ALLOW})
        assert check(failure(FailureCode.TRUNCATED), rules=rules) == Outcome(Verdict.ALLOW, ("truncated",))

    def test_fail_open_settings_are_listed(self) -> None:
        opened = Rules(failures={FailureCode.TRUNCATED: Verdict.ALLOW, FailureCode.TOO_LARGE: Verdict.BLOCK})
        policy = Policy(TYPES, opened, {"acme": opened, "other": Rules()})
        assert policy.fail_open() == ("policy.failures.truncated", "tenants.acme.policy.failures.truncated")
        assert POLICY.fail_open() == ()

    def test_list_names_are_those_of_all_scopes(self) -> None:
        policy = Policy(TYPES, Rules(lists={"a": Rule()}), {"acme": Rules(list_signals={("b", "pdq"): Rule()})})
        assert policy.list_names() == {"a", "b"}

    def test_a_policy_cannot_be_changed_and_shows_no_list(self) -> None:
        lists = {"secret": Rule()}
        policy = Policy(TYPES, Rules(lists=lists), {"acme": Rules(lists=lists)})
        lists["another"] = Rule()
        assert policy.list_names() == {"secret"}
        with pytest.raises(TypeError):
            policy.tenants["x"] = Rules()  # type: ignore[index]
        assert "secret" not in repr(policy)
        assert "acme" not in repr(policy)


class TestAllowLists:
    def test_a_digest_clears_everything(self) -> None:
        allowed = digest(list_name="reviewed", allow=True)
        outcome = check(allowed, digest(), perceptual(), failure(FailureCode.TRUNCATED))
        assert (outcome.verdict, outcome.reasons, outcome.report_due) == (Verdict.ALLOW, ("allow_listed",), False)
        assert outcome.matches == (digest(), perceptual(), allowed)

    def test_a_digest_that_can_be_forged_clears_nothing(self) -> None:
        allowed = digest(signal_type="md5", allow=True)
        assert check(allowed, perceptual()).verdict is Verdict.QUEUE
        trusting = replace(POLICY, allow_digests=frozenset({"md5"}))
        assert check(allowed, perceptual(), policy=trusting).verdict is Verdict.ALLOW

    def test_a_perceptual_match_cancels_those_of_its_frame(self) -> None:
        allowed, found = perceptual(0, list_name="reviewed", allow=True), perceptual(10, signal_type="pdq")
        assert check(allowed, found) == Outcome(Verdict.ALLOW, ("allow_listed",), (found, allowed))

    def test_an_animation_that_opens_with_an_allowed_picture_is_judged_by_the_rest(self) -> None:
        outcome = check(perceptual(0, allow=True), perceptual(10), perceptual(10, frame=1))
        assert (outcome.verdict, outcome.reasons) == (Verdict.QUEUE, ("perceptual_match", "allow_listed"))

    def test_it_vouches_neither_for_digests_nor_for_what_was_not_inspected(self) -> None:
        allowed = perceptual(0, allow=True)
        assert check(allowed, digest()).verdict is Verdict.BLOCK
        assert check(allowed, failure(FailureCode.TRUNCATED)).verdict is Verdict.QUEUE
        assert check(allowed, perceptual(), failure(FailureCode.FRAMES_OVER_BUDGET)).verdict is Verdict.NOT_SCANNED

    def test_an_exact_match_of_a_pixel_hash_does_not_vouch_for_the_bytes(self) -> None:
        allowed = perceptual(0, allow=True, exact=True)
        assert check(allowed, perceptual(10, frame=1)).verdict is Verdict.QUEUE

    @pytest.mark.parametrize(
        ("rules", "reach"),
        [
            (Rules(), 0),
            (Rules(signals={"pdq": Rule(max_distance_bits=40)}), 0),
            (Rules(lists={"reviewed": Rule(max_distance_bits=4)}), 4),
            (
                Rules(lists={"reviewed": Rule(max_distance_bits=4)}, list_signals={("reviewed", "pdq"): Rule(None, 2)}),
                2,
            ),
        ],
    )
    def test_its_limit_is_zero_unless_a_rule_for_the_list_says_more(self, rules: Rules, reach: int) -> None:
        for bits in (reach, reach + 1):
            outcome = check(perceptual(bits, list_name="reviewed", allow=True), perceptual(), rules=rules)
            assert outcome.verdict is (Verdict.ALLOW if bits <= reach else Verdict.QUEUE)
            assert len(outcome.matches) == (2 if bits <= reach else 1)

    def test_the_look_up_covers_an_allow_list_that_reaches_further_than_any_other_list(self) -> None:
        common = Rules(lists={"reviewed": Rule(max_distance_bits=50)})
        policy = Policy(TYPES, common, {"acme": Rules(signals={"pdq": Rule(max_distance_bits=10)})})
        assert limits(policy, ["pdq"], "acme") == {"pdq": 50}
        allowed = perceptual(50, list_name="reviewed", allow=True)
        assert check(allowed, perceptual(10), policy=policy, tenant="acme").verdict is Verdict.ALLOW

    def test_verdict_and_report_of_its_rules_count_for_nothing(self) -> None:
        rules = Rules(lists={"reviewed": Rule(verdict=Verdict.BLOCK, report=True)})
        outcome = check(perceptual(0, list_name="reviewed", allow=True), rules=rules)
        assert (outcome.verdict, outcome.report_due) == (Verdict.ALLOW, False)


class TestPluginAnswers:
    @pytest.mark.parametrize(
        ("answers", "verdict"),
        [
            ({}, Verdict.QUEUE),
            ({"a": Verdict.BLOCK}, Verdict.BLOCK),
            ({"a": Verdict.ALLOW}, Verdict.QUEUE),
            ({"trusted": Verdict.ALLOW}, Verdict.ALLOW),
            ({"trusted": Verdict.ALLOW, "a": Verdict.BLOCK}, Verdict.BLOCK),
            ({"trusted": Verdict.ALLOW, "a": Verdict.QUEUE}, Verdict.QUEUE),
            ({"trusted": Verdict.ALLOW, "a": Verdict.NOT_SCANNED}, Verdict.ALLOW),
        ],
    )
    def test_the_highest_that_counts_wins(self, answers: dict[str, Verdict], verdict: Verdict) -> None:
        assert apply_answers(Verdict.QUEUE, answers, replace(POLICY, may_lower=frozenset({"trusted"}))) is verdict


LISTS = ["known", "other", "reviewed"]
rule_st = st.builds(
    Rule,
    verdict=st.sampled_from([None, Verdict.ALLOW, Verdict.QUEUE, Verdict.BLOCK]),
    max_distance_bits=st.none() | st.integers(0, 60),
    report=st.none() | st.booleans(),
)
rules_st = st.builds(
    Rules,
    signals=st.dictionaries(st.sampled_from(sorted(TYPES)), rule_st, max_size=3),
    lists=st.dictionaries(st.sampled_from(LISTS), rule_st, max_size=3),
    list_signals=st.dictionaries(
        st.tuples(st.sampled_from(LISTS), st.sampled_from(sorted(TYPES))), rule_st, max_size=3
    ),
    failures=st.dictionaries(st.sampled_from(FailureCode), st.sampled_from(Verdict), max_size=3),
)
policy_st = st.builds(
    Policy,
    signal_types=st.just(TYPES),
    rules=rules_st,
    tenants=st.dictionaries(st.sampled_from(["acme", "example"]), rules_st, max_size=2),
    allow_digests=st.sampled_from([frozenset({"sha256"}), frozenset({"md5", "sha256"})]),
)
tenant_st = st.sampled_from([None, "acme", "example", "stranger"])


def matches_st(*, allow: st.SearchStrategy[bool]) -> st.SearchStrategy[Match]:
    digests = st.builds(
        digest, list_name=st.sampled_from(LISTS), signal_type=st.sampled_from(["md5", "sha256"]), allow=allow
    )
    others = st.builds(
        perceptual,
        st.integers(0, 60),
        list_name=st.sampled_from(LISTS),
        signal_type=st.sampled_from(["pdq", "phash"]),
        frame=st.integers(0, 2),
        allow=allow,
    )
    return digests | others


any_match = matches_st(allow=st.booleans())
deny_match = matches_st(allow=st.just(False))
failure_st = st.sampled_from(FailureCode).map(failure)


@given(st.lists(any_match, max_size=6), st.lists(failure_st, max_size=4), policy_st, tenant_st, deny_match, failure_st)
def test_more_evidence_never_lowers_the_verdict(
    matches: list[Match], failures: list[Failure], policy: Policy, tenant: str | None, more: Match, worse: Failure
) -> None:
    before = decide(matches, failures, policy, tenant=tenant)
    for after in (
        decide([*matches, more], failures, policy, tenant=tenant),
        decide(matches, [*failures, worse], policy, tenant=tenant),
    ):
        assert after.verdict >= before.verdict
        assert after.report_due >= before.report_due


@given(st.lists(any_match, max_size=6), st.lists(failure_st, max_size=4), policy_st, tenant_st, st.randoms())
def test_order_does_not_matter(
    matches: list[Match], failures: list[Failure], policy: Policy, tenant: str | None, shuffle: random.Random
) -> None:
    first = decide(matches, failures, policy, tenant=tenant)
    shuffle.shuffle(matches)
    shuffle.shuffle(failures)
    assert decide(matches, failures, policy, tenant=tenant) == first


@given(st.lists(any_match, max_size=6), st.lists(failure_st, max_size=4), policy_st, tenant_st, any_match)
def test_allow_lists_are_the_only_way_down(
    matches: list[Match], failures: list[Failure], policy: Policy, tenant: str | None, more: Match
) -> None:
    before = decide(matches, failures, policy, tenant=tenant)
    after = decide([*matches, more], failures, policy, tenant=tenant)
    if after.verdict < before.verdict:
        assert more.allow
        assert "allow_listed" in after.reasons


@given(st.lists(deny_match, max_size=6), st.data(), policy_st, tenant_st)
def test_a_part_of_the_matches_is_never_judged_above_the_whole(
    matches: list[Match], data: st.DataObject, policy: Policy, tenant: str | None
) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(matches), max_size=len(matches)))
    part = [match for match, keep in zip(matches, kept, strict=True) if keep]
    assert decide(part, [], policy, tenant=tenant).verdict <= decide(matches, [], policy, tenant=tenant).verdict


@given(st.lists(any_match, max_size=6), st.lists(failure_st, max_size=4), policy_st, rules_st)
def test_a_tenants_rules_never_reach_anybody_else(
    matches: list[Match], failures: list[Failure], policy: Policy, rules: Rules
) -> None:
    changed = replace(policy, tenants={**policy.tenants, "acme": rules})
    for tenant in (None, "example", "stranger"):
        assert decide(matches, failures, policy, tenant=tenant) == decide(matches, failures, changed, tenant=tenant)
        assert limits(policy, TYPES, tenant) == limits(changed, TYPES, tenant)


@given(st.lists(any_match, max_size=6), policy_st, tenant_st)
def test_the_look_up_is_asked_for_every_match_that_counts(
    matches: Sequence[Match], policy: Policy, tenant: str | None
) -> None:
    widest = limits(policy, TYPES, tenant)
    for match in decide(matches, [], policy, tenant=tenant).matches:
        assert match.distance_bits <= widest[match.signal_type]


@given(deny_match, policy_st, tenant_st)
def test_every_limit_is_inclusive(match: Match, policy: Policy, tenant: str | None) -> None:
    limit = resolve(policy, list_name=match.list_name, signal_type=match.signal_type, tenant=tenant).max_distance_bits
    assume(not match.exact and limit is not None)
    assert limit is not None
    assert decide([replace(match, distance_bits=limit)], [], policy, tenant=tenant).matches
    assert not decide([replace(match, distance_bits=limit + 1)], [], policy, tenant=tenant).matches


@given(policy_st, tenant_st)
def test_no_look_up_is_wider_than_a_rule_asks_for(policy: Policy, tenant: str | None) -> None:
    """At the widest limit there is a list, allowing or not, of which a match still counts."""
    for signal_type, bits in limits(policy, ["pdq", "phash"], tenant).items():
        found = [
            perceptual(bits, list_name=name, signal_type=signal_type, allow=allow)
            for name in (*LISTS, "unnamed")
            for allow in (False, True)
        ]
        assert decide(found, [], policy, tenant=tenant).matches
