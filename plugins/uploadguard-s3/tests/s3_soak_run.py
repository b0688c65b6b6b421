"""What every soak does: uploads, a look at what is public all along, ``reconcile``, and a judgement at the end."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
import secrets
import subprocess
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aioboto3
from s3_server import S3Server
from s3_soak_worker import open_guard

from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.testing.media import encode, make_photo
from uploadguard_s3 import ObjectChecker, ObjectRef, Reconciled, S3Options, reconcile
from uploadguard_s3.state import State

__all__ = ["AT_ONCE", "Buckets", "Figures", "Pictures", "Plan", "Soak", "Upload"]

log = logging.getLogger("s3_soak")

AT_ONCE = 12
"""How many objects a worker deals with at once."""


@dataclass(frozen=True)
class Plan:
    """What a soak does. Shares are of the objects, or of their events."""

    objects: int = 10_000
    kills: int = 30
    workers: int = 2
    versions: bool = True
    doubled: float = 0.2
    dropped: float = 0.01
    overwritten: float = 0.05
    bad: float = 0.1
    text: float = 0.03
    seed: int = 1
    seconds: float = 1800.0
    """After so long nothing more is uploaded, and after three times so long it is given up."""


@dataclass
class Upload:
    """One version that was uploaded: what it is, and what became of it."""

    ref: ObjectRef
    verdict: str
    order: int
    dropped: bool
    answers: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Figures:
    """What is printed at the end."""

    objects: int = 0
    versions: int = 0
    events: int = 0
    doubled: int = 0
    dropped: int = 0
    overwrites: int = 0
    while_checked: int = 0
    kills: int = 0
    redelivered: int = 0
    retries: int = 0
    messages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    seconds: float = 0.0
    objects_per_s: float = 0.0
    reconciled: dict[str, Any] = field(default_factory=dict)


class Buckets(NamedTuple):
    """The buckets of one run."""

    uploads: str
    public: str
    quarantine: str


class Pictures:
    """Small pictures, no two of the same bytes, and a list with the digests of the bad ones."""

    def __init__(self, plan: Plan) -> None:
        self._base = [encode(make_photo(96, 72, seed=seed)) for seed in range(8)]
        self._random = random.Random(plan.seed)  # noqa: S311 - nothing secret
        self._plan = plan
        self._made = 0
        most = 2 * plan.objects + 100
        self._bad = {n for n in range(most) if self._random.random() < plan.bad}

    def list_entries(self) -> list[ListEntry]:
        """The digests of the bad ones, as a list."""
        return [
            ListEntry(f"bad-{n}", (("md5", hashlib.md5(self._picture(n), usedforsecurity=False).digest()),))
            for n in self._bad
        ]

    def next(self) -> tuple[bytes, str]:
        """Another one, and its verdict."""
        self._made += 1
        if self._made not in self._bad and self._random.random() < self._plan.text:
            return b"text %d" % self._made, "not_scanned"
        return self._picture(self._made), "block" if self._made in self._bad else "allow"

    def _picture(self, number: int) -> bytes:
        """With a comment of its own, right after the JPEG's first marker."""
        base, comment = self._base[number % len(self._base)], b"%032d" % number
        return base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]


