"""What tests put into buckets, and the checkers they check it with."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.testing.media import encode, make_photo
from uploadguard.testing.picture import picture_bytes, variant_bytes
from uploadguard_s3.checker import ObjectChecker
from uploadguard_s3.model import ObjectRef
from uploadguard_s3.options import S3Options
from uploadguard_s3.state import State

__all__ = ["BLOCKED", "QUEUED", "UNSCANNED", "Place", "allowed", "open_guard", "placed"]

BLOCKED = picture_bytes()
QUEUED = variant_bytes("resized")
UNSCANNED = b"not a picture"


@functools.cache
def allowed(seed: int = 1) -> bytes:
    """A picture that no list holds."""
    return encode(make_photo(120, 90, seed=seed))


def open_guard(directory: Path, **overrides: Any) -> Guard:
    """A Guard whose only list is the built-in one, of the harmless test picture."""
    HashSet.create(directory)
    return Guard.open(hashset={"path": directory, "test_list": True, "allow_empty": True}, **overrides)


@dataclass
class Place:
    """A checker, a client, and the buckets ``uploads``, ``public`` and ``quarantine`` of one test."""

    checker: ObjectChecker
    client: Any
    uploads: str
    public: str
    quarantine: str

    async def put(self, key: str, body: bytes, **more: Any) -> ObjectRef:
        """Upload, as an event would tell of it."""
        answer = await self.client.put_object(Bucket=self.uploads, Key=key, Body=body, **more)
        return ObjectRef(self.uploads, key, answer.get("VersionId"), answer["ETag"].strip('"'), None, len(body))

    async def keys(self, bucket: str) -> list[str]:
        """What lies in a bucket now."""
        return [one["Key"] for one in (await self.client.list_objects_v2(Bucket=bucket)).get("Contents", ())]

    async def body(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        answer = await self.client.get_object(Bucket=bucket, Key=key)
        return bytes(await answer["Body"].read())

    async def tags(self, bucket: str, key: str, **version: str) -> dict[str, str]:
        """An object's tags."""
        answer = await self.client.get_object_tagging(Bucket=bucket, Key=key, **version)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


Named = Callable[[str], str]


@asynccontextmanager
async def placed(
    client: Any,
    named: Named,
    guard: Guard,
    state: Path,
    *,
    versions: bool = True,
    route: Callable[[Place], dict[str, Any]] | None = None,
    wrapped: Callable[[Any], Any] | None = None,
    **tables: Any,
) -> AsyncIterator[Place]:
    """Buckets and a checker for them. ``route`` changes the only route; ``wrapped`` what the checker calls."""
    buckets = {purpose: named(purpose) for purpose in ("uploads", "public", "quarantine")}
    for bucket in buckets.values():
        await client.create_bucket(Bucket=bucket)
    if versions:
        await client.put_bucket_versioning(Bucket=buckets["uploads"], VersioningConfiguration={"Status": "Enabled"})
    base = {
        "bucket": buckets["uploads"],
        "prefix": "in/",
        "public_bucket": buckets["public"],
        "public_prefix": "",
        "quarantine_bucket": buckets["quarantine"],
    }
    changed = route(Place(None, client, **buckets)) if route is not None else {}  # type: ignore[arg-type]
    options = S3Options.of(state={"path": state}, routes={"only": {**base, **changed}}, **tables)
    opened = State(options.state)
    try:
        await opened.open()
        used = wrapped(client) if wrapped is not None else client
        yield Place(ObjectChecker(guard, options, client=used, state=opened), client, **buckets)
    finally:
        await opened.close()
