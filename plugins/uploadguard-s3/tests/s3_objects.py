"""What tests put into buckets, and the checkers they check it with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.testing.media import encode, make_photo
from uploadguard.testing.picture import picture_bytes, variant_bytes
from uploadguard_s3.checker import ObjectChecker
from uploadguard_s3.metrics import ObjectMetrics
from uploadguard_s3.model import ObjectRef
from uploadguard_s3.options import S3Options
from uploadguard_s3.state import State

__all__ = [
    "BLOCKED",
    "QUEUED",
    "UNSCANNED",
    "Killed",
    "Meddling",
    "Place",
    "Run",
    "allowed",
    "make_buckets",
    "open_guard",
    "placed",
]

Run = Callable[..., Any]
"""Runs what is done at a :class:`Place`."""

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
    """A checker, a client, and a corner of the buckets for one test alone: ``prefix`` is left out in all keys here."""

    checker: ObjectChecker
    client: Any
    prefix: str
    uploads: str
    public: str = "public"
    quarantine: str = "quarantine"
    used: Any = None
    """What the checker calls."""

    @property
    def meddling(self) -> Meddling:
        """The same, where it is one."""
        assert isinstance(self.used, Meddling)
        return self.used

    async def put(self, key: str, body: bytes, **more: Any) -> ObjectRef:
        """Upload, as an event would tell of it."""
        answer = await self.client.put_object(Bucket=self.uploads, Key=self.prefix + key, Body=body, **more)
        return ObjectRef(
            self.uploads, self.prefix + key, answer.get("VersionId"), answer["ETag"].strip('"'), None, len(body)
        )

    async def keys(self, bucket: str) -> list[str]:
        """What lies in a bucket now."""
        answer = await self.client.list_objects_v2(Bucket=bucket, Prefix=self.prefix)
        return [one["Key"].removeprefix(self.prefix) for one in answer.get("Contents", ())]

    async def body(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        answer = await self.client.get_object(Bucket=bucket, Key=self.prefix + key)
        return bytes(await answer["Body"].read())

    async def head(self, bucket: str, key: str) -> Any:
        """What is said of an object."""
        return await self.client.head_object(Bucket=bucket, Key=self.prefix + key)

    async def tags(self, ref: ObjectRef) -> dict[str, str]:
        """An object's tags."""
        version = {"VersionId": ref.version_id} if ref.version_id is not None else {}
        answer = await self.client.get_object_tagging(Bucket=ref.bucket, Key=ref.key, **version)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


class Killed(BaseException):
    """Stands for the end of a process."""


class Meddling:
    """A client for a checker, with somebody who does something before its calls, or after them.

    ``before`` and ``after`` are by the name of a method; each is called once. ``without`` are arguments that the
    service does not heed.
    """

    def __init__(self, client: Any, without: Collection[str] = ()) -> None:
        self._client = client
        self._without = without
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}
        self.calls: list[str] = []
        self.dies_at: tuple[int, bool] | None = None
        """At which call from now on, from 0, the process ends, and whether before it."""

    def _dies(self, before: bool) -> bool:
        if self.dies_at is None or self.dies_at[1] is not before:
            return False
        count = self.dies_at[0]
        self.dies_at = (count - 1, before) if count else None
        return count == 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not inspect.ismethod(method) or name == "get_paginator":
            return method

        async def called(**arguments: Any) -> Any:
            self.calls.append(name)
            if self._dies(before=True):
                raise Killed
            if name in self.before:
                await self.before.pop(name)()
            heeded = {key: value for key, value in arguments.items() if key not in self._without}
            answer = await method(**heeded)
            if self._dies(before=False):
                raise Killed
            if name in self.after:
                await self.after.pop(name)()
            return answer

        return called


_BUCKETS = {"versions": "Enabled", "flat": None, "public": None, "public-versions": "Enabled", "quarantine": None}
_MADE: set[str] = set()


async def make_buckets(client: Any) -> None:
    """The buckets that all tests share, once: a bucket of one's own takes a third of a second."""
    if client.meta.endpoint_url in _MADE:
        return
    for bucket, versioning in _BUCKETS.items():
        await client.create_bucket(Bucket=bucket)
        if versioning is not None:
            await client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning})
    await client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    _MADE.add(client.meta.endpoint_url)


@asynccontextmanager
async def placed(
    client: Any,
    prefix: str,
    guard: Guard,
    state: Path,
    *,
    versions: bool = True,
    route: Mapping[str, Any] = {},
    wrapped: Callable[[Any], Any] = lambda client: client,
    tables: Mapping[str, Any] = {},
    metrics: ObjectMetrics | None = None,
) -> AsyncIterator[Place]:
    """A checker for the prefix. ``route`` changes the only route; ``wrapped`` what the checker calls."""
    await make_buckets(client)
    uploads = "versions" if versions else "flat"
    base = {
        "bucket": uploads,
        "prefix": f"{prefix}in/",
        "public_bucket": "public",
        "public_prefix": prefix,
        "quarantine_bucket": "quarantine",
        "quarantine_prefix": f"{prefix}kept/",
    }
    only = {name: value for name, value in {**base, **route}.items() if value is not None}
    options = S3Options.of(**{"state": {"path": state, "lease_s": 1.0}, **tables}, routes={"only": only})
    opened = State(options.state)
    try:
        await opened.open()
        used = wrapped(client)
        checker = ObjectChecker(guard, options, client=used, state=opened, metrics=metrics)
        buckets = uploads, only.get("public_bucket", uploads), only.get("quarantine_bucket", "")
        yield Place(checker, client, prefix, *buckets, used)
    finally:
        await opened.close()
