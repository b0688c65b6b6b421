"""What a verdict asks for, done to exactly the version that was checked.

Each effect may be repeated after a crash, and comes to the same. All are conditional on the version's id or, where the
bucket keeps no versions, on its ETag; for services that ignore a condition, what was done is looked at afterwards and
taken back.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from uploadguard.models import Verdict
from uploadguard_s3.model import ObjectRef, S3Retry
from uploadguard_s3.options import RouteOptions, Vocabulary
from uploadguard_s3.state import Known, Moment
from uploadguard_s3.store import Changed, Copied, Found, Lock, Store

__all__ = ["Effects", "Order", "public_place", "quarantine_place", "verdict_tags"]

REFERENCE_TAG = "uploadguard-reference"
VERDICT_TAG = "uploadguard-verdict"
GENERATION_TAG = "uploadguard-generation"
_OWN_TAGS = frozenset({REFERENCE_TAG, VERDICT_TAG, GENERATION_TAG, "GuardDutyMalwareScanStatus", "scan-status"})
_MAX_TAGS = 10
_MAX_KEY_BYTES = 1024
_ATTEMPTS = 3

_GUARDDUTY = {Verdict.ALLOW: "NO_THREATS_FOUND", Verdict.NOT_SCANNED: "UNSUPPORTED"}
_CLAMSCAN = {Verdict.ALLOW: "CLEAN", Verdict.NOT_SCANNED: "N/A"}


@dataclass(frozen=True, slots=True)
class Order:
    """A verdict on a version, to be carried out.

    ``digests`` are those of the bytes that were checked, by signal type; none where they are not known any more.
    ``newest`` is the newest version of the key that was dealt with before, ``moment`` this one's place among them.
    ``copy`` is to be published in place of ``found`` where that is not there any more.
    """

    route: RouteOptions
    found: Found
    known: Known
    moment: Moment
    newest: Moment | None = None
    digests: Mapping[str, bytes] = field(default_factory=dict)
    copy: Found | None = None

    @property
    def origin(self) -> Found:
        """What is copied: the version itself or, where that is deleted, another copy of it."""
        return self.copy if self.copy is not None else self.found


def verdict_tags(known: Known, vocabulary: Vocabulary) -> dict[str, str]:
    """The tags that tell a verdict."""
    tags = {
        VERDICT_TAG: known.verdict.label,
        GENERATION_TAG: str(known.generation),
        REFERENCE_TAG: known.reference,
    }
    if vocabulary == "guardduty":
        tags["GuardDutyMalwareScanStatus"] = _GUARDDUTY.get(known.verdict, "THREATS_FOUND")
    elif vocabulary == "clamscan":
        tags["scan-status"] = _CLAMSCAN.get(known.verdict, "INFECTED")
    return tags


def public_place(route: RouteOptions, key: str) -> ObjectRef:
    """Where an object of this key is published."""
    assert route.public is not None
    bucket, prefix = route.public
    return ObjectRef(bucket, prefix + key[len(route.prefix) :])


def quarantine_place(route: RouteOptions, ref: ObjectRef) -> ObjectRef:
    """Where the copy of a version is kept: one place for each version, the same in each attempt."""
    assert route.quarantine is not None
    bucket, prefix = route.quarantine
    key = f"{prefix}{ref.key}/{ref.version_id if ref.is_fixed else ref.etag}"
    if len(key.encode()) > _MAX_KEY_BYTES:
        key = prefix + hashlib.sha256(f"{ref.bucket}\0{key}".encode()).hexdigest()
    return ObjectRef(bucket, key)


class Effects:
    """Carries orders out."""

    def __init__(self, store: Store, vocabulary: Vocabulary) -> None:
        self._store = store
        self._vocabulary = vocabulary

    async def carry_out(self, order: Order) -> tuple[tuple[str, ...], ObjectRef | None]:
        """All that the verdict asks for: what was done, and the public copy, if any.

        Raises :class:`~uploadguard_s3.store.Changed` where the version was overwritten, with nothing of what overwrote
        it published or tagged.
        """
        done: list[str] = []
        published: ObjectRef | None = None
        for effect in order.route.effects(order.known.verdict):
            match effect:
                case "tag":
                    done += await self._tag(order)
                case "quarantine":
                    done += await self._quarantine(order)
                case "promote":
                    published = await self._promote(order)
                    done.append("promoted" if published is not None else "superseded")
                    done += await self._delete(order)
                case "delete":
                    done += await self._delete(order)
        return tuple(done), published

    async def published(self, known: Known, place: ObjectRef) -> ObjectRef | None:
        """The public copy that was made by this decision, if it is there still."""
        there = await self._store.head(place)
        if there is None or (await self._store.tags(there)).get(REFERENCE_TAG) != known.reference:
            return None
        return there.ref

    async def is_tagged(self, known: Known, found: Found) -> bool:
        """Whether it has the tags of this decision. What overwrites an object has not."""
        return (await self._store.tags(found)).get(REFERENCE_TAG) == known.reference

    async def _tag(self, order: Order) -> list[str]:
        found = order.found
        there = await self._store.tags(found)
        tags = self._merged(order, there)
        if tags == there:  # a write would be an event
            return []
        await self._store.set_tags(found, tags)
        if not found.fixed and not found.same(await self._store.current(found.ref)):
            await self._store.clear_tags(ObjectRef(found.ref.bucket, found.ref.key))
            raise Changed
        return ["tagged"]

    async def _quarantine(self, order: Order) -> list[str]:
        route, found = order.route, order.found
        place = quarantine_place(route, found.ref)
        lock = _lock(route)
        tags = self._merged(order, await self._store.tags(found))
        done = ["quarantined"]
        try:
            await self._verify(order, await self._store.copy(found, place.bucket, place.key, tags, lock=lock))
        except Changed:
            there = await self._store.head(place)
            if there is None or there.size_bytes != found.size_bytes:
                raise
            done = []  # an earlier attempt's
        if lock is not None:
            copy = await self._store.head(place)
            if copy is not None and not (
                (copy.legal_hold or not lock.legal_hold) and (copy.retained or not lock.until)
            ):
                await self._store.lock(copy, lock)
        return done

    async def _promote(self, order: Order) -> ObjectRef | None:
        """Publish the version; None where a newer one is there."""
        origin = order.origin
        place = public_place(order.route, order.found.ref.key)
        if await self._superseded(order):
            return None
        tags = self._merged(order, await self._store.tags(origin))
        over: str | None = None
        for _ in range(_ATTEMPTS):
            try:
                copied = await self._store.copy(origin, place.bucket, place.key, tags, over=over)
            except Changed:
                if not origin.fixed and not origin.same(await self._store.current(origin.ref)):
                    raise
                if earlier := await self.published(order.known, place):
                    return earlier
                there = await self._store.head(place)
                over = there.ref.etag if there is not None else None
                continue
            await self._verify(order, copied)
            return ObjectRef(copied.bucket, copied.key, copied.version_id, copied.etag, None, origin.size_bytes)
        raise S3Retry("the public object is written by others at the same time")

    async def _superseded(self, order: Order) -> bool:
        """Whether the version is not the newest of its key any more: then it is never published."""
        if not order.found.fixed or order.copy is not None:
            return False  # what is there is the newest, and the copy is conditional on it
        newest = order.newest
        if newest is not None and newest.version != order.moment.version and order.moment.before(newest):
            return True  # that one may be moved away already
        current = await self._store.current(order.found.ref)
        return current is None or current.ref.version_id != order.found.ref.version_id

    async def _verify(self, order: Order, copied: Copied) -> None:
        """Take a copy back that is not of what was checked: not every service heeds the condition on the source."""
        if order.origin.fixed or await self._is_of(order, copied):
            return
        await self._store.delete_copy(copied)
        raise Changed

    async def _is_of(self, order: Order, copied: Copied) -> bool:
        digests = order.digests
        if copied.sha256 is not None and "-" not in copied.sha256 and "sha256" in digests:
            return copied.sha256 == base64.b64encode(digests["sha256"]).decode()
        if "sha256" in digests:  # an ETag is no proof: two files can have one MD5
            return await self._store.sha256_of(copied) == digests["sha256"]
        if copied.etag is not None and copied.etag == order.origin.ref.etag:
            return True
        # Encrypted or joined from parts, a copy has an ETag of its own.
        return order.origin.same(await self._store.current(order.origin.ref))

    async def _delete(self, order: Order) -> list[str]:
        return ["deleted"] if await self._store.delete(order.found) else []

    def _merged(self, order: Order, there: Mapping[str, str]) -> dict[str, str]:
        """The verdict's tags beside the uploader's, as many of those as there is room for."""
        own = verdict_tags(order.known, self._vocabulary)
        others = [(name, value) for name, value in there.items() if name not in _OWN_TAGS]
        return {**dict(others[: _MAX_TAGS - len(own)]), **own}


def _lock(route: RouteOptions) -> Lock | None:
    if not route.legal_hold and not route.retain_days:
        return None
    until = datetime.now(UTC) + timedelta(days=route.retain_days) if route.retain_days else None
    return Lock(route.legal_hold, route.retain_mode.upper() if until is not None else None, until)