class Soak(ABC):
    """One run. How events come to workers is a subclass's: :meth:`_traffic`, :meth:`_start`."""

    def __init__(self, plan: Plan, server: S3Server, directory: Path) -> None:
        self.plan = plan
        self.figures = Figures()
        self._server = server
        self._buckets = Buckets(*(f"{purpose}-{secrets.token_hex(4)}" for purpose in ("uploads", "public", "kept")))
        self._directory = directory
        self._random = random.Random(plan.seed + 1)  # noqa: S311
        self._pictures = Pictures(plan)
        self._uploads: dict[tuple[str, str], Upload] = {}
        self._newest: dict[str, Upload] = {}
        self._waiting: list[int] = []
        self._events: dict[int, Upload] = {}
        self._to_overwrite: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._problems: list[str] = []
        self._client: Any = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._options: dict[str, Any] = {
            "state": {"path": str(directory / "state.db"), "lease_s": 1.0},
            "limits": {"at_once": AT_ONCE},
            "routes": {
                "soak": {
                    "bucket": self._buckets.uploads,
                    "prefix": "in/",
                    "public_bucket": self._buckets.public,
                    "public_prefix": "",
                    "quarantine_bucket": self._buckets.quarantine,
                }
            },
        }

    async def run(self) -> Figures:
        """All of it; raises ``AssertionError`` with what is wrong."""
        hashset = self._directory / "hashset"
        HashSet.create(hashset).add_list("made-up", self._pictures.list_entries(), lookup_kinds(DIGESTS))
        options = S3Options.of(**self._options)
        state = State(options.state)
        await state.open()
        async with aioboto3.Session().client("s3", **self._server.client_options()) as self._client:
            await self._make_buckets()
            with open_guard(hashset) as guard:
                checker = ObjectChecker(guard, options, client=self._client, state=state)
                started = time.monotonic()
                await self._traffic(checker)
                self.figures.seconds = round(time.monotonic() - started, 1)
                self.figures.versions = len(self._uploads)
                self.figures.objects_per_s = round(len(self._uploads) / self.figures.seconds, 1)
                await self._reconcile(checker)
                await self._judge(checker)
        await state.close()
        assert not self._problems, "\n".join(self._problems[:20])
        return self.figures

    async def _make_buckets(self) -> None:
        for bucket in (self._buckets.uploads, self._buckets.public, self._buckets.quarantine):
            await self._client.create_bucket(Bucket=bucket)
        versioned = (
            [self._buckets.public, self._buckets.uploads] if self.plan.versions else [self._buckets.public]
        )  # so that nothing published goes unseen
        for bucket in versioned:
            status = {"Status": "Enabled"}
            await self._client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)

    @abstractmethod
    async def _traffic(self, checker: ObjectChecker) -> None:
        """Upload all, and have it checked, until nothing is left to be done but what was dropped."""

    @abstractmethod
    def _start(self) -> subprocess.Popen[bytes]:
        """Start a worker."""

    def _keys(self) -> list[str]:
        keys = [f"in/{number:06d}.jpg" for number in range(self.plan.objects)]
        self._to_overwrite = set(self._random.sample(keys, int(len(keys) * self.plan.overwritten)))
        return keys

    async def _put_all(self, keys: Sequence[str]) -> None:
        until = time.monotonic() + self.plan.seconds

        async def put(key: str) -> None:
            if time.monotonic() < until:
                await self._put(key)
                self.figures.objects += 1

        await _at_once(8, [functools.partial(put, key) for key in keys])

    def _overwrite_soon(self, key: str, wait_s: float = 0.0) -> None:
        async def overwrite() -> None:
            await asyncio.sleep(wait_s)
            await self._put(key)

        self._to_overwrite.discard(key)
        self.figures.overwrites += 1
        task = asyncio.create_task(overwrite())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _draw(self) -> int:
        """The number of one of the waiting events."""
        place = self._random.randrange(len(self._waiting))
        self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
        return self._waiting.pop()

    async def _kill(self) -> None:
        """Kill a worker whenever so many outcomes more are there."""
        due = [self._random.uniform(0.05, 0.95) * self.plan.objects for _ in range(self.plan.kills)]
        for at in sorted(due):
            while self.figures.outcomes.total() < at:  # noqa: ASYNC110 - a count, and no hurry
                await asyncio.sleep(0.01)
            number = self._random.randrange(len(self._workers))
            self._workers[number].kill()
            self._workers[number].wait()
            self._workers[number] = self._start()
            self.figures.kills += 1

    def _end_all(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()

    async def _put(self, key: str) -> None:
        body, verdict = self._pictures.next()
        answer = await self._client.put_object(Bucket=self._buckets.uploads, Key=key, Body=body)
        order = len(self._uploads) + 1
        etag = answer["ETag"].strip('"')
        ref = ObjectRef(self._buckets.uploads, key, answer.get("VersionId"), etag, f"{order:016X}", len(body))
        # Nothing is overwritten while it is checked whose event is lost.
        dropped = self._random.random() < self.plan.dropped and key not in self._to_overwrite
        upload = Upload(ref, verdict, order, dropped)
        self._uploads[key, etag] = self._newest[key] = upload
        if upload.dropped:
            self.figures.dropped += 1
            return
        doubled = self._random.random() < self.plan.doubled
        self.figures.doubled += doubled
        for _ in range(1 + doubled):
            number = len(self._events)
            self._events[number] = upload
            self._waiting.append(number)
        self.figures.events = len(self._events)

    async def _watch(self, checker: ObjectChecker) -> None:
        """Look at what is public, over and over: all of it must have been checked, and allowed."""
        seen: set[tuple[str, str]] = set()
        while True:
            await self._look(checker, seen)
            self.figures.looks += 1
            log.info("%d answers, %d events waiting", self.figures.outcomes.total(), len(self._waiting))
            await asyncio.sleep(1.0)

    async def _look(self, checker: ObjectChecker, seen: set[tuple[str, str]]) -> None:
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._buckets.public)
        async for page in pages:
            new = [
                (f"in/{one['Key']}", one["ETag"].strip('"'))
                for one in page.get("Versions", ())
                if (f"in/{one['Key']}", one["ETag"].strip('"')) not in seen
            ]
            uploads = [self._uploads.get(name) for name in new]
            versions = [checker.version_of(one.ref) for one in uploads if one is not None]
            known = await checker.state.known([version for version in versions if version is not None])
            for name, upload in zip(new, uploads, strict=True):
                seen.add(name)
                was = known.get(checker.version_of(upload.ref) or b"") if upload is not None else None
                if upload is None or upload.verdict != "allow" or was is None or was.verdict.label != "allow":
                    self._problems.append(f"{name[0]} is public unchecked, or not allowed")

    async def _reconcile(self, checker: ObjectChecker) -> None:
        lost = [upload for upload in self._uploads.values() if upload.dropped and not upload.answers]
        report = await reconcile(checker, min_age_s=0.0)
        self.figures.reconciled = report.to_dict()
        if self.plan.versions and report.missed != len(lost):
            self._problems.append(f"{len(lost)} events were lost, and {report.missed} found")
        if not report.complete or report.missed == 0 < self.plan.dropped * self.figures.objects - 5:
            self._problems.append(f"reconcile came to {report.to_dict()}")
        rest: Reconciled = await reconcile(checker, min_age_s=0.0)
        if rest.missed:
            self._problems.append(f"after reconcile {rest.missed} were left")

    async def _judge(self, checker: ObjectChecker) -> None:
        """Compare what is there now with what must be."""
        await self._look(checker, set())
        versions = {key: checker.version_of(upload.ref) or b"" for key, upload in self._uploads.items()}
        known = await checker.state.known(list(versions.values()))
        for key, upload in self._uploads.items():
            was = known.get(versions[key])
            told = {(answer["verdict"], answer["reference"]) for answer in upload.answers if answer["reference"]}
            if len(told) > 1:
                self._problems.append(f"{key[0]} got {len(told)} verdicts")
            overwritten = not self.plan.versions and upload is not self._newest[key[0]]
            settled = was is not None and was.done and was.verdict.label == upload.verdict
            # Of what was overwritten nothing is left to be done with, checked or not.
            if not settled and not (overwritten and (was is None or was.verdict.label == upload.verdict)):
                self._problems.append(f"{key[0]} should be {upload.verdict}, and is {was}")
        await self._judge_buckets()

    async def _judge_buckets(self) -> None:
        public = await self._etags(self._buckets.public)
        for key, upload in self._newest.items():
            there = public.get(key.removeprefix("in/"))
            if upload.verdict == "allow" and there != upload.ref.etag:
                self._problems.append(f"{key}: the newest version is not the public one")
        left = set(await self._etags(self._buckets.uploads))
        wrong = {key for key in left if self._newest[key].verdict == "allow"}
        if self.plan.versions is False and wrong:
            self._problems.append(f"{len(wrong)} allowed objects were not moved")
        kept = Counter((await self._etags(self._buckets.quarantine)).values())
        for upload in self._uploads.values():
            copies = kept[upload.ref.etag or ""]
            least = self.plan.versions or upload is self._newest[upload.ref.key]  # else it may be gone before
            if any(a["verdict"] == "block" for a in upload.answers) and not least <= copies <= 1:
                self._problems.append(f"{upload.ref.key}: {copies} copies in quarantine")

    async def _etags(self, bucket: str) -> dict[str, str]:
        found: dict[str, str] = {}
        async for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            found |= {one["Key"]: one["ETag"].strip('"') for one in page.get("Contents", ())}
        return found


async def _at_once(limit: int, works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    room = asyncio.Semaphore(limit)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with room:
            await work()

    await asyncio.gather(*(one(work) for work in works))
