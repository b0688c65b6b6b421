"""What a person's decision on a queued object asks for: to publish the very version that was checked, or to delete it.

Both may be repeated, and come to the same. What overwrote the version is left alone: it is checked by its own event, or
found by ``reconcile``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from uploadguard.models import Decision, Verdict
from uploadguard_s3.effects import Effects, Order, public_place, quarantine_place
from uploadguard_s3.leases import LATER_S, reserved
from uploadguard_s3.model import ObjectRef, S3Poison, S3Retry
from uploadguard_s3.options import RouteOptions, S3Options
from uploadguard_s3.state import Begun, Known, Moment, State, key_id, version_of
from uploadguard_s3.store import Changed, Found, Gone, Store

__all__ = ["Reviewed", "Reviews"]


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What was done. ``effects`` as in :class:`~uploadguard_s3.model.Checked`; of a deletion: ``deleted``,
    ``unpublished``, ``copy_deleted``, ``copy_locked``. ``overwritten``: another object is there by now.
    """

    effects: tuple[str, ...] = ()
    overwritten: bool = False
    published: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    route: RouteOptions
    ref: ObjectRef
    version: bytes
    decision: Decision
    begun: Begun

    @property
    def known(self) -> Known | None:
        return self.begun.known


class Reviews:
    """Carries out what people decided. All methods raise :class:`~uploadguard_s3.model.S3Error`."""

    def __init__(self, options: S3Options, store: Store, state: State) -> None:
        self._options = options
        self._store = store
        self._state = state
        self._effects = Effects(store, options.vocabulary)

    async def release(self, ref: ObjectRef, decision: Decision) -> Reviewed:
        """Do with the version what is done with one that is allowed."""
        route, version = self._place_of(ref)
        async with reserved(self._state, key_id(ref.bucket, ref.key), version) as begun:
            known = begun.known
            if known is not None and known.done and known.verdict is Verdict.ALLOW:
                await self._state.release(begun)
                return Reviewed(known.effects)
            return await self._release(_Case(route, ref, version, decision, begun))

    async def delete(self, ref: ObjectRef, decision: Decision) -> Reviewed:
        """Delete the version, its copy in quarantine unless that is locked, and what was published of it."""
        route, version = self._place_of(ref)
        async with reserved(self._state, key_id(ref.bucket, ref.key), version) as begun:
            case = _Case(route, ref, version, decision, begun)
            found = await self._there(case)
            deleted = found is not None and await self._store.delete(found)
            effects: tuple[str, ...] = ("deleted",) if deleted else ()
            effects += await self._unpublish(case) + await self._clear_quarantine(case)
            before = case.known.effects if case.known is not None else ()
            kept = tuple(dict.fromkeys((*before, *effects)))
            await self._finish(case, replace(self._known(case, Verdict.BLOCK), effects=kept))
            overwritten = not deleted and not ref.is_fixed and await self._store.current(ref) is not None
            return Reviewed(effects, overwritten)

    def _place_of(self, ref: ObjectRef) -> tuple[RouteOptions, bytes]:
        route, version = self._options.route(ref.bucket, ref.key), version_of(ref)
        if route is None or not route.takes(ref.key) or version is None:
            raise S3Poison("the object lies on no route, or its version is not known")
        return route, version

    async def _there(self, case: _Case) -> Found | None:
        """The version where it was uploaded to, if it is there, and is what was checked."""
        found = await self._store.head(replace(case.ref, etag=None))
        if found is None or found.fixed:
            return found if case.ref.is_fixed else None
        if found.ref.etag != case.ref.etag:
            return None
        if case.known is not None and found.modified.timestamp() != case.known.modified:
            return None  # the same ETag, and another upload
        return found if await self._is_of(case, found) else None

    async def _copy(self, case: _Case) -> Found | None:
        """Its copy in quarantine."""
        return await self._store.head(quarantine_place(case.route, case.ref)) if case.route.quarantine else None

    async def _is_of(self, case: _Case, found: Found) -> bool:
        """Whether an object that can be overwritten has the bytes that were checked: an ETag can be made to fit."""
        wanted = _digests(case.decision).get("sha256")
        if wanted is None:
            return True
        try:
            return await self._store.sha256(found.ref) == wanted
        except (Changed, Gone):
            return False

    async def _origin(self, case: _Case) -> tuple[Found, Found | None] | None:
        """The version as it was; and, where it was deleted, its copy in quarantine."""
        if (found := await self._there(case)) is not None:
            return found, None
        newest = case.begun.newest
        if await self._store.current(case.ref) is not None or (newest is not None and newest.version != case.version):
            return None  # a newer one is there, or was
        if (copy := await self._copy(case)) is None or not await self._is_of(case, copy):
            return None
        if "promote" not in case.route.effects(Verdict.ALLOW):
            raise S3Poison("the object was deleted, and is only in quarantine: bring it back by hand")
        return replace(copy, ref=replace(case.ref, size_bytes=copy.size_bytes)), copy

    async def _release(self, case: _Case) -> Reviewed:
        known = self._known(case, Verdict.ALLOW)
        place = public_place(case.route, case.ref.key) if case.route.public is not None else None
        effects: tuple[str, ...] = ("promoted",)
        published = await self._effects.published(known, place) if place is not None else None
        if published is None:  # else an earlier attempt's
            if (origin := await self._origin(case)) is None:
                await self._state.release(case.begun)
                return Reviewed(overwritten=await self._store.current(case.ref) is not None)
            found, copy = origin
            moment = self._moment(case, found)
            order = Order(case.route, found, known, moment, case.begun.newest, _digests(case.decision), copy)
            try:
                effects, published = await self._effects.carry_out(order)
            except (Changed, Gone):
                raise S3Retry("the object was written to at the same time", after_s=LATER_S) from None
        effects += await self._clear_quarantine(case)
        await self._finish(case, replace(known, effects=effects, published=published is not None))
        return Reviewed(effects, "superseded" in effects, published)

    async def _clear_quarantine(self, case: _Case) -> tuple[str, ...]:
        copy = await self._copy(case)
        if copy is None:
            return ()
        if copy.legal_hold or copy.retained:
            return ("copy_locked",)
        return ("copy_deleted",) if await self._store.delete(copy) else ()

    async def _unpublish(self, case: _Case) -> tuple[str, ...]:
        """Delete what was published by this decision: the case was released before, and opened again."""
        if case.route.public is None:
            return ()
        known = self._known(case, Verdict.ALLOW)
        published = await self._effects.published(known, public_place(case.route, case.ref.key))
        there = await self._store.head(published) if published is not None else None
        return ("unpublished",) if there is not None and await self._store.delete(there) else ()

    @staticmethod
    def _known(case: _Case, verdict: Verdict) -> Known:
        modified = case.known.modified if case.known is not None else 0.0
        return Known(verdict, case.decision.reference, case.decision.generation, modified, done=True)

    @staticmethod
    def _moment(case: _Case, found: Found) -> Moment:
        newest = case.begun.newest
        if newest is not None and newest.version == case.version:
            return newest
        return Moment(case.version, None, found.modified.timestamp())

    async def _finish(self, case: _Case, known: Known) -> None:
        """Keep what it came to. Whether the version is its key's newest one does not change by that."""
        await self._state.decide(case.begun, case.version, known)
        await self._state.release(case.begun)


def _digests(decision: Decision) -> Mapping[str, bytes]:
    return {one.signal_type: one.value for one in decision.hashes if one.signal_type == "sha256"}
