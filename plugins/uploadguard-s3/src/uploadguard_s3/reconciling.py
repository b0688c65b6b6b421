"""Finds what no event came for: lists what lies where uploads come in, and checks what the state does not know."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from uploadguard_s3.checker import ObjectChecker
from uploadguard_s3.effects import VERDICT_TAG
from uploadguard_s3.model import ObjectRef, Outcome, S3Poison, S3Retry
from uploadguard_s3.options import RouteOptions
from uploadguard_s3.state import Known

__all__ = ["Reconciled", "reconcile"]


@dataclass(slots=True)
class Reconciled:
    """What a listing came to, while it goes on and in the end.

    ``listed`` objects (or versions) are ``settled``, ``fresh`` (younger than asked for, their events may come yet) or
    ``missed``. ``outcomes`` are of those missed, ``failures`` the reasons of those that could not be dealt with.
    """

    listed: int = 0
    settled: int = 0
    fresh: int = 0
    missed: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether nothing is left that could not be dealt with."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON types."""
        return {
            "listed": self.listed,
            "settled": self.settled,
            "fresh": self.fresh,
            "missed": self.missed,
            "outcomes": {outcome.value: count for outcome, count in sorted(self.outcomes.items())},
            "failures": dict(sorted(self.failures.items())),
            "seconds": round(self.seconds, 3),
        }


async def reconcile(
    checker: ObjectChecker,
    *,
    dry_run: bool = False,
    again: bool = False,
    trust_tags: bool = False,
    min_age_s: float = 300.0,
    progress: Callable[[Reconciled], None] | None = None,
) -> Reconciled:
    """List the places of all routes, and check what was missed, as many at once as the checker takes.

    ``dry_run`` only counts. ``again``: also what was checked against an older generation of the hash set.
    ``trust_tags``: what has a verdict's tag is settled, also where the state does not know it; only where nobody else
    can set tags. ``progress`` is told after each page. Needs memory for one page, 1,000 objects, and for those being
    checked. Raises :class:`~uploadguard_s3.model.S3Error` where the listing fails; one object that fails is counted.
    """
    return await _Reconciling(checker, dry_run, again, trust_tags, min_age_s, progress).run()


class _Reconciling:
    def __init__(
        self,
        checker: ObjectChecker,
        dry_run: bool,
        again: bool,
        trust_tags: bool,
        min_age_s: float,
        progress: Callable[[Reconciled], None] | None,
    ) -> None:
        self._checker = checker
        self._dry_run = dry_run
        self._again = again
        self._trust_tags = trust_tags
        self._before = datetime.now(UTC) - timedelta(seconds=min_age_s)
        self._progress = progress
        self._room = asyncio.Semaphore(checker.at_once)
        self._figures = Reconciled()

    async def run(self) -> Reconciled:
        started = time.monotonic()
        routes = self._checker.options.routes.values()
        versioned = {bucket: await self._checker.store.has_versions(bucket) for bucket in {r.bucket for r in routes}}
        try:
            async with asyncio.TaskGroup() as group:
                for route in routes:
                    async for page in self._pages(route, versioned[route.bucket]):
                        for ref in page:
                            await self._room.acquire()
                            group.create_task(self._check(ref))
                        self._figures.seconds = time.monotonic() - started
                        self._tell()
        except ExceptionGroup as errors:  # the group's, around what the listing raised
            raise errors.exceptions[0] from None
        self._figures.seconds = time.monotonic() - started
        self._tell()
        return self._figures

    async def _pages(self, route: RouteOptions, versions: bool) -> AsyncIterator[list[ObjectRef]]:
        """What was missed, of one page each."""
        checker, figures = self._checker, self._figures
        async for page in checker.store.pages(route.bucket, route.prefix, versions=versions):
            listed = [
                (ref, modified)
                for ref, modified in page
                if checker.options.route(ref.bucket, ref.key) is route and route.takes(ref.key)
            ]
            known = await checker.state.known([v for ref, _ in listed if (v := checker.version_of(ref)) is not None])
            missed = []
            for ref, modified in reversed(listed):  # of one key's versions the oldest first: it is not to be published
                figures.listed += 1
                if self._is_settled(ref, modified, known.get(checker.version_of(ref) or b"")):
                    figures.settled += 1
                elif modified > self._before:
                    figures.fresh += 1
                else:
                    missed.append(ref)
            yield missed

    def _is_settled(self, ref: ObjectRef, modified: datetime, known: Known | None) -> bool:
        if known is None or not known.done:
            return False
        if self._again and known.generation < self._checker.generation():
            return False
        if self._checker.is_fixed(ref):
            return True
        return "deleted" not in known.effects and int(modified.timestamp()) == int(known.modified)

    async def _check(self, ref: ObjectRef) -> None:
        figures = self._figures
        try:
            if self._trust_tags and not self._again and await self._has_tag(ref):
                figures.settled += 1
                return
            figures.missed += 1
            if not self._dry_run:
                checked = await self._checker.check(ref, again=self._again)
                figures.outcomes[checked.outcome] += 1
        except (S3Retry, S3Poison) as error:
            figures.failures[error.reason] += 1
        finally:
            self._room.release()

    async def _has_tag(self, ref: ObjectRef) -> bool:
        found = await self._checker.store.head(ref)
        return found is not None and VERDICT_TAG in await self._checker.store.tags(found)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._figures)
