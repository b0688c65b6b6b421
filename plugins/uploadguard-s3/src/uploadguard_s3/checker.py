"""Checks object versions: each is read once, decided once, and what its verdict asks for is done once.

The order of steps lets a process end at any point. A key is reserved; the version is read and decided; the verdict is
kept; then it is carried out; then that this is done is kept. Whoever gets the event again goes on where the last one
stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Self, TypeAlias

from uploadguard import Guard
from uploadguard.errors import ConfigError, UploadguardError
from uploadguard.models import Context, Decision, FailureCode, Verdict
from uploadguard_s3.budget import ByteBudget
from uploadguard_s3.clients import open_client
from uploadguard_s3.effects import Effects, Order, public_place
from uploadguard_s3.leases import LATER_S, reserved
from uploadguard_s3.metrics import ObjectMetrics
from uploadguard_s3.model import Checked, ObjectRef, Outcome, S3Error, S3Poison, S3Retry
from uploadguard_s3.options import RouteOptions, S3Options
from uploadguard_s3.state import Begun, Known, Moment, State, content_id, key_id, version_of
from uploadguard_s3.store import Changed, Found, Gone, Reading, Store

__all__ = ["ContextOf", "ObjectChecker"]

ContextOf: TypeAlias = Callable[[ObjectRef, Mapping[str, str]], Context]
"""Makes the context of a check of an object and its user metadata. ``object_id`` and ``tenant`` are filled in."""

OUTCOMES: Mapping[Verdict, Outcome] = {
    Verdict.ALLOW: Outcome.ALLOWED,
    Verdict.NOT_SCANNED: Outcome.NOT_SCANNED,
    Verdict.QUEUE: Outcome.QUEUED,
    Verdict.BLOCK: Outcome.BLOCKED,
}
_ROUNDS = 4


class ObjectChecker:
    """Checks objects of the buckets that the options name. For one event loop; any number of checks at once.

    Made by :meth:`open`, or of an open S3 client of aioboto3's and an open :class:`~uploadguard_s3.state.State`, which
    the caller closes.
    """

    def __init__(
        self,
        guard: Guard,
        options: S3Options,
        *,
        client: Any,
        state: State,
        context: ContextOf | None = None,
        metrics: ObjectMetrics | None = None,
    ) -> None:
        self.options = options
        self.state = state
        self.store = Store(client)
        self._guard = guard
        self._context = context
        self._metrics = metrics
        self._effects = Effects(self.store, options.vocabulary)
        at_once = options.limits.at_once
        self.at_once = at_once if guard.max_at_once is None else min(at_once, guard.max_at_once)
        self._room = asyncio.Semaphore(self.at_once)
        self._under_way = 0
        self._budget = ByteBudget(options.limits.memory_bytes)
        self._max_bytes = guard.settings.media.max_file_bytes

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        guard: Guard,
        options: S3Options,
        *,
        session: Any = None,
        context: ContextOf | None = None,
        metrics: ObjectMetrics | None = None,
    ) -> AsyncIterator[Self]:
        """A checker with a client and a state of its own; ``session`` is aioboto3's, for other credentials.

        Raises :class:`~uploadguard_s3.model.S3Retry` where the state's database cannot be used.
        """
        import aioboto3

        session = session if session is not None else aioboto3.Session()
        state = State(options.state)
        try:
            await state.open()
            async with open_client(session, options) as client:
                yield cls(guard, options, client=client, state=state, context=context, metrics=metrics)
        finally:
            await state.close()

    async def check(self, ref: ObjectRef, *, again: bool = False, context: Context | None = None) -> Checked:
        """Check one object version, and do what its verdict asks for, once.

        ``again``: also where it was checked, but against an older generation of the hash set. Raises
        :class:`~uploadguard_s3.model.S3Retry` and :class:`~uploadguard_s3.model.S3Poison`.
        """
        route = self.options.route(ref.bucket, ref.key)
        if route is None or not route.takes(ref.key):
            return self._booked(Checked(ref, Outcome.SKIPPED), 0.0)
        async with self._counted():
            started = time.monotonic()
            try:
                checked = await self._check(route, ref, again, context)
            except S3Error as error:
                self._failed(error)
                raise
            except UploadguardError as error:  # nothing to check against, or nowhere to record it
                self._failed(error)
                raise S3Retry(f"the Guard cannot answer now: {error}") from error
            return self._booked(checked, time.monotonic() - started)

    async def confirm(
        self,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        etag: str | None = None,
        context: Context | None = None,
    ) -> Checked:
        """Check and publish what was uploaded through a presigned URL, in the request that says it is there.

        Serve :attr:`~uploadguard_s3.model.Checked.published`, and only if it is not None. What the uploader writes
        through the same URL afterwards is another version, with a check of its own; the published copy stays. An
        event for the same upload may come before or after: there is one verdict.

        Raises as :meth:`check`, and :class:`~uploadguard.errors.ConfigError` where the key's route publishes nothing.
        """
        route = self.options.route(bucket, key)
        if route is None or not route.takes(key) or route.public is None:
            raise ConfigError("confirm is for keys of a route with a public place, that are checked")
        checked = await self.check(ObjectRef(bucket, key, version_id, etag), context=context)
        if checked.outcome is Outcome.GONE:
            checked = await self._earlier(checked, etag if version_id is None else version_id)
        if checked.published is None and checked.verdict in (Verdict.ALLOW, Verdict.NOT_SCANNED):
            known = Known(checked.verdict, checked.reference or "", 0, 0.0, done=True)
            published = await self._effects.published(known, public_place(route, key))
            checked = replace(checked, published=published)
        return checked

    def generation(self) -> int:
        """The number of the generation that checks see now."""
        return self._guard.status().generation

    @staticmethod
    def is_fixed(ref: ObjectRef) -> bool:
        """Whether ``ref`` names a version that can never be overwritten."""
        return ref.is_fixed

    def version_of(self, ref: ObjectRef) -> bytes | None:
        """What the state knows a version by; None where ``ref`` names none."""
        return version_of(ref)

    async def _check(self, route: RouteOptions, ref: ObjectRef, again: bool, context: Context | None) -> Checked:
        for _ in range(_ROUNDS):
            try:
                async with reserved(self.state, key_id(ref.bucket, ref.key), self.version_of(ref)) as begun:
                    return await self._check_reserved(route, ref, begun, again, context)
            except Gone:
                return Checked(ref, Outcome.GONE)
            except Changed:
                if self.is_fixed(ref):  # somebody wrote to the copy's place at the same time
                    continue
                if self._metrics is not None:
                    self._metrics.overwritten()
                ref = ObjectRef(ref.bucket, ref.key)  # its overwriter may have lost its event: check it now
        raise S3Retry("others write to it, or to its copy, again and again", after_s=LATER_S)

    async def _check_reserved(
        self, route: RouteOptions, ref: ObjectRef, begun: Begun, again: bool, context: Context | None
    ) -> Checked:
        if self.version_of(ref) is None:
            current = await self.store.current(ref)
            if current is None:
                raise Gone
            ref = replace(current.ref, sequencer=ref.sequencer)
            begun = replace(begun, known=await self._known(ref))
        known = begun.known
        if known is not None and again and known.done and known.generation < self.generation():
            known = None
        if known is not None and known.done:
            if await self._stands(ref, known):
                return await self._duplicate(ref, known, begun)
            known = None
        if known is not None:
            return await self._resume(route, ref, known, begun, context)
        return await self._fresh(route, ref, begun, context)

    async def _fresh(self, route: RouteOptions, ref: ObjectRef, begun: Begun, context: Context | None) -> Checked:
        try:
            reading = await self.store.read(ref)
        except Changed:
            raise Gone from None  # the event's version is overwritten; its overwriter has an event
        try:
            found = reading.found
            if self.version_of(found.ref) != self.version_of(ref):  # the event did not tell the version
                known = await self._known(found.ref)
                if known is not None and known.done:
                    return await self._duplicate(found.ref, known, begun)
            decision = await self._decide(reading, self._context_of(route, found, context))
        finally:
            reading.close()
        if any(failure.code is FailureCode.OVERLOADED for failure in decision.failures):
            raise S3Retry("the Guard has too much to do", after_s=LATER_S)
        if decision.pending and decision.verdict < Verdict.QUEUE:
            raise S3Retry("a match service has yet to answer", after_s=LATER_S)
        version = self._version(found.ref)
        digests = {one.signal_type: one.value for one in decision.hashes if one.signal_type == "sha256"}
        known = Known(decision.verdict, decision.reference, decision.generation, found.modified.timestamp(), done=False)
        if "sha256" in digests:
            known = replace(known, content=content_id(version, digests["sha256"]))
        await self.state.decide(begun, version, known)
        return await self._carry_out(route, found, known, begun, digests, decision)

    async def _decide(self, reading: Reading, context: Context) -> Decision:
        size = reading.found.size_bytes
        unread = size > self._max_bytes and not self.options.limits.read_too_large
        async with self._budget.take(0 if unread else min(size, self._max_bytes)):
            with self._guard.inspect(context) as inspection:
                if unread:
                    inspection.leave_unread(size)
                else:
                    async for chunk in reading.chunks():
                        await inspection.awrite(chunk)
                return await inspection.afinish()

    async def _resume(
        self, route: RouteOptions, ref: ObjectRef, known: Known, begun: Begun, context: Context | None
    ) -> Checked:
        """Go on after a crash: the verdict is kept already."""
        found = await self.store.head(ref)
        if found is not None and self._version(found.ref) == self._version(ref):
            if (digests := await self._same_bytes(found, known)) is not None:
                return await self._carry_out(route, found, known, begun, digests)
            return await self._fresh(route, ref, begun, context)  # of the same ETag, uploaded again
        # It was the last effect to take it away, or it was overwritten and nothing is left to be done with it.
        done = replace(known, done=True)
        moment = Moment(self._version(ref), ref.sequencer, known.modified)
        await self.state.finish(begun, moment.version, done, moment)
        return Checked(ref, OUTCOMES[known.verdict], None, (), known.verdict, known.reference)

    async def _carry_out(
        self,
        route: RouteOptions,
        found: Found,
        known: Known,
        begun: Begun,
        digests: Mapping[str, bytes],
        decision: Decision | None = None,
    ) -> Checked:
        moment = Moment(self._version(found.ref), found.ref.sequencer, found.modified.timestamp())
        order = Order(route, found, known, moment, begun.newest, digests)
        effects, published = await self._effects.carry_out(order)
        done = replace(known, done=True, effects=effects, published=published is not None)
        await self.state.finish(begun, moment.version, done, moment)
        return Checked(found.ref, OUTCOMES[known.verdict], decision, effects, known.verdict, known.reference, published)

    async def _same_bytes(self, found: Found, known: Known) -> Mapping[str, bytes] | None:
        """The digest of what is there, where it must be compared; None where it is not what was checked."""
        if found.fixed:
            return {}
        if found.modified.timestamp() != known.modified:
            return None
        if known.content is None:  # it was too large to be read
            return {}
        sha256 = await self.store.sha256(found.ref)
        return {"sha256": sha256} if content_id(self._version(found.ref), sha256) == known.content else None

    async def _stands(self, ref: ObjectRef, known: Known) -> bool:
        """Whether what was done with a version is still all there is to be done: it was not uploaded anew."""
        if self.is_fixed(ref):
            return True
        current = await self.store.current(ref)
        if current is None or current.ref.etag != ref.etag:
            return True
        if "deleted" in known.effects or current.modified.timestamp() != known.modified:
            return False
        return "tagged" not in known.effects or await self._effects.is_tagged(known, current)

    async def _duplicate(self, ref: ObjectRef, known: Known, begun: Begun) -> Checked:
        await self.state.release(begun, Moment(self._version(ref), ref.sequencer, known.modified))
        return Checked(ref, Outcome.DUPLICATE, None, (), known.verdict, known.reference)

    async def _earlier(self, gone: Checked, token: str | None) -> Checked:
        """What became of a key whose object is not there any more: an event's check may have been faster."""
        ref = gone.ref
        newest = await self.state.newest(key_id(ref.bucket, ref.key))
        wanted = self.version_of(ref)
        if newest is None or (token is not None and wanted != newest.version):
            return gone
        known = (await self.state.known([newest.version])).get(newest.version)
        if known is None or not known.done:
            return gone
        return Checked(ref, Outcome.DUPLICATE, None, (), known.verdict, known.reference)

    async def _known(self, ref: ObjectRef) -> Known | None:
        version = self._version(ref)
        return (await self.state.known([version])).get(version)

    def _version(self, ref: ObjectRef) -> bytes:
        version = self.version_of(ref)
        if version is None:
            raise S3Poison("the S3 service tells neither a version nor an ETag of it")
        return version

    def _context_of(self, route: RouteOptions, found: Found, context: Context | None) -> Context:
        ref = found.ref
        if context is None:
            filename = ref.key.rpartition("/")[2]
            context = self._context(ref, found.metadata) if self._context is not None else Context(filename=filename)
        return replace(
            context,
            object_id=context.object_id or ref.url,
            tenant=context.tenant or route.tenant,
        )

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        async with self._room:
            self._under_way += 1
            self._show()
            try:
                await self.state.purge()
                yield
            finally:
                self._under_way -= 1
                self._show()

    def _show(self) -> None:
        if self._metrics is not None:
            self._metrics.under_way(self._under_way, self._budget.used_bytes)

    def _booked(self, checked: Checked, seconds: float) -> Checked:
        if self._metrics is not None:
            self._metrics.checked(checked, seconds)
        return checked

    def _failed(self, error: UploadguardError) -> None:
        if self._metrics is not None:
            self._metrics.failed("poison" if isinstance(error, S3Poison) else "retry")
