"""What a Guard is put together from, as the settings have it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from uploadguard.alarms import Alarm
from uploadguard.breaker import Breaker
from uploadguard.config import Settings
from uploadguard.hashset import Generation, Segment, build_segment
from uploadguard.logs import log
from uploadguard.matching import Matching
from uploadguard.opening import hashset_keys, open_hashset
from uploadguard.plugins import Plugins
from uploadguard.policy import Policy, SignalDefaults
from uploadguard.serving import Serving
from uploadguard.signals.base import DigestSignal, SignalType, lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist
from uploadguard.tripped import TrippedFile

__all__ = ["decision_policy", "open_breaker", "open_matching", "open_serving", "warn_of_policy"]


def decision_policy(settings: Settings, plugins: Plugins, signals: Sequence[SignalType]) -> Policy:
    """The policy for the signal types in use. Raises :class:`~uploadguard.errors.ConfigError`."""
    types = {
        signal.name: SignalDefaults(
            signal.max_distance_bits, signal.length_bytes * 8, digest=isinstance(signal, DigestSignal)
        )
        for signal in signals
    }
    return settings.decision_policy(types, matchers=plugins.matchers.values())


def warn_of_policy(policy: Policy, plugins: Plugins, generation: Generation) -> None:
    """Log what of a policy lets uploads through, and how many of its rules are for lists that there are not."""
    if fail_open := policy.fail_open():
        log.warning("fail-open settings let uploads through uninspected: %s", ", ".join(fail_open))
    held = {info.name for info in generation.lists}
    unknown = policy.list_names() - (held | plugins.matchers.keys() | {testlist.TEST_LIST_NAME})
    if unknown:
        log.warning("policy rules name %d list(s) that the hash set does not hold", len(unknown))


def open_matching(settings: Settings, plugins: Plugins, signals: Sequence[SignalType], *, waits: bool) -> Matching:
    """The match services. Raises :class:`~uploadguard.errors.ConfigError` for one that could never be asked rightly."""
    matching = Matching(plugins.matchers, [signal.name for signal in signals], waits=waits)
    problems = [
        (("matchers", name), f"goes by {', '.join(missing)}, which must be in signals.enabled")
        for name, missing in matching.missing().items()
    ]
    late = [matcher for matcher in matching.matchers.values() if matcher.prefetch]
    if late and not settings.ledger.path:
        problems += [(("matchers", one.name), "answers later, which needs a ledger: set ledger.path") for one in late]
    problems += [
        (("matchers", one.name), "takes the upload itself, which is no longer there when it is to answer later")
        for one in late
        if one.takes_content
    ]
    if problems:
        raise settings.error(problems)
    return matching


def open_breaker(settings: Settings, policy: Policy, *, counts: bool, alarm: Callable[[Alarm], None]) -> Breaker:
    """The breaker beside the hash set. Raises :class:`~uploadguard.errors.ConfigError` for keys that cannot be read."""
    file = TrippedFile(settings.hashset.path, hashset_keys(settings))
    return Breaker(file, settings.safety, policy, refresh_s=settings.hashset.refresh_s, counts=counts, alarm=alarm)


def open_serving(settings: Settings, signal_types: Collection[str], *, changed: Callable[[int], None]) -> Serving:
    """The hash set, loaded, with the test list where it is wanted. Raises as :class:`Serving` does.

    ``signal_types`` are those that checks use; ``changed`` is told the number of each further generation.
    """
    return Serving(
        open_hashset(settings),
        verify=settings.hashset.verify,
        refresh_s=settings.hashset.refresh_s,
        built_in=(_test_segment(),) if settings.hashset.test_list else (),
        signal_types=signal_types,
        changed=changed,
    )


def _test_segment() -> Segment:
    """The built-in test list, compiled in memory."""
    kinds = lookup_kinds((*DIGESTS, Pdq()))
    data = build_segment(testlist.entries(), kinds, list_name=testlist.TEST_LIST_NAME, source="built-in")
    return Segment.from_buffer(data)
